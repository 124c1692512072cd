"""Verified chunks that cannot be written: the disk is full, or the cache is read-only.

Memory holds them just long enough for the readers that wait for them: such a cache makes reads slower, not fail. What
nothing reads for a while is dropped. Used by chunks.py; one for all layers of a cache. Thread rule: any thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from regfs.errors import CacheFailure
from regfs.model.digest import Digest
from regfs.process.syscalls import give_memory_back, keep_big_blocks_apart
from regfs.store.tables.open_tables import OpenTables

log = logging.getLogger(__name__)

MOST = 64 << 20
"""Bytes that are held at most, or the last chunk alone if that has more; formats/format.py bounds its size."""
_SILENCE_S = 3600.0
_IN_USE_S = 5.0


class UnkeptChunks:
    """The bytes of the latest chunks that could not be written, by digest. *note* is called once with the reason."""

    recent = True
    """See Evictable (store/tables/open_tables.py)."""

    def __init__(
        self, note: Callable[[str], None] = log.warning, *, most: int = MOST, tables: OpenTables | None = None
    ) -> None:
        """*tables* closes it where it is not used."""
        self._note = note
        self._tables = tables
        self._most = most
        self._lock = threading.Lock()
        self._held: OrderedDict[Digest, bytes] = OrderedDict()
        self._size = 0
        self._passed = 0
        self._used_s = 0.0
        self._silent_until_s = 0.0
        self.told = ""
        """What the user was told last about layers that cannot be kept; "" if nothing."""

    def hold(self, digest: Digest, content: bytes, failure: CacheFailure) -> None:
        """Hold *content*, which has that digest and which *failure* keeps from the disk."""
        with self._lock:
            is_first = not self._held
            self._passed += len(content)
            is_much = self._passed > self._most
            self._passed = 0 if is_much else self._passed
            self._note_use()
            self._size += len(content) - len(self._held.pop(digest, b""))
            self._held[digest] = content
            while self._size > self._most and len(self._held) > 1:
                self._size -= len(self._held.popitem(last=False)[1])
        if is_first or is_much:  # what was received in small blocks, by many threads
            give_memory_back()
        if is_first:
            keep_big_blocks_apart()
            if self._tables is not None:
                self._tables.add(self)
        self.tell(failure)

    def close_if_idle(self) -> bool:
        """Drop what is held, unless it was used just now."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if time.monotonic() - self._used_s < _IN_USE_S:
                return False
            self._held.clear()
            self._size = 0
        finally:
            self._lock.release()
        give_memory_back()
        return True

    def _note_use(self) -> None:
        self.recent, self._used_s = True, time.monotonic()

    def tell(self, failure: CacheFailure) -> None:
        """Tell the user, once an hour, that layers cannot be kept."""
        now_s = time.monotonic()
        with self._lock:
            is_news = now_s >= self._silent_until_s
            if is_news:
                self._silent_until_s = now_s + _SILENCE_S
        if is_news:
            self.told = f"what is read of layers is not kept, and is fetched again when it is next read: {failure}"
            self._note(self.told)

    def find(self, digest: Digest) -> bytes | None:
        """Return the bytes that have that digest, if they are held."""
        with self._lock:
            if digest in self._held:
                self._note_use()
                self._held.move_to_end(digest)
            return self._held.get(digest)
