"""Two daemons on one small cache: each evicts what the other reads, and both give right bytes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from regfs.store.eviction.inventory import used_by
from tests.support.fault_server import Connection
from tests.support.lazy_layers import estargz
from tests.support.mounted import Mounted
from tests.support.small_budget import ManyImages, Watched, many_images, read_at_random

MIB = 1 << 20
LIMIT, READERS = 8 * MIB, 2


class HeldAtFetches:
    """How much a cache held when its daemons asked for parts of blobs, by the count of the store itself."""

    def __init__(self, images: ManyImages, cache: Path) -> None:
        self.counts: list[int] = []
        self._lock = threading.Lock()
        self._cache = cache
        images.server.on("GET", "/blobs/", self._count)

    def _count(self, connection: Connection) -> bool:
        held = used_by(self._cache)
        with self._lock:
            self.counts.append(held)
        return connection.answer(connection.right())


def test_two_daemons_evict_what_the_other_reads_and_give_right_bytes(tmp_path: Path, needs_fuse: None) -> None:
    cache = tmp_path / "cache"
    with many_images(1, size=40 * MIB, files=40, builders=[estargz]) as images, ExitStack() as stack:
        held = HeldAtFetches(images, cache)
        options = ["--default-registry", images.address, "--cache-size", f"{LIMIT // MIB}M"]
        mounts = [
            stack.enter_context(Mounted(tmp_path / name, options=options, cache=cache)) for name in ("one", "other")
        ]

        def read(number: int) -> Watched:
            return read_at_random(images, mounts[number], reads=80, readers=READERS, seed=number)

        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(read, range(2)))
        assert [watched.wrong for watched in found] == [[], []]
        # More than the files have, so that much was evicted and fetched again; a reader has a file and what follows it.
        assert len(held.counts) > images.files
        assert LIMIT // 2 < max(held.counts) <= LIMIT + 2 * READERS * 2 * MIB
