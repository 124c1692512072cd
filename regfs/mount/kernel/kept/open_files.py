"""The files that the kernel has open, where the next daemon finds them: their nodes and backing ids.

    2,097,152 records of 32 bytes: u64 node, u64 unique of the OPEN, u32 flags, u32 backing id, u64 handle (0: free)

The number of a handle has the number of its record in the lower 21 bits; all ones: it has none. A record is written
just before the OPEN is answered. The next daemon answers the same request again to learn whether the kernel got that
answer: if the kernel takes the second one, it did not get the first, and the first record is void.

Used by state.py. Thread rule: any thread; pop() and append() of a list are atomic.
Source of what depends on open files: passthrough.py, page_cache.py.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from regfs.mount.handles import Handles
from regfs.mount.kernel import abi
from regfs.mount.kernel.kept.state_file import NODES_AT, OPEN_FILES_AT, StateFile

if TYPE_CHECKING:
    from regfs.tree.node import OpenFile

_RECORD = struct.Struct("<QQIIQ")
_HANDLE = struct.Struct("<Q")
_HANDLE_AT = 24
_INDEX_BITS = 21
_NO_INDEX = (1 << _INDEX_BITS) - 1
_MOST = _NO_INDEX
_EACH_DAEMON = 1 << 24
_SHIFT = 5
_pack_into, _pack_handle, _unpack_answer = _RECORD.pack_into, _HANDLE.pack_into, abi.OPEN_OUT.unpack


class KeptFile(NamedTuple):
    """A file that the kernel has open. *unique* is the request that opened it, *flags* are open_out's."""

    node: int
    unique: int
    flags: int
    backing_id: int
    handle: int


class KeptHandles(Handles["OpenFile"]):
    """Handles of files, each with a place for a record in *state*."""

    def __init__(self, state: StateFile) -> None:
        super().__init__()
        self._state = state
        assert OPEN_FILES_AT + _MOST * _RECORD.size <= NODES_AT
        self._memory = state.memory
        self._numbers = itertools.count(1 + _EACH_DAEMON * state.restarts)
        self._free: list[int] = []
        self._fresh = itertools.count()

    def add(self, opened: OpenFile) -> int:
        """See Handles."""
        try:
            index = self._free.pop()
        except IndexError:
            index = min(next(self._fresh), _NO_INDEX)
            self._state.keep_open_files(min(index + 1, _MOST))
        number = next(self._numbers) << _INDEX_BITS | index
        self._open[number] = opened
        return number

    def record(self, node: int, unique: int, answer: bytes) -> None:
        """Write the record of the handle in *answer*, the body for the OPEN *unique*, before the kernel gets it."""
        handle, flags, backing_id = _unpack_answer(answer)
        index = handle & _NO_INDEX
        if index != _NO_INDEX:
            _pack_into(self._memory, OPEN_FILES_AT + (index << _SHIFT), node, unique, flags, backing_id, handle)

    def closed(self, number: int) -> None:
        """See Handles: remove the record."""
        index = number & _NO_INDEX
        if index != _NO_INDEX:
            _pack_handle(self._memory, OPEN_FILES_AT + (index << _SHIFT) + _HANDLE_AT, 0)
            self._free.append(index)

    def read(self) -> Iterator[KeptFile]:
        """Yield what an earlier daemon has recorded, and learn which records are free. Call it once, at first."""
        used = self._state.open_files
        for index in range(used):
            file = KeptFile(*_RECORD.unpack_from(self._memory, OPEN_FILES_AT + (index << _SHIFT)))
            if file.handle:
                yield file
            else:
                self._free.append(index)
        self._fresh = itertools.count(used)
