"""A ring buffer: blocks of memory that one thread fills and several threads read, each of them all of it, in order.

A block is filled in place and read in place: nothing is copied and nothing is allocated on the way. It is filled again
when all readers have released it. Used by ingest.py for compressed bytes and for the tar stream.

Thread rule: one thread fills; each reader is one thread.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Generator
from contextlib import suppress
from queue import SimpleQueue


def private_memory(size: int) -> mmap.mmap:
    """Return *size* bytes of zeros that begin at a page, in huge pages where the kernel has some."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(AttributeError, OSError):  # an older Python, or a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


class RingBuffer:
    """The blocks of *block_size* bytes that *memory* has, for *readers* readers."""

    def __init__(
        self,
        memory: mmap.mmap,
        block_size: int,
        *,
        readers: int,
    ) -> None:
        view = memoryview(memory)
        self._blocks = [view[at : at + block_size] for at in range(0, len(view), block_size)]
        self._free: SimpleQueue[int] = SimpleQueue()
        for number in range(len(self._blocks)):
            self._free.put(number)
        self._queues: list[SimpleQueue[tuple[int, int]]] = [SimpleQueue() for _ in range(readers)]
        self._lock = threading.Lock()
        self._unread = [0] * len(self._blocks)

    def begin(self) -> tuple[int, memoryview]:
        """Return number and memory of a block to fill; waits until the readers have released one."""
        number = self._free.get()
        return number, self._blocks[number]

    def give(self, number: int, size: int) -> None:
        """Pass the first *size* bytes of the block of that number to all readers; size 0 frees the block."""
        if not size:
            self._release(number)
            return
        self._unread[number] = len(self._queues)
        for queue in self._queues:
            queue.put((number, size))

    def end(self) -> None:
        """End the blocks of all readers."""
        for queue in self._queues:
            queue.put((-1, 0))

    def blocks(self, reader: int) -> Generator[memoryview, None, None]:
        """Yield the given blocks to the reader of that number; each stays valid until it asks for the next."""
        queue = self._queues[reader]
        while True:
            number, size = queue.get()
            if not size:
                queue.put((-1, 0))  # for drain()
                return
            try:
                yield self._blocks[number][:size]
            finally:
                self._read(number)

    def drain(self, reader: int) -> None:
        """Take all blocks to the end, so that the thread that fills does not wait for this reader."""
        for _ in self.blocks(reader):
            pass

    def _read(self, number: int) -> None:
        with self._lock:
            self._unread[number] -= 1
            if self._unread[number]:
                return
        self._release(number)

    def _release(self, number: int) -> None:
        self._free.put(number)
