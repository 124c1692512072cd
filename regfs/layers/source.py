"""Where a lazy layer's bytes come from: any part of a blob, on demand.

A file, a blob in the cache, or ranges of a registry (images/). Used by formats/.
"""

from __future__ import annotations

from typing import Protocol


class ByteSource(Protocol):
    """The bytes of one blob, in any order. Any thread."""

    @property
    def size(self) -> int:
        """How many bytes the blob has, as its descriptor says."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly the *size* bytes at *offset*; the caller stays within the blob.

        They are not verified. May wait for the network, and raises RegfsErrors.
        """
