"""What `df` shows of a mount: the cache and its limit, not the disk that it lies on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from regfs.errors import WouldBlock
from regfs.process.waiting.deadline import NON_BLOCKING, under
from regfs.store.eviction.budget import Standing
from regfs.tree.usage import CacheUsage, Usage

GIB = 1 << 30


def usage_of(cache: Path, standing: Standing | None) -> Usage:
    return CacheUsage(cache, lambda _wait_s: standing).now()


def test_the_size_is_the_limit_and_what_the_disk_has_not_is_not_available(tmp_path: Path) -> None:
    found = usage_of(tmp_path, Standing(used=4 * GIB, limit=10 * GIB, free=2 * GIB))
    assert (found.total_bytes, found.free_bytes, found.available_bytes) == (10 * GIB, 6 * GIB, 2 * GIB)


def test_a_cache_over_its_limit_is_full(tmp_path: Path) -> None:
    found = usage_of(tmp_path, Standing(used=12 * GIB, limit=10 * GIB, free=0))
    assert (found.total_bytes, found.free_bytes, found.available_bytes) == (12 * GIB, 0, 0)


@pytest.mark.parametrize("standing", [None, Standing(used=GIB, limit=0, free=GIB)])
def test_without_a_limit_it_is_the_disk(tmp_path: Path, standing: Standing | None) -> None:
    disk = os.statvfs(tmp_path)
    assert usage_of(tmp_path, standing).total_bytes == disk.f_blocks * disk.f_frsize


def test_a_cache_directory_that_is_gone_has_no_room(tmp_path: Path) -> None:
    assert usage_of(tmp_path / "gone", None) == Usage(0, 0, 0, 0, 0)


def test_only_the_first_question_waits_and_not_in_a_thread_that_may_not(tmp_path: Path) -> None:
    waited: list[float] = []

    def standing(wait_s: float) -> Standing | None:
        waited.append(wait_s)
        return Standing(1, GIB, GIB) if wait_s else None

    usage = CacheUsage(tmp_path, standing)
    with under(NON_BLOCKING), pytest.raises(WouldBlock):
        usage.now()
    assert waited == [0.0]
    assert usage.now().total_bytes == GIB
