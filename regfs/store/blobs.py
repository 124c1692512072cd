"""Blobs of the cache: manifests, configs and whole layer blobs, as exact bytes under their digest.

    blobs/<algorithm>/<first two digits>/<encoded>

A file under that name has the right bytes: only verified documents and VerifiedChunks are written, under a temporary
name, and then renamed. Used by images/. Thread rule: any thread; two that write the same blob write the same bytes.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from regfs.errors import CacheFailure
from regfs.model.digest import Digest
from regfs.model.verification import VerifiedChunks
from regfs.process.waiting.deadline import current
from regfs.store.files.cached_files import file_chunks, hash_file, put, read_file, take_away
from regfs.store.files.failures import cache_failure
from regfs.store.locks.file_locks import new_locked_file, touch

log = logging.getLogger(__name__)

_WORTH_RESERVING = 1 << 20


class BlobStore:
    """The blobs below *root*. *reserve* and *reserve_document* of the budget make room or raise CacheFailure."""

    def __init__(
        self,
        root: Path,
        *,
        reserve: Callable[[int], None] = lambda _: None,
        reserve_document: Callable[[int], None] | None = None,
    ) -> None:
        self._root = root
        self._reserve = reserve
        self._reserve_document = reserve_document or reserve
        self._told = False

    def path(self, digest: Digest) -> Path:
        """Return the path of the blob, whether it exists or not."""
        return self._root / digest.algorithm / digest.encoded[:2] / digest.encoded

    def size(self, digest: Digest) -> int | None:
        """Return the size of the blob's file, None where there is none."""
        try:
            status = self.path(digest).stat()
        except OSError:
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def load(self, digest: Digest, *, at_most: int) -> bytes | None:
        """Return the bytes of a small blob (a manifest or config); None where it is missing, wrong or unreadable.

        None also for a blob of more than *at_most* bytes. It is hashed at each load: a document decides what everything
        below it means, and hashing it costs almost nothing.
        """
        size = self.size(digest)
        if size is None or size > at_most:
            return None
        try:
            content = read_file(self.path(digest))
        except OSError:
            return None
        if digest.matches(content):
            self.touch(digest)
            return content
        log.warning("the cached copy of %s is damaged and was dropped", digest)
        self.drop(digest)
        return None

    def is_right(self, digest: Digest) -> bool:
        """Tell whether the bytes of the blob's file have *digest*: a second for each gigabyte. Raises OSError."""
        return hash_file(self.path(digest), digest.hasher()) == digest.encoded

    def chunks(self, digest: Digest) -> Iterator[bytes]:
        """Yield the bytes of the blob's file. Raises OSError."""
        return file_chunks(self.path(digest))

    def keep(self, digest: Digest, content: bytes) -> None:
        """Keep *content*, which the caller has verified. Never fails: what cannot be written is only not kept."""
        try:
            self._put(digest, len(content), [content])
        except CacheFailure as failure:
            log.log(logging.DEBUG if self._told else logging.WARNING, "%s; it is served all the same", failure)
            self._told = True

    def touch(self, digest: Digest) -> None:
        """Note that the blob was used now, so that others are evicted first."""
        touch(self.path(digest))

    def receive(self, digest: Digest, size: int, chunks: VerifiedChunks) -> Path:
        """Write *chunks*, which are verified against *digest* and *size*, to the blob's place and return it.

        Blocks for as long as *chunks* does, and notes progress on the thread's deadline with each. Raises what *chunks*
        raises (nothing is kept then), and CacheFailure.
        """
        return self._put(digest, size, current().watch(iter(chunks)))

    def _put(self, digest: Digest, size: int, chunks: Iterable[bytes]) -> Path:
        path = self.path(digest)
        reserve = self._reserve if size >= _WORTH_RESERVING else self._reserve_document
        reserve(size)
        name, temporary = self._temporary(path)
        try:
            if size >= _WORTH_RESERVING:
                # A full disk is noticed before the first byte, and other writers see at once how much this will take.
                os.posix_fallocate(temporary.fileno(), 0, size)
            _write(temporary, chunks)
            put(name, path)
        except OSError as error:
            raise cache_failure(path, error) from error
        finally:
            with suppress(OSError):  # a full disk again, for what it did not take before
                temporary.close()
            Path(name).unlink(missing_ok=True)
        return path

    def drop(self, digest: Digest) -> None:
        """Remove the blob. Readers that have it open are not disturbed."""
        try:
            take_away(self.path(digest))
        except OSError as error:
            log.warning("%s cannot be dropped: %s", digest, error)

    def _temporary(self, path: Path) -> tuple[str, BinaryIO]:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fd, name = new_locked_file(path.parent, ".new-")
        except OSError as error:
            raise cache_failure(path.parent, error) from error
        return name, open(fd, "wb")


def _write(temporary: BinaryIO, chunks: Iterable[bytes]) -> None:
    for chunk in chunks:
        temporary.write(chunk)
    temporary.flush()
    os.fchmod(temporary.fileno(), 0o444)
    os.fsync(temporary.fileno())
