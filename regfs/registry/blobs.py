"""Blobs: whole, resumed where a transfer breaks off, or one range of them.

Used by client.py. What comes from a mirror is hashed here, so that one that serves wrong bytes is not asked for that
blob again; the caller verifies every blob in any case. Sources: distribution-spec, "Pulling blobs"; containers/image,
body_reader.go (when a resumed transfer has made progress); stargz-snapshotter, resolver.go (signed URLs).
Thread rule: shared by all threads; an iterator belongs to one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from typing import NamedTuple

from cachetools import TTLCache

from regfs.errors import DigestMismatch, ProtocolViolation, RegfsError, RegistryTimeout, RegistryUnavailable
from regfs.model.digest import Digest
from regfs.model.manifest import EMPTY, Descriptor
from regfs.model.names import RepositoryName
from regfs.registry.calls import MIRROR_FAILURES, Call, Calls, expected, is_foreign, verdict
from regfs.registry.hosts.endpoints import Endpoint
from regfs.registry.http.encoded import identity_body
from regfs.registry.http.message import Answer
from regfs.registry.http.ranges import WrongBody, body_range, is_encoded, range_header
from regfs.registry.http.retry import RetryPolicy
from regfs.registry.http.sockets import Slow
from regfs.telemetry.stats import Stats
from regfs.waiting import deadline

log = logging.getLogger(__name__)

# How a storage refuses a URL whose signature is too old: S3 403 and 400 (ExpiredToken), R2 400, others 401, 404, 410.
_SIGNED_URL_REFUSED = frozenset({400, 401, 403, 404, 410})
_LOCATION_KEPT_S = 60.0
_DISTRUST_S = 600.0
_PROGRESS_BYTES = 1024 * 1024
_PROGRESS_S = 60.0


class _Wanted(NamedTuple):
    """One blob in one repository, and its name for messages."""

    repository: RepositoryName
    descriptor: Descriptor

    @property
    def digest(self) -> Digest:
        return self.descriptor.digest

    @property
    def size(self) -> int:
        return self.descriptor.size

    @property
    def what(self) -> str:
        return f"{self.repository}@{self.digest}"


class Blobs:
    """Fetches blobs."""

    def __init__(self, calls: Calls, stats: Stats, *, retry: RetryPolicy) -> None:
        self._calls = calls
        self._stats = stats
        self._retry = retry
        self._lock = threading.Lock()
        # Where a redirect led: a lazily read layer is hundreds of ranges, and one redirect serves them all.
        self._locations: TTLCache[tuple[str, RepositoryName, Digest], str] = TTLCache(1024, _LOCATION_KEPT_S)
        self._distrusted: TTLCache[tuple[str, Digest], bool] = TTLCache(4096, _DISTRUST_S)

    def stream(self, repository: RepositoryName, descriptor: Descriptor) -> Iterator[bytes]:
        """Give exactly the blob's bytes in order, or raise. See RegistryClient.blob."""
        known = _known(descriptor)
        if known is not None:
            yield from filter(None, [known])
            return
        wanted = _Wanted(repository, descriptor)
        hasher = descriptor.digest.hasher()
        mirrors: list[Endpoint] = []
        failures: list[str] = []
        offset = 0
        endpoints = self._endpoints(wanted)
        for number, endpoint in enumerate(endpoints, 1):
            if not endpoint.upstream:
                mirrors.append(endpoint)
            try:
                with closing(self._resumed(endpoint, wanted, offset, descriptor.size)) as chunks:
                    for chunk in chunks:
                        offset += len(chunk)
                        if mirrors:
                            hasher.update(chunk)
                        yield chunk
                break
            except MIRROR_FAILURES as error:
                if number == len(endpoints):
                    if (final := verdict(error, endpoint, failures)) is error:
                        raise
                    raise final from error
                log.info("mirror %s: %s", endpoint.host, error)
                failures.append(f"mirror {endpoint.host}: {error}")
        if mirrors and hasher.hexdigest() != descriptor.digest.encoded:
            raise self._distrust(mirrors, wanted)

    def range(self, repository: RepositoryName, descriptor: Descriptor, *, start: int, stop: int) -> bytes:
        """Return the bytes `[start, stop)` of the blob. See RegistryClient.blob_range."""
        if not 0 <= start <= stop <= descriptor.size:
            raise ValueError(f"{descriptor.digest}: no range [{start}, {stop}) in {descriptor.size} bytes")
        if start == stop:
            return b""
        known = _known(descriptor)
        if known is not None:
            return known[start:stop]
        wanted = _Wanted(repository, descriptor)

        def read(endpoint: Endpoint) -> bytes:
            with closing(self._resumed(endpoint, wanted, start, stop)) as chunks:
                return b"".join(chunks)

        return self._calls.first_of(repository.registry, "pull", read)

    def _endpoints(self, wanted: _Wanted) -> list[Endpoint]:
        """Return where to ask: a mirror that had wrong bytes for this blob is left out, if there is another."""
        endpoints = self._calls.endpoints(wanted.repository.registry, "pull")
        with self._lock:
            trusted = [one for one in endpoints if one.upstream or (one.base, wanted.digest) not in self._distrusted]
        return trusted or endpoints

    def _distrust(self, mirrors: list[Endpoint], wanted: _Wanted) -> DigestMismatch:
        with self._lock:
            self._distrusted.update({(mirror.base, wanted.digest): True for mirror in mirrors})
        hosts = ", ".join(mirror.host for mirror in mirrors)
        return DigestMismatch(
            f"{wanted.what}: wrong bytes with the help of {hosts}, not asked for it again for a while"
        )

    def _resumed(self, endpoint: Endpoint, wanted: _Wanted, start: int, stop: int) -> Generator[bytes, None, None]:
        """Give the bytes `[start, stop)` from one endpoint, going on where a transfer broke off."""
        retry = self._retry if endpoint.upstream else self._retry.beside_others()
        offset, failures = start, _Failures(retry)
        while offset < stop:
            is_answered = False
            try:
                with self._open(endpoint, wanted, offset, stop) as answer:
                    is_answered = True
                    with closing(self._part(answer, wanted, offset, stop)) as chunks:
                        for chunk in chunks:
                            offset += len(chunk)
                            yield chunk
                if offset < stop:
                    raise RegistryUnavailable(f"{wanted.what}: the transfer ended after {offset} of {stop} bytes")
            except (RegistryUnavailable, RegistryTimeout, WrongBody) as error:
                # What broke off in the transport names its host alone; who reads the error wants to know the blob.
                named = error if wanted.what in str(error) else type(error)(f"{wanted.what}: {error}")
                if offset == start and (not is_answered or isinstance(error, Slow)):
                    raise named from error.__cause__  # nothing broke off: it was asked for as long as makes sense
                wait_s = failures.wait_s(named, offset)
                self._stats.count("registry.retries")
                log.info("%s; going on at byte %d in %.1f s", named, offset, wait_s)
                deadline.current().sleep(wait_s)

    def _part(self, answer: Answer, wanted: _Wanted, start: int, stop: int) -> Generator[bytes, None, None]:
        """Give the bytes from *start* on, *stop* at most, that *answer* has."""
        first, last = body_range(answer, start=start, stop=stop, size=wanted.size, what=wanted.what)
        if answer.status == 200 and is_encoded(answer):
            chunks = identity_body(answer, wanted.descriptor, what=wanted.what)
        else:
            chunks = _exactly(answer.chunks(), last - first, what=wanted.what)
        yield from _window(chunks, start - first, stop - first)

    def _open(self, endpoint: Endpoint, wanted: _Wanted, start: int, stop: int) -> Answer:
        """Return the answer, 200 or 206, to a request for `[start, stop)`."""
        if start == 0 and stop == wanted.size:
            return expected(self._located(endpoint, wanted, {}), 200, 206, what=wanted.what)
        ranged = {"Range": range_header(start, stop)}
        answer = expected(self._located(endpoint, wanted, ranged), 200, 206, 416, what=wanted.what)
        if answer.status != 416:
            return answer
        # The range lies inside the blob, so the server is wrong; the whole blob may still be had.
        answer.discard()
        return expected(self._located(endpoint, wanted, {}), 200, what=wanted.what)

    def _located(self, endpoint: Endpoint, wanted: _Wanted, headers: dict[str, str]) -> Answer:
        """Return the answer of the registry, or of the storage that it redirected to a moment ago."""
        key = (endpoint.base, wanted.repository, wanted.digest)
        with self._lock:
            location = self._locations.get(key)
        bulk = "Range" not in headers
        if location is not None:
            answer = self._calls.elsewhere(location, headers=headers, bulk=bulk, what=wanted.what)
            if answer.status not in _SIGNED_URL_REFUSED:
                return answer
            answer.discard()
            with self._lock:
                self._locations.pop(key, None)
        answer, is_elsewhere = self._ask(endpoint, wanted, headers, bulk=bulk)
        if is_elsewhere and answer.status in _SIGNED_URL_REFUSED:
            # A signature that was too old when it came out of the registry's cache; a fresh one may do, once.
            answer.discard()
            answer, is_elsewhere = self._ask(endpoint, wanted, headers, bulk=bulk)
            if is_elsewhere and answer.status in _SIGNED_URL_REFUSED:
                answer.close()
                raise ProtocolViolation(
                    f"{wanted.what}: the storage {answer.request.origin} that {endpoint.host} redirects to "
                    f"answers {answer.status}"
                )
        if is_elsewhere and answer.status in (200, 206):
            with self._lock:
                self._locations[key] = answer.url
        return answer

    def _ask(self, endpoint: Endpoint, wanted: _Wanted, headers: dict[str, str], *, bulk: bool) -> tuple[Answer, bool]:
        """Return the answer to a request to the registry, and whether it came from somewhere else."""
        call = Call.pull(wanted.repository, f"blobs/{wanted.digest}", what=wanted.what)
        answer = self._calls.send(endpoint, replace(call, headers=headers, bulk=bulk))
        return answer, is_foreign(answer, self._calls.base(endpoint))


