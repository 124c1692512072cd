"""Files of the cache: what is no regular file is no file, and is never waited for."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from regfs.store.cached_files import open_file, put, read_file, take_away
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
