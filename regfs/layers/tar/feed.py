"""A stream of blocks, from which the tar reader takes pieces of any size.

Content is passed on as views of the blocks; only what is wanted as bytes is copied. A block is not used any more once
the next has been asked for. Used by tar_reader.py, plain_entries.py and ingest.py; one thread.
"""

from __future__ import annotations

from collections.abc import Iterator

from regfs.errors import BadLayer


class ByteFeed:
    """Takes bytes from *blocks* (none of which is empty) in order."""

    __slots__ = ("_blocks", "_passed", "at", "block")

    def __init__(self, blocks: Iterator[bytes | memoryview]) -> None:
        self._blocks = blocks
        self.block = memoryview(b"")
        self.at = 0
        self._passed = 0

    @property
    def offset(self) -> int:
        """How many bytes were taken so far."""
        return self._passed + self.at

    def take(self, size: int) -> bytes:
        """Return the next *size* bytes, which the caller has bounded. Raises BadLayer where the stream ends before."""
        at = self.at
        if at + size <= len(self.block):
            self.at = at + size
            return bytes(self.block[at : at + size])
        return b"".join(map(bytes, self.spans(size)))  # copied one by one: join() would take all views first

    def take_or_end(self, size: int) -> bytes:
        """Return the next *size* bytes, or fewer where the stream ends."""
        if self.at + size <= len(self.block):
            return self.take(size)
        parts = []
        while size and self._more():
            part = bytes(self.block[self.at : self.at + size])
            self.at += len(part)
            size -= len(part)
            parts.append(part)
        return b"".join(parts)

    def spans(self, size: int) -> Iterator[memoryview]:
        """Yield the next *size* bytes as views, each of which is valid until the next. Raises BadLayer."""
        while size:
            if not self._more():
                raise BadLayer(f"the archive ends in the middle of an entry, at byte {self.offset}")
            view = self.block[self.at : self.at + size]
            self.at += len(view)
            size -= len(view)
            yield view

    def skip(self, size: int) -> None:
        """Skip the next *size* bytes. Raises BadLayer where the stream ends before."""
        if self.at + size <= len(self.block):
            self.at += size
            return
        for _ in self.spans(size):
            pass

    def drain(self) -> None:
        """Take all that is left."""
        while self._more():
            self.at = len(self.block)

    def _more(self) -> bool:
        """Tell whether there is another byte, fetching the next block where this one is used up."""
        while self.at >= len(self.block):
            self._passed += len(self.block)
            self.at = 0
            self.block = memoryview(next(self._blocks, b""))
            if not self.block:
                return False
        return True
