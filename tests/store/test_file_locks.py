"""Locks on temporary files of the cache, while another process sweeps."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from regfs.store.locks import file_locks
from regfs.store.locks.file_locks import claimed, new_locked_file, sweep_unlocked


@pytest.mark.parametrize("is_still_claimed", [True, False])
def test_a_new_file_that_a_sweep_takes_before_it_is_locked_is_made_again(
    is_still_claimed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge failed with EIO, `Resource temporarily unavailable`, while another process pruned the cache."""
    lock = file_locks.lock_new
    swept: list[Path] = []

    def late(fd: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        if swept:
            lock(fd)
            return
        swept.append(path)
        if is_still_claimed:
            other = os.open(path, os.O_RDONLY)
            fcntl.flock(other, fcntl.LOCK_EX)
            try:
                lock(fd)
            finally:
                os.close(other)
                path.unlink()
        else:
            with claimed(path) as is_ours:
                assert is_ours
                path.unlink()
            lock(fd)

    monkeypatch.setattr(file_locks, "lock_new", late)
    fd, name = new_locked_file(tmp_path, ".merged-")
    assert [str(tmp_path / found) for found in os.listdir(tmp_path)] == [name] != [str(swept[0])]
    with claimed(Path(name)) as is_ours:
        assert not is_ours
    os.close(fd)


def test_a_leftover_from_before_the_clock_was_set_back_is_swept(tmp_path: Path) -> None:
    """It stayed until the clock had come to that time again."""
    leftover = tmp_path / ".merged-of-a-crash"
    leftover.write_bytes(b"x")
    os.utime(leftover, (4e9, 4e9))
    sweep_unlocked(tmp_path)
    assert not leftover.exists()
