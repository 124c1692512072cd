"""Verified chunks that cannot be written: the disk is full, or the cache is read-only.

Memory holds them just long enough for the readers that wait for them: such a cache makes reads slower, not fail. Used
by chunks.py; one for all layers of a cache. Thread rule: any thread.
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

log = logging.getLogger(__name__)

MOST = 64 << 20
"""Bytes that are held at most, or the last chunk alone if that has more; formats/format.py bounds its size."""
_SILENCE_S = 3600.0


class UnkeptChunks:
    """The bytes of the latest chunks that could not be written, by digest. *note* is called once with the reason."""

    def __init__(self, note: Callable[[str], None] = log.warning, *, most: int = MOST) -> None:
        self._note = note
        self._most = most
        self._lock = threading.Lock()
        self._held: OrderedDict[Digest, bytes] = OrderedDict()
        self._size = 0
        self._silent_until_s = 0.0
        self.told = ""
        """What the user was told last about layers that cannot be kept; "" if nothing."""

    def hold(self, digest: Digest, content: bytes, failure: CacheFailure) -> None:
        """Hold *content*, which has that digest and which *failure* keeps from the disk."""
        with self._lock:
            if not self._held:
                give_memory_back()
                keep_big_blocks_apart()
            self._size += len(content) - len(self._held.pop(digest, b""))
            self._held[digest] = content
            while self._size > self._most and len(self._held) > 1:
                self._size -= len(self._held.popitem(last=False)[1])
        self.tell(failure)

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
                self._held.move_to_end(digest)
            return self._held.get(digest)
