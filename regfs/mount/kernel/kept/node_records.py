"""The node ids that the kernel knows, where the next daemon finds them. A tree writes them (tree/snapshot.py: Records).

    records of n × 256 bytes, without a gap up to one of n 0:
        u64 use: 0 free, 1 a node, 2 the image of a tag
        u32 n   u32 bytes of text   i64 look-ups   u64 node   u64 found in   u64 generation   u64 order   text
    text    JSON: a node's key, tag, changing name and identity; an image's digest, media type and size

A record is written with use 0 first, and its use last. A value that changes gets a new record before its old one is
dropped; of two for one node the later *order* counts. Thread rule: any thread; one lock, never held for I/O.
"""

from __future__ import annotations

import itertools
import json
import struct
import threading
from collections.abc import Iterator

from regfs.mount.kernel.kept.state_file import NODES_AT, SIZE, StateFile
from regfs.tree.snapshot import KeptNode, Snapshot, TagImage

_UNIT = 256
_HEAD = struct.Struct("<QIIqQQQQ")
_USE = struct.Struct("<Q")
_LOOKUPS = struct.Struct("<q")
_SPAN = struct.Struct("<I")
_SPAN_AT, _LOOKUPS_AT = 8, 16
_FREE, _NODE, _IMAGE = 0, 1, 2
_LARGEST = 64 << 10


class NodeRecords:
    """The records in *state*. Their numbers are their places in the memory."""

    def __init__(self, state: StateFile) -> None:
        self._state = state
        self._memory = state.memory
        self._lock = threading.Lock()
        self._end = NODES_AT
        self._free: dict[int, list[int]] = {}
        self._order = itertools.count(1)

    def keep(self, value: KeptNode | TagImage) -> int:
        """See Records."""
        if isinstance(value, KeptNode):
            said = [value.key, value.tag, value.changing, value.identity]
            numbers = (value.lookups, value.node, value.found_in, value.generation)
        else:
            said = [value.digest, value.media_type, str(value.size)]
            numbers = (0, value.node, 0, 0)
        text = json.dumps(said).encode()
        units = -(-(_HEAD.size + len(text)) // _UNIT)
        if len(text) > _LARGEST:
            return 0
        with self._lock:
            record = self._place(units)
            if not record:
                return 0
            memory = self._memory
            _HEAD.pack_into(memory, record, _FREE, units, len(text), *numbers, next(self._order))
            memory[record + _HEAD.size : record + _HEAD.size + len(text)] = text
            _USE.pack_into(memory, record, _NODE if isinstance(value, KeptNode) else _IMAGE)
            return record

    def count(self, record: int, lookups: int) -> None:
        """See Records."""
        if record:
            _LOOKUPS.pack_into(self._memory, record + _LOOKUPS_AT, lookups)

    def drop(self, record: int) -> None:
        """See Records."""
        if not record:
            return
        with self._lock:
            _USE.pack_into(self._memory, record, _FREE)
            (units,) = _SPAN.unpack_from(self._memory, record + _SPAN_AT)
            self._free.setdefault(units, []).append(record)

    def free_slot(self, number: int, generation: int) -> None:
        """See Records."""
        self._state.keep_free_slot(number, generation)

    def read(self) -> Snapshot:
        """Return what an earlier daemon has recorded. Call it once, at first."""
        found: dict[tuple[int, int], tuple[int, KeptNode | TagImage]] = {}
        latest = 0
        for record, use, order in self._walk():
            latest = max(latest, order)
            value = self._node(record) if use == _NODE else self._image(record)
            other = found.get((use, value.node))
            if other is None or other[0] < order:
                found[use, value.node] = order, value
            else:
                other = order, value
            if other is not None:
                self.drop(other[1].record)
        self._order = itertools.count(latest + 1)
        values = [value for _, value in found.values()]
        return Snapshot(
            tuple(value for value in values if isinstance(value, KeptNode)),
            tuple(value for value in values if isinstance(value, TagImage)),
            *self._state.free_slot,
        )

    def _place(self, units: int) -> int:
        free = self._free.get(units)
        if free:
            return free.pop()
        record, end = self._end, self._end + units * _UNIT
        if end + _UNIT > SIZE:
            return 0
        self._end = end
        return record

    def _walk(self) -> Iterator[tuple[int, int, int]]:
        """Yield place, use and order of each record in use, and learn where the free ones are."""
        while self._end + _UNIT <= SIZE:
            record = self._end
            use, units, _, _, _, _, _, order = _HEAD.unpack_from(self._memory, record)
            if not units:
                return
            self._end += units * _UNIT
            if use == _FREE:
                self._free.setdefault(units, []).append(record)
            else:
                yield record, use, order

    def _node(self, record: int) -> KeptNode:
        _, _, length, lookups, node, found_in, generation, _ = _HEAD.unpack_from(self._memory, record)
        key, tag, changing, identity = self._text(record, length)
        return KeptNode(node, generation, key, tag, found_in, changing, lookups, identity, record)

    def _image(self, record: int) -> TagImage:
        _, _, length, _, node, _, _, _ = _HEAD.unpack_from(self._memory, record)
        digest, media_type, size = self._text(record, length)
        return TagImage(node, digest, media_type, int(size), record)

    def _text(self, record: int, length: int) -> list[str]:
        said: list[str] = json.loads(self._memory[record + _HEAD.size : record + _HEAD.size + length])
        return said