class _Failures:
    """Counts the failures of one transfer; progress makes up for them."""

    def __init__(self, retry: RetryPolicy) -> None:
        self._retry = retry
        self._count = 0
        self._wrong_bodies = 0
        self._offset = 0
        self._last = time.monotonic()

    def wait_s(self, error: RegfsError, offset: int) -> float:
        """Return how long to wait before going on at *offset*; raises *error* where that is pointless."""
        now = time.monotonic()
        received = offset - self._offset
        if received >= _PROGRESS_BYTES or (self._count and received and now - self._last >= _PROGRESS_S):
            self._count = 0
        self._offset, self._last = offset, now
        self._count += 1
        self._wrong_bodies += isinstance(error, WrongBody)
        deadline.current().remaining_s(0.0)
        if self._count >= self._retry.attempts or self._wrong_bodies > 1:
            raise error
        return self._retry.wait_s(self._count)


def _known(descriptor: Descriptor) -> bytes | None:
    """Return the bytes that need no request: embedded ones, the empty JSON object, nothing."""
    if descriptor.content is not None:
        return descriptor.content
    if descriptor.digest == EMPTY.digest and descriptor.size == EMPTY.size:
        return b"{}"
    return b"" if descriptor.size == 0 else None


def _exactly(chunks: Iterator[bytes], size: int, *, what: str) -> Iterator[bytes]:
    """Give *chunks*, raising DigestMismatch once they have more than *size* bytes."""
    left = size
    for chunk in chunks:
        if len(chunk) > left:
            raise DigestMismatch(f"{what}: the body goes on after the {size} bytes that it should have")
        left -= len(chunk)
        yield chunk


def _window(chunks: Iterator[bytes], start: int, stop: int) -> Generator[bytes, None, None]:
    """Give the bytes `[start, stop)` of what *chunks* make up; what follows is read only if it is nearly nothing."""
    position = 0
    for chunk in chunks:
        first, last = max(start - position, 0), min(stop - position, len(chunk))
        position += len(chunk)
        if first < last:
            yield chunk[first:last]
        if position > stop:
            return
