"""Checks bytes against their digest and size while they pass.

All code that stores bytes under a digest takes VerifiedChunks, so mypy rejects unchecked bytes. The last chunk of wrong
bytes is never yielded, so a caller that is interrupted or dies has either the right bytes or too few. The chunks of a
big blob are hashed in a second thread during the transfer; the last chunk is yielded after all are hashed. Used by
registry/, store/blobs.py and images/. Thread rule: an object belongs to one thread.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import closing

from regfs.errors import DigestMismatch
from regfs.model.digest import Digest
from regfs.model.hash_thread import HashThread

_BIG = 4 << 20


class VerifiedChunks:
    """The chunks of one blob; iterating raises DigestMismatch instead of yielding the last chunk of wrong bytes.

    Made by verified(), and by Blobs.stream (registry/), whose generator uses a Verification itself. Can be iterated
    once.
    """

    def __init__(self, chunks: Generator[bytes, None, None]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Generator[bytes, None, None]:
        return self._chunks

    def close(self) -> None:
        """End the transfer; what is left of the blob is not read."""
        self._chunks.close()


class Verification:
    """Checks the chunks of one blob; *what* names it in messages. Must be closed."""

    def __init__(self, digest: Digest, size: int, *, what: str = "") -> None:
        """Raises Unsupported where Python cannot verify the digest's algorithm."""
        self._digest = digest
        self._size = size
        self._what = what or str(digest)
        hasher = digest.hasher()
        self._thread = HashThread(hasher) if size >= _BIG else None
        self._hasher = self._thread or hasher
        self._received = 0

    def close(self) -> None:
        """End the hashing thread, if there is one. Does not wait."""
        if self._thread is not None:
            self._thread.close()

    def wrong_after(self, chunk: bytes) -> DigestMismatch | None:
        """Check *chunk* before it is passed on; return the error, None if there is none."""
        self._received += len(chunk)
        if self._received > self._size:
            return DigestMismatch(f"{self._what}: {self._received} bytes or more came instead of {self._size}")
        self._hasher.update(chunk)
        return self._wrong_digest() if self._received == self._size else None

    def wrong_at_end(self) -> DigestMismatch | None:
        """Check the whole blob after its last chunk; return the error, None if there is none."""
        if self._received < self._size:
            return DigestMismatch(f"{self._what}: {self._received} bytes came instead of {self._size}")
        return self._wrong_digest()

    def _wrong_digest(self) -> DigestMismatch | None:
        found = self._hasher.hexdigest()
        if found == self._digest.encoded:
            return None
        return DigestMismatch(f"{self._what}: the bytes that came have the digest {self._digest.algorithm}:{found}")


def verified(chunks: Iterable[bytes], digest: Digest, size: int, *, what: str = "") -> VerifiedChunks:
    """Yield *chunks*. If their size or digest is wrong, raise DigestMismatch instead of yielding the last one."""
    return VerifiedChunks(_checked(chunks, Verification(digest, size, what=what)))


def _checked(chunks: Iterable[bytes], verification: Verification) -> Generator[bytes, None, None]:
    with closing(verification):
        for chunk in chunks:
            if (wrong := verification.wrong_after(chunk)) is not None:
                raise wrong
            yield chunk
        if (wrong := verification.wrong_at_end()) is not None:
            raise wrong
