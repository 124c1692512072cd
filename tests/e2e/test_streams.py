"""A program that was started without its standard streams, or whose reader has gone: cron, supervisors, pipes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.hello import host_architecture
from tests.support.images import file, image_of, layer
from tests.support.mounted import Mounted, environment_for, regfs_command
from tests.support.served import Served

CLOSED = ("<&-", ">&-", "2>&-", "<&- >&- 2>&-")  # the streams are opened before a driver or a verb is known


def shell(redirection: str, *command: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run *command* as a shell does that was given *redirection* after it."""
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirection}', "sh", *map(str, command)],
        env=environment_for(home), capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Served]:
    """A registry with app:1."""
    served = Served(tmp_path / "unused")
    served.push("app", "1", image_of(layer(file("motd", b"hello")), architecture=host_architecture()))
    yield served
    served.server.stop()


@pytest.mark.parametrize(("driver", "closed"), [*(("kernel", one) for one in CLOSED), ("fusepy", CLOSED[-1])])
def test_a_mount_that_is_made_without_a_standard_stream_succeeds_and_serves(
    app: Served, driver: str, needs_fuse: None, tmp_path: Path, closed: str
) -> None:
    mount = Mounted(tmp_path, options=["--driver", driver, "--default-registry", app.server.address])
    try:
        done = shell(closed, *mount.command, home=mount.home)
        assert (done.returncode, done.stderr) == (0, ""), done
        assert (mount.path / "app/1/rootfs/motd").read_bytes() == b"hello"
        daemon = next(pid for pid in mount.processes() if os.getsid(pid) == pid)
        assert {os.readlink(f"/proc/{daemon}/fd/{number}") for number in (0, 1, 2)} == {os.devnull}
    except BaseException:
        mount.clean_up()
        raise
    mount.unmount()


VERBS = (["cache", "du"], ["cache", "verify"], ["--version"], ["--help"])


@pytest.mark.parametrize(("closed", "verbs"), [*((one, VERBS[:1]) for one in CLOSED[:-1]), (CLOSED[-1], VERBS)])
def test_a_verb_without_a_standard_stream_succeeds(tmp_path: Path, closed: str, verbs: Sequence[Sequence[str]]) -> None:
    (tmp_path / "cache").mkdir()
    for verb in verbs:
        options = ["--cache-dir", str(tmp_path / "cache")] if verb[0] == "cache" else []
        done = shell(closed, *regfs_command(), *verb, *options, home=tmp_path)
        assert (verb, done.returncode, done.stderr) == (verb, 0, "")


def test_a_verb_whose_output_cannot_be_written_ends_without_a_traceback(tmp_path: Path) -> None:
    for verb in (["--version"], ["--help"], ["status", "--format", "json"], ["status", "--help"]):
        for unread, code in (("a pipe without a reader", 141), ("/dev/full", 1)):
            reader, writer = os.pipe()
            os.close(reader)
            full = os.open("/dev/full", os.O_WRONLY)
            done = subprocess.run(
                [*regfs_command(), *verb], env=environment_for(tmp_path), text=True, timeout=100, check=False,
                stdout=full if unread == "/dev/full" else writer, stderr=subprocess.PIPE,
            )  # fmt: skip
            os.close(writer)
            os.close(full)
            assert (verb, unread, done.returncode, "Traceback" in done.stderr) == (verb, unread, code, False)
            assert ("No space left" in done.stderr) == (unread == "/dev/full")


def test_a_mount_whose_success_cannot_be_told_is_a_mount(app: Served, needs_fuse: None, tmp_path: Path) -> None:
    mount = Mounted(tmp_path, options=["--default-registry", app.server.address])
    try:
        done = shell("> /dev/full", *mount.command, home=mount.home)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False)
        assert (mount.path / "app/1/rootfs/motd").read_bytes() == b"hello"
    except BaseException:
        mount.clean_up()
        raise
    mount.unmount()
