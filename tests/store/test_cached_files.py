"""Files of the cache: what is no regular file is no file, and is never waited for."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from regfs.store.files.cached_files import open_file, put, read_file, take_away
from tests.support.caches import full_directory, link_to_itself


def link_to_a_directory(path: Path) -> None:
    path.symlink_to("/usr")


def bound_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(path))


NO_FILES: list[Callable[[Path], object]] = [
    full_directory,
    os.mkfifo,
    link_to_itself,
    link_to_a_directory,
    bound_socket,
]


@pytest.mark.parametrize("make", NO_FILES)
def test_what_is_no_file_is_taken_away_and_counts_as_missing(make: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "name"
    make(path)
    with pytest.raises(FileNotFoundError):
        open_file(path)
    assert os.listdir(tmp_path) == []
    assert os.path.isdir("/usr/bin")


@pytest.mark.parametrize("make", NO_FILES)
def test_a_file_takes_the_place_of_what_is_none(make: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "name"
    make(path)
    (tmp_path / "new").write_bytes(b"new")
    put(tmp_path / "new", path)
    assert read_file(path) == b"new"
    assert os.listdir(tmp_path) == ["name"]


def test_what_is_not_there_is_taken_away_without_an_error(tmp_path: Path) -> None:
    take_away(tmp_path / "name")


_HOLD_A_LEASE = """
import fcntl, os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGURG])
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.fcntl(fd, 10, signal.SIGURG)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
signal.sigwait([signal.SIGURG])
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
"""


def test_a_file_that_another_process_has_a_lease_on_is_opened_once_that_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with subprocess.Popen([sys.executable, "-c", _HOLD_A_LEASE, path], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert read_file(path) == b"content"
    assert holder.returncode == 0
