"""Blobs of the cache: manifests, configs and whole layer blobs, as exact bytes under their digest.

    blobs/<algorithm>/<first two digits>/<encoded>

A file under that name has been verified: it is written beside its place, hashed, and renamed. Used by the images room.
Thread rule: any thread; two that write the same blob write the same bytes.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from regfs.errors import CacheFailure, DigestMismatch
from regfs.model.digest import Digest

log = logging.getLogger(__name__)


class BlobStore:
    """The blobs below *root*."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, digest: Digest) -> Path:
        """Return where the blob is kept, whether it is there or not."""
        return self._root / digest.algorithm / digest.encoded[:2] / digest.encoded

    def load(self, digest: Digest) -> bytes | None:
        """Return the bytes of a small blob (a manifest or config), or None where there are none that are right.

        Hashed again at each load: a document decides what everything below it means, and hashing it costs nothing.
        """
        try:
            content = self.path(digest).read_bytes()
        except OSError:
            return None
        if digest.matches(content):
            return content
        log.warning("the cached copy of %s is damaged and was dropped", digest)
        self.drop(digest)
        return None

    def keep(self, digest: Digest, content: bytes) -> None:
        """Keep *content*, which the caller has verified. A cache that cannot be written costs speed, no answer."""
        try:
            self.receive(digest, len(content), [content])
        except CacheFailure as failure:
            log.warning("%s", failure)

    def receive(self, digest: Digest, size: int, chunks: Iterable[bytes]) -> Path:
        """Write *chunks* to the blob's place and return it, once size and digest are found right.

        Blocks for as long as *chunks* does. Raises DigestMismatch (nothing is kept), CacheFailure, and what *chunks*
        raises.
        """
        path = self.path(digest)
        temporary = self._temporary(path)
        try:
            self._write(temporary, digest, size, chunks)
            os.replace(temporary.name, path)
        except OSError as error:
            raise CacheFailure(f"{path}: {error.strerror}; the blob is not kept") from error
        finally:
            temporary.close()
            Path(temporary.name).unlink(missing_ok=True)
        return path

    def drop(self, digest: Digest) -> None:
        """Forget the blob; who has it open goes on."""
        try:
            self.path(digest).unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be dropped: %s", digest, error)

    def _temporary(self, path: Path) -> tempfile._TemporaryFileWrapper[bytes]:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False)
        except OSError as error:
            raise CacheFailure(f"{path.parent}: {error.strerror}; the blob is not kept") from error

    @staticmethod
    def _write(
        temporary: tempfile._TemporaryFileWrapper[bytes], digest: Digest, size: int, chunks: Iterable[bytes]
    ) -> None:
        hasher = digest.hasher()
        received = 0
        for chunk in chunks:
            received += len(chunk)
            if received > size:
                break
            hasher.update(chunk)
            temporary.write(chunk)
        if received != size:
            raise DigestMismatch(f"{digest}: {received} bytes or more came instead of {size}")
        if hasher.hexdigest() != digest.encoded:
            raise DigestMismatch(
                f"{digest}: the bytes that came have the digest {digest.algorithm}:{hasher.hexdigest()}"
            )
        temporary.flush()
        os.fchmod(temporary.fileno(), 0o444)
        os.fsync(temporary.fileno())
