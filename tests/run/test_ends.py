"""How `regfs run` ends: by signals, by kills at any step, and without leaving a mount or a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import becomes
from tests.run.runner import PATIENCE_S, Runner
from tests.support.erofs import needs_erofs
from tests.support.hello import MESSAGE
from tests.support.mounted import as_user, mountinfo, processes_naming, wait_for_exit


def test_signals_reach_the_program(runner: Runner) -> None:
    for number, status in ((signal.SIGTERM, 3), (signal.SIGINT, 4), (signal.SIGHUP, 5)):
        script = "trap 'exit 3' TERM; trap 'exit 4' INT; trap 'exit 5' HUP; echo ready; while :; do sleep 0.1; done"
        started = runner.start("--", "sh", "-c", script)
        started.send_signal(number)
        assert started.wait(PATIENCE_S) == status
    started = runner.start("--", "sh", "-c", "echo ready; exec sleep 1000")
    started.terminate()
    assert started.wait(PATIENCE_S) == 128 + signal.SIGTERM


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for each in found:
        children = Path(f"/proc/{each}/task/{each}/children")
        found += map(int, children.read_text().split()) if children.exists() else []
    return found[1:]


@pytest.mark.parametrize("which", [0, 1, 2, 3], ids=["supervisor", "entered", "process 1", "program"])
def test_a_kill_of_any_of_its_processes_ends_all_of_them(user: Runner, which: int) -> None:
    started = user.start("--", "sh", "-c", "sleep 1000 & echo ready; wait")
    processes = [started.pid, *_descendants(started.pid)]
    assert len(processes) == 5
    os.kill(processes[which], signal.SIGKILL)
    assert started.wait(PATIENCE_S) != 0
    assert wait_for_exit(processes[1:], PATIENCE_S) == []
    assert processes_naming(str(user.directory)) == []


# The process kills itself in the place of this call.
_KILLED = """
import os, sys
from pkgutil import resolve_name
owner, _, name = sys.argv.pop(1).rpartition(".")
owner = resolve_name(owner)
setattr(owner, name, lambda *_, **__: os.kill(os.getpid(), 9))
from regfs.cli.main import main
main()
"""
_STEPS = (
    "regfs.export.container.namespaces.run_first_process",
    "regfs.export.container.first_process.RootDirectory",
    "regfs.export.container.root_directory.overlay_options",
    "regfs.export.container.first_process.user_of_image",
    "regfs.export.container.first_process.become",
    "regfs.verbs.image.find_image",
    "regfs.verbs.run.plan_of",
)


@pytest.mark.parametrize("step", _STEPS)
def test_a_kill_at_any_step_leaves_no_mount_and_no_process(user: Runner, step: str) -> None:
    command = [*as_user(user.uid), sys.executable, "-c", _KILLED, step, "run", f"{user.server.address}/demo/hello"]
    killed = subprocess.run(
        command, env=user.environment(), cwd=user.directory, capture_output=True, text=True, timeout=100, check=False
    )
    assert killed.returncode != 0
    assert killed.stdout == ""
    assert [line for line in mountinfo() if line.split()[4] == "/tmp" or "/lower" in line] == []
    assert processes_naming(user.server.address, "demo/hello") == []
    assert user(image="hello").stdout.encode() == MESSAGE
    left = [path for kind in ("uses", "ingests", "locks") for path in user.directory.glob(f"cache/regfs/{kind}/*")]
    assert left == []


@needs_erofs
def test_a_kill_of_a_run_that_the_kernel_serves_leaves_nothing_mounted(root: Runner) -> None:
    for which in (0, 2):  # supervisor, process 1
        started = root.start("--", "sh", "-c", "sleep 1000 & echo ready; wait")
        processes = [started.pid, *_descendants(started.pid)]
        assert len(processes) == 5
        os.kill(processes[which], signal.SIGKILL)
        assert started.wait(PATIENCE_S) != 0
        assert wait_for_exit(processes[1:], PATIENCE_S) == []
    for step in ("regfs.verbs.run.plan_of", "regfs.export.container.first_process.RootDirectory.enter"):
        command = [sys.executable, "-c", _KILLED, step, "run", f"{root.server.address}/demo/tools"]
        killed = subprocess.run(
            command, env=root.environment(), cwd=root.directory, capture_output=True, timeout=100, check=False
        )
        assert (killed.returncode != 0, killed.stdout) == (True, b""), step
    assert processes_naming(root.server.address, "demo/tools") == []
    assert list((root.directory / "cache").glob("regfs/images/*.erofs")) != []  # the kernel had it mounted
    becomes(lambda: root("rm", f"{root.server.address}/demo/tools", verb="cache", image=None).returncode, 0)
