"""Requests that were read and not answered yet, in kept memory, so that no program hangs after a kill of the daemon.

The kernel sends a request once. So it is read straight into kept memory; nothing can be lost in between:

    read buffers     5 times 33 of 8 KiB, the least that the kernel fills: 33 for each thread that reads. A request that
                     is postponed stays in its buffer. A byte that the kernel leaves 0 says DONE
    waiting          8,192 slots of 512 bytes, a copy of each request that is handed over to the pool:
                     u64 since when (monotonic ms; 0: free), then the request as it was read

The next daemon answers them first. The kernel refuses a second answer to the same request (ENOENT), and the daemon
undoes that one as it does with any refused answer. A request keeps its deadline. FORGET and BATCH_FORGET are marked
DONE before they are carried out: to forget twice would make a node stale. Used by loop.py, session.py and
waiting_requests.py. Thread rule: any thread; each buffer belongs to one.
"""

from __future__ import annotations

import struct
import threading
import time
from typing import NamedTuple

from regfs.mount.kernel import abi
from regfs.mount.kernel.kept.state_file import OPEN_FILES_AT, READ_BUFFERS_AT, WAITING_AT, StateFile

BUFFER_SIZE = 8 * 1024
DONE_AT = 7
"""The offset of the byte in a request that is 0 when it is read (the highest of its opcode); 1 means DONE."""

_THREADS = 5
_EACH_THREAD = 33
_BUFFERS = _THREADS * _EACH_THREAD
# In a longer buffer one BATCH_FORGET names more nodes.
_LARGE = 64 * 1024
_SLOT_SIZE = 512
_SLOTS = 8192
_LARGEST = _SLOT_SIZE - 8
_SINCE = struct.Struct("<Q")
_HEAD = 40


class Left(NamedTuple):
    """A request that the last daemon has left; *age_s* is how many seconds it has waited already."""

    opcode: int
    unique: int
    node: int
    body: bytes
    slot: int
    age_s: float


class NoPending:
    """Keeps nothing, for a mount that ends with its daemon."""

    def buffers(self) -> list[memoryview]:
        """Return the buffers of one thread that reads requests. Here all are one: nothing is kept in it."""
        return [memoryview(bytearray(_LARGE))] * _EACH_THREAD

    def keep(self, opcode: int, unique: int, node: int, body: bytes) -> int:
        """Keep a request until done(); return its slot, 0 where it has none."""
        del opcode, unique, node, body
        return 0

    def done(self, slot: int) -> None:
        """Drop the request in *slot*; nothing for slot 0."""

    def left(self) -> list[Left]:
        """Return the requests that the last daemon has left, each in a slot now."""
        return []


class Pending(NoPending):
    """The requests in *state*."""

    def __init__(self, state: StateFile) -> None:
        memory = memoryview(state.memory)
        self._state = state
        self._memory = state.memory
        self._buffers = [
            memory[at : at + BUFFER_SIZE]
            for at in range(READ_BUFFERS_AT, READ_BUFFERS_AT + _BUFFERS * BUFFER_SIZE, BUFFER_SIZE)
        ]
        assert READ_BUFFERS_AT + _BUFFERS * BUFFER_SIZE <= WAITING_AT
        assert WAITING_AT + _SLOTS * _SLOT_SIZE <= OPEN_FILES_AT
        self._lock = threading.Lock()
        self._used = state.slots
        self._free: list[int] = []

    def buffers(self) -> list[memoryview]:
        """See NoPending. Those in which no request is unanswered: a thread that hangs keeps its own."""
        groups = [self._buffers[first : first + _EACH_THREAD] for first in range(0, _BUFFERS, _EACH_THREAD)]
        free = (group for group in groups if all(each[DONE_AT] or not any(each[:4]) for each in group))
        group = next(free, groups[-1])
        for buffer in group:
            buffer[:] = bytes(BUFFER_SIZE)  # a page that is missing could fail in a process that is being killed
        return group

    def keep(self, opcode: int, unique: int, node: int, body: bytes) -> int:
        """See NoPending."""
        size = _HEAD + len(body)
        slot, memory = self._place() if size <= _LARGEST else 0, self._memory
        if not slot:
            return 0
        abi.IN_HEADER.pack_into(memory, slot + 8, size, opcode, unique, node, 0, 0, 0, 0, 0)
        memory[slot + 8 + _HEAD : slot + 8 + size] = body
        _SINCE.pack_into(memory, slot, time.monotonic_ns() // 1_000_000)
        return slot

    def done(self, slot: int) -> None:
        """See NoPending."""
        if slot:
            _SINCE.pack_into(self._memory, slot, 0)
            self._free.append(slot)

    def _place(self) -> int:
        """Return a free slot, 0 where there is none. Those that were used before first, so that few pages are used."""
        with self._lock:
            if self._free:
                return self._free.pop()
            if self._used >= _SLOTS:
                return 0
            self._used += 1
            self._state.keep_slots(self._used)
            return WAITING_AT + (self._used - 1) * _SLOT_SIZE

    def left(self) -> list[Left]:
        """See NoPending. Call it once, before the first buffers() and keep()."""
        found = self._in_slots()
        known = {each.unique for each in found}
        for buffer in self._buffers:
            size, opcode, unique, node, *_ = abi.IN_HEADER.unpack_from(buffer)
            if size < _HEAD or size > BUFFER_SIZE or buffer[DONE_AT]:
                continue
            if unique not in known:
                body = bytes(buffer[_HEAD:size])
                slot = self.keep(opcode, unique, node, body)
                found.append(Left(opcode, unique, node, body, slot, 0.0))
            buffer[DONE_AT] = 1
        return found

    def _in_slots(self) -> list[Left]:
        """Return the requests in slots."""
        found, now = [], time.monotonic()
        for slot in range(WAITING_AT, WAITING_AT + self._used * _SLOT_SIZE, _SLOT_SIZE):
            (since,) = _SINCE.unpack_from(self._memory, slot)
            if not since:
                self._free.append(slot)
                continue
            size, opcode, unique, node, *_ = abi.IN_HEADER.unpack_from(self._memory, slot + 8)
            body = self._memory[slot + 8 + _HEAD : slot + 8 + min(size, _LARGEST)]
            found.append(Left(opcode, unique, node, body, slot, max(0.0, now - since / 1000)))
        return found
