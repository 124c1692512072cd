"""A pipe through shared memory: the compressed bytes of a layer on their way from the daemon to its worker.

The writer copies bytes once, into shared memory, and the reader uses them there. A pipe of the kernel copies twice,
into pages that it allocates. A socket pair, whose one end is the reader's stdin, carries counts:

    writer to reader    uint32, native: bytes added to the ring; the end of the stream ends the input
    reader to writer    uint32, native: bytes read from the ring, whose room is free again

Used by worker.py (writer) and ingest_main.py (reader). Thread rule: one thread writes, one reads.
"""

from __future__ import annotations

import mmap
import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

SIZE = 4 << 20
"""Bytes of the ring: the most that is written and not yet read."""

_COUNT = struct.Struct("=I")
_READ = 1 << 12
# How many bytes the reader takes and acknowledges at once, so that the writer is not woken for each network packet.
_PIECE = SIZE // 8


class PipeWriter:
    """The daemon's end. Must be closed."""

    def __init__(self) -> None:
        """Raises OSError if there are too many descriptors or too little memory."""
        self.memory_fd = _shared_memory()
        try:
            self._memory = mmap.mmap(self.memory_fd, SIZE)
            self._socket, self.reader_end = socket.socketpair()
        except OSError:
            os.close(self.memory_fd)
            raise
        self._socket.setblocking(False)
        self._at = 0
        self._room = SIZE

    def leave_to_reader(self) -> None:
        """Close this process's copies of the reader's descriptors, so that the connection ends with the reader."""
        os.close(self.memory_fd)
        self.reader_end.close()

    def write(self, view: memoryview, wait_s: float) -> int:
        """Write the first bytes of *view* and return how many; 0 if there was no room for *wait_s* seconds.

        Raises BrokenPipeError if the reader has ended.
        """
        try:
            if not self._room:
                self._wait(select.POLLIN, wait_s)
            if self._room < SIZE // 2:
                self._take_counts()
            size = min(len(view), self._room, SIZE - self._at)
            if not size:
                return 0
            self._memory[self._at : self._at + size] = view[:size]
            try:
                self._socket.send(_COUNT.pack(size))
            except BlockingIOError:  # the socket is full of counts that the reader has not read
                self._wait(select.POLLOUT, wait_s)
                return 0
        except ConnectionError as error:
            raise BrokenPipeError(*error.args) from error
        self._at = (self._at + size) % SIZE
        self._room -= size
        return size

    def end(self) -> None:
        """End the input; written bytes can still be read."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the pipe."""
        self._socket.close()
        self._memory.close()

    def _wait(self, event: int, wait_s: float) -> None:
        poll = select.poll()
        poll.register(self._socket, event)
        poll.poll(wait_s * 1000)

    def _take_counts(self) -> None:
        with suppress(BlockingIOError):
            counts = self._socket.recv(_READ)
            if not counts:
                raise BrokenPipeError
            self._room += _sum(counts)


def pieces(memory_fd: int, socket_fd: int) -> Iterator[memoryview]:
    """Yield the bytes of a pipe, in the reader's process; each piece is valid until the next one."""
    memory = memoryview(mmap.mmap(memory_fd, SIZE))
    os.close(memory_fd)
    connection = socket.socket(fileno=socket_fd)
    available = at = untold = 0
    while True:
        if not available:
            counts = b""
            with suppress(ConnectionError):  # the writer has ended without reading these counts
                counts = connection.recv(_READ)
            if not counts:
                return
            available = _sum(counts)
        size = min(available, _PIECE, SIZE - at)
        yield memory[at : at + size]
        available -= size
        at = (at + size) % SIZE
        untold += size
        if untold >= _PIECE:
            with suppress(OSError):  # the writer has ended: the input will too
                connection.send(_COUNT.pack(untold), socket.MSG_NOSIGNAL)
            untold = 0


def _sum(counts: bytes) -> int:
    return sum(count for (count,) in _COUNT.iter_unpack(counts))


def _shared_memory() -> int:
    """Return a descriptor of SIZE zeros without a name."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("regfs", os.MFD_CLOEXEC)
    else:
        import tempfile  # imported here: it takes 8 ms, and only the daemon needs it

        fd, name = tempfile.mkstemp()
        os.unlink(name)
    os.ftruncate(fd, SIZE)
    return fd
