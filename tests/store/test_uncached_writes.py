"""Writing past the page cache leaves the same bytes in the files, wherever they are."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from regfs.store.files.uncached_writes import UncachedWrites

PIECES = [bytes([number]) * size for number, size in enumerate((4096, 8192 + 1, 70_000, 0, 3, 1 << 20))]


@pytest.fixture(params=["disk", "memory"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A directory on a disk, and one on a file system of memory, whose pages have nowhere to go."""
    if request.param == "disk":
        yield tmp_path
        return
    shared_memory = Path("/dev/shm")
    if not os.access(shared_memory, os.W_OK):
        pytest.skip("/dev/shm cannot be written")
    made = shared_memory / f"regfs-test-{os.getpid()}"
    made.mkdir()
    yield made
    for file in made.iterdir():
        file.unlink()
    made.rmdir()


@pytest.mark.parametrize("kept", [0, 5000, 1 << 30])
@pytest.mark.parametrize("is_aligned", [False, True])
def test_all_pieces_are_in_the_file_where_they_belong(directory: Path, kept: int, is_aligned: bool) -> None:
    path = directory / "file"
    memory = mmap.mmap(-1, 2 << 20)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    output = UncachedWrites(fd, kept=kept)
    offset = 0
    for piece in PIECES:
        memory[: len(piece)] = piece
        view = memoryview(memory)[: len(piece)] if is_aligned else memoryview(piece)
        output.write(view, offset)
        offset += len(piece)
    os.close(fd)
    assert path.read_bytes() == b"".join(PIECES)


def test_what_was_skipped_is_a_hole(directory: Path) -> None:
    path = directory / "file"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    output = UncachedWrites(fd, kept=0)
    output.write(memoryview(b"before"), 0)
    output.write(memoryview(b"after"), 6 + (1 << 20))
    os.close(fd)
    assert path.read_bytes() == b"before" + bytes(1 << 20) + b"after"


def test_what_the_disk_refuses_is_an_error(directory: Path) -> None:
    path = directory / "file"
    path.touch()
    fd = os.open(path, os.O_RDONLY)
    with pytest.raises(OSError, match="Bad file descriptor"):
        UncachedWrites(fd, kept=0).write(memoryview(b"bytes"), 0)
    os.close(fd)
