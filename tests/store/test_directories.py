"""Where a directory of the cache should be, something else may stand."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from regfs.store.files.directories import DIRECTORIES, clear_places
from tests.support.images import file, image_of, layer
from tests.support.served import Served

IMAGE = image_of(layer(file("small", b"content"), file("big", b"x" * 600_000)))


def notes_of(root: Path) -> list[str]:
    notes: list[str] = []
    clear_places(root, notes.append)
    return notes


@pytest.mark.parametrize("name", DIRECTORIES)
def test_a_file_in_the_place_of_a_directory_is_no_io_error_and_is_kept(served: Served, name: str) -> None:
    served.push("app", "1", IMAGE)
    served.cache.mkdir(exist_ok=True)
    (served.cache / name).write_bytes(b"somebody's notes")
    shown = served.show()
    assert shown.read("app/1/rootfs/small") == b"content"
    assert len(shown.read("app/1/rootfs/big")) == 600_000
    (aside,) = served.cache.glob(f"{name}.aside-*")
    assert aside.read_bytes() == b"somebody's notes"
    assert f"{served.cache / name} was no directory and is {aside.name} now" in shown.journal.text()
    aside.unlink()


def test_no_directory_and_no_link_is_renamed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "layers").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "images").symlink_to(tmp_path / "a disk that is not mounted")
    (tmp_path / "blobs").mkdir()
    (tmp_path / "mine").write_bytes(b"")
    before = sorted(os.listdir(tmp_path))
    assert notes_of(tmp_path) == []
    assert sorted(os.listdir(tmp_path)) == before


def test_fifos_and_sockets_are_renamed_and_told_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "blobs")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "layers"))
    assert len(notes_of(tmp_path)) == 2
    assert notes_of(tmp_path) == []


def test_an_empty_cache_needs_nothing(tmp_path: Path) -> None:
    assert notes_of(tmp_path / "not there") == []
