"""The blobs of one repository: layers and configs, from the cache if it has them, else from the registry.

Every byte is verified (model/verification.py) before it is returned or kept. Used by repository.py and
layer_ingests.py. Thread rule: any thread; each blob is fetched by one flight.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from regfs.errors import BadContent, DigestMismatch, NotFound, TooLarge, Unsupported
from regfs.model.manifest import Descriptor
from regfs.model.media_types import may_be_elsewhere
from regfs.model.names import RepositoryName
from regfs.model.verification import verified
from regfs.process.waiting.single_flight import Flights
from regfs.registry.client import RegistryClient
from regfs.store.blobs import BlobStore

log = logging.getLogger(__name__)

T = TypeVar("T")


def twice_if_wrong(fetch: Callable[[], T]) -> T:
    """Return what *fetch* returns; call it once more if it raises DigestMismatch.

    A proxy or a mirror may have corrupted the bytes; the client does not ask that mirror again.
    """
    try:
        return fetch()
    except DigestMismatch as mismatch:
        log.warning("%s; fetched once more", mismatch)
        return fetch()


class Blobs:
    """The blobs of the repository *name*; *store* keeps them for all repositories."""

    def __init__(self, name: RepositoryName, *, registry: RegistryClient, store: BlobStore, flights: Flights) -> None:
        self._name = name
        self._registry = registry
        self._store = store
        self._flights = flights

    def small(self, descriptor: Descriptor, *, at_most: int) -> bytes:
        """Return all bytes of a small blob (a config), verified, from the store or the registry.

        Blocks on the network. Raises TooLarge above *at_most* bytes, NotFound, DigestMismatch, and the errors of the
        network.
        """
        if descriptor.content is not None:
            return descriptor.content
        if descriptor.size > at_most:
            raise TooLarge(f"{self._name}@{descriptor.digest} has {descriptor.size} bytes; at most {at_most} are read")
        content = self._store.load(descriptor.digest, at_most=at_most)
        if content is None:
            key = ("small", self._name, descriptor.digest, descriptor.size)
            return self._flights.run(key, lambda: twice_if_wrong(lambda: self._receive_small(descriptor)))
        if len(content) != descriptor.size:
            raise DigestMismatch(f"{descriptor.digest} has {len(content)} bytes, its descriptor says {descriptor.size}")
        return content

    def file(self, descriptor: Descriptor) -> Path:
        """Return the path of a file with the verified blob; fetch the whole blob if the store lacks it.

        Blocks on the network. Raises BadContent or Unsupported if the registry lacks it, DigestMismatch, CacheFailure,
        and the errors of the network.
        """
        if self._store.size(descriptor.digest) == descriptor.size:
            self._store.touch(descriptor.digest)
            return self._store.path(descriptor.digest)
        key = ("blob", self._name, descriptor.digest, descriptor.size)
        return self._flights.run(key, lambda: twice_if_wrong(lambda: self._receive(descriptor)), streams=True)

    def chunks(self, descriptor: Descriptor) -> Iterator[bytes]:
        """Yield the blob's raw bytes as they arrive, verified; from the store if it has them.

        Blocks on the network. Raises DigestMismatch before the last chunk of wrong bytes, BadContent or Unsupported if
        the registry lacks the blob, and the errors of the network.
        """
        digest = descriptor.digest
        if self._store.size(digest) == descriptor.size:
            try:
                if self._store.is_right(digest):
                    return iter(verified(self._store.chunks(digest), digest, descriptor.size))
            except OSError as error:  # evicted meanwhile, or an I/O error: no proof of wrong bytes
                log.warning("the cached copy of %s cannot be read (%s); it is fetched", digest, error.strerror)
            else:
                log.warning("the cached copy of %s is damaged and was dropped", digest)
                self._store.drop(digest)
        return self._fetched_chunks(descriptor)

    def part(self, descriptor: Descriptor, start: int, stop: int) -> bytes:
        """Return the bytes `[start, stop)` of a blob, from the store if it has them; the caller verifies them.

        Blocks on the network. Raises RangesRefused if the registry serves whole blobs only, BadContent or Unsupported
        if it lacks the blob, and the errors of the network.
        """
        if self._store.size(descriptor.digest) == descriptor.size:
            with suppress(OSError), self._store.path(descriptor.digest).open("rb") as file:
                file.seek(start)
                return file.read(stop - start)
        try:
            return self._registry.blobs.range(self._name, descriptor, start, stop, parts_only=True)
        except NotFound as missing:
            raise _lacking(descriptor, missing) from missing

    def _receive_small(self, descriptor: Descriptor) -> bytes:
        content = b"".join(self._fetched_chunks(descriptor))
        self._store.keep(descriptor.digest, content)
        return content

    def _receive(self, descriptor: Descriptor) -> Path:
        chunks = self._registry.blobs.stream(self._name, descriptor)
        try:
            return self._store.receive(descriptor.digest, descriptor.size, chunks)
        except NotFound as missing:
            raise _lacking(descriptor, missing) from missing

    def _fetched_chunks(self, descriptor: Descriptor) -> Generator[bytes, None, None]:
        try:
            yield from self._registry.blobs.stream(self._name, descriptor)
        except NotFound as missing:
            raise _lacking(descriptor, missing) from missing


def _lacking(descriptor: Descriptor, missing: NotFound) -> BadContent | Unsupported:
    """Return the error for a *missing* blob: not NotFound, because the name that was looked up exists."""
    if may_be_elsewhere(descriptor.media_type):
        return Unsupported(
            f"layers of type {descriptor.media_type!r} may be kept outside of registries, and this one is: {missing}; "
            "regfs asks no address that a manifest names. A push with the option allow-nondistributable-artifacts of "
            "dockerd puts them into the registry"
        )
    return BadContent(f"the registry lacks what a manifest of it names: {missing}")
