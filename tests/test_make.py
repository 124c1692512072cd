"""What `make` installs on a fresh Debian, and how it calls apt-get."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.mounted import REPOSITORY_ROOT


@pytest.mark.parametrize("target", ["test", "bench"])
def test_the_first_make_names_the_packages_of_its_target_too(tmp_path: Path, target: str) -> None:
    """It named those of `run` and ended there, for without them there is no virtual environment."""
    called = subprocess.run(
        ["make", "--dry-run", target, f"VENV={tmp_path / 'venv'}"],
        cwd=REPOSITORY_ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    first = next(line for line in called if "install-packages" in line)
    assert first.split() == [".ci/install-packages", "run", target]


def test_apt_waits_for_the_lock_of_another_apt(tmp_path: Path) -> None:
    """Could not get lock /var/lib/dpkg/lock-frontend."""
    programs = {
        "dpkg-query": "exit 1",  # nothing is installed
        "apt-cache": "exit 0",
        "sudo": 'shift; [ "$1" = true ] || exec "$@"',
        "apt-get": f'echo "$@" >> {tmp_path}/calls',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [str(REPOSITORY_ROOT / ".ci/install-packages"), "run"]
    subprocess.run(command, env=environment, capture_output=True, check=True)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split()[:2] for call in calls] == [["-o", "DPkg::Lock::Timeout=300"]] * 2
    assert ["update" in calls[0], "install" in calls[1], "fuse3" in calls[1]] == [True, True, True]


def test_uninstall_where_nothing_was_installed_asks_for_the_prefix(tmp_path: Path) -> None:
    """.ci/install: line 13: /usr/local/bin/regfs: No such file or directory."""
    command = [str(REPOSITORY_ROOT / ".ci/install"), "--undo", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = f"make install has put nothing below {tmp_path}; PREFIX=DIR says where it has\n"
    assert (done.returncode, done.stderr) == (1, told)
