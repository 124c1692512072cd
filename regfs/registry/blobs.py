"""Blobs: whole and verified, resumed where a transfer breaks off, or one range of them.

A mirror that helped to serve wrong bytes is not asked for that blob again for some minutes. Used by images. Sources:
distribution-spec, "Pulling blobs"; stargz-snapshotter, resolver.go (signed URLs).

Thread rule: shared by all threads; an iterator belongs to one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from typing import NamedTuple

from cachetools import TTLCache

from regfs.errors import (
    DigestMismatch,
    ProtocolViolation,
    RangesRefused,
    RegistryTimeout,
    RegistryUnavailable,
)
from regfs.model.digest import Digest
from regfs.model.manifest import EMPTY, Descriptor
from regfs.model.names import RepositoryName
from regfs.model.verification import Verification, VerifiedChunks, verified
from regfs.process.waiting import deadline
from regfs.registry.endpoint_calls import MIRROR_FAILURES, Call, EndpointCalls, crossed_origin, expected, verdict
from regfs.registry.hosts.endpoints import Endpoint
from regfs.registry.http.content_encoding import identity_body
from regfs.registry.http.messages import Answer
from regfs.registry.http.ranges import WrongBody, body_range, is_encoded, range_header
from regfs.registry.http.retry_policy import RetryPolicy
from regfs.registry.http.sockets import Slow
from regfs.registry.http.transfer_failures import TransferFailures
from regfs.registry.parallel import BlobSource, ParallelTransfers
from regfs.telemetry.stats import Stats

log = logging.getLogger(__name__)

# How a storage refuses a URL whose signature is too old: S3 403 and 400 (ExpiredToken), R2 400, others 401, 404, 410.
_SIGNED_URL_REFUSED = frozenset({400, 401, 403, 404, 410})
_LOCATION_KEPT_S = 60.0
_DISTRUST_S = 600.0
# A server that answers every range with less would else be asked a million times.
_LEAST_PART = 16 << 10


_LocationKey = tuple[str, RepositoryName, Digest]


class _Wanted(NamedTuple):
    """One blob in one repository, and its name for messages. A part of it is a long transfer where *bulk*."""

    repository: RepositoryName
    descriptor: Descriptor
    parts_only: bool = False
    bulk: bool = False

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

    def __init__(self, calls: EndpointCalls, stats: Stats, *, retry: RetryPolicy, transfers: ParallelTransfers) -> None:
        self._calls = calls
        self._stats = stats
        self._retry = retry
        self._transfers = transfers
        self._lock = threading.Lock()
        # Where a redirect led: a lazily read layer is hundreds of ranges, and one redirect serves them all.
        self._locations: TTLCache[_LocationKey, str] = TTLCache(1024, _LOCATION_KEPT_S)
        self._distrusted: TTLCache[tuple[str, Digest], bool] = TTLCache(4096, _DISTRUST_S)

    def stream(self, repository: RepositoryName, descriptor: Descriptor) -> VerifiedChunks:
        """Return the chunks of the blob, exactly `descriptor.size` bytes with the right digest.

        A transfer that breaks off is resumed; a big blob may come over several connections (parallel.py). Nothing is
        asked before the first chunk is. Iterating raises what RegistryClient says; DigestMismatch comes before the last
        chunk. Unsupported: a digest that cannot be verified.
        """
        return VerifiedChunks(self._stream(_Wanted(repository, descriptor)))

    def range(
        self, repository: RepositoryName, descriptor: Descriptor, start: int, stop: int, *, parts_only: bool = False
    ) -> bytes:
        """Return exactly the bytes `[start, stop)` of a blob. Not verified: the caller has a digest of this range.

        Where a server gives whole blobs only, all is received that comes before *stop*; with *parts_only*
        RangesRefused is raised instead.
        Raises what RegistryClient says.
        """
        if not 0 <= start <= stop <= descriptor.size:
            raise ValueError(f"{descriptor.digest}: no range [{start}, {stop}) in {descriptor.size} bytes")
        known = b"" if start == stop else _known(descriptor)
        if known is not None:
            return known[start:stop] if known else b""
        wanted = _Wanted(repository, descriptor, parts_only)

        def read(endpoint: Endpoint) -> bytes:
            with closing(self._resumed(endpoint, wanted, start, stop)) as chunks:
                return b"".join(deadline.current().watch(chunks))  # slow bytes are progress, too

        return self._calls.first_of(repository.registry, "pull", read)

    def _stream(self, wanted: _Wanted) -> Generator[bytes, None, None]:
        known = _known(wanted.descriptor)
        if known is not None:
            yield from verified(filter(None, [known]), wanted.digest, wanted.size, what=wanted.what)
            return
        with closing(Verification(wanted.digest, wanted.size, what=wanted.what)) as verification:
            yield from self._checked(wanted, verification)

    def _checked(self, wanted: _Wanted, verification: Verification) -> Generator[bytes, None, None]:
        wrong: DigestMismatch | None = None
        mirrors: list[Endpoint] = []
        failures: list[str] = []
        offset = 0
        endpoints = self._endpoints(wanted)
        for number, endpoint in enumerate(endpoints, 1):
            if not endpoint.upstream:
                mirrors.append(endpoint)
            try:
                with closing(self._transfers.read(self._source(endpoint, wanted), offset)) as chunks:
                    for chunk in chunks:
                        offset += len(chunk)
                        if (wrong := verification.wrong_after(chunk)) is not None:
                            break
                        yield chunk
                break
            except MIRROR_FAILURES as error:
                if number == len(endpoints):
                    if (final := verdict(error, endpoint, failures)) is error:
                        raise
                    raise final from error
                log.info("mirror %s: %s", endpoint.host, error)
                failures.append(f"mirror {endpoint.host}: {error}")
        wrong = wrong or verification.wrong_at_end()
        if wrong is not None:
            for endpoint in endpoints[:number]:
                self._transfers.distrust(endpoint.base, wrong)
            raise self._distrust(mirrors, wanted) if mirrors else wrong

    def _source(self, endpoint: Endpoint, wanted: _Wanted) -> BlobSource:
        piece = wanted._replace(parts_only=True, bulk=True)
        return BlobSource(
            endpoint.base,
            wanted.what,
            wanted.size,
            whole=lambda start: self._resumed(endpoint, wanted, start, wanted.size),
            piece=lambda start, stop: self._resumed(endpoint, piece, start, stop),
        )

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
        """Yield the bytes `[start, stop)` from one endpoint; where a transfer breaks off, ask for the rest.

        A server may answer with less than was asked for (RFC 9110, 15.3.7): the rest is asked for at once.
        """
        retry = self._retry if endpoint.upstream else self._retry.beside_others()
        offset, failures = start, TransferFailures(retry)
        while offset < stop:
            is_answered = False
            try:
                with self._answer(endpoint, wanted, offset, stop) as answer:
                    is_answered, began = True, offset
                    body = body_range(answer, start=offset, stop=stop, size=wanted.size, what=wanted.what)
                    with closing(_part(answer, wanted, body, offset, stop)) as chunks:
                        for chunk in chunks:
                            offset += len(chunk)
                            yield chunk
                is_all = answer.status == 206 and offset == body[1] and offset - began >= _LEAST_PART
                if offset < stop and not is_all:
                    raise RegistryUnavailable(f"{wanted.what}: the transfer ended after {offset} of {stop} bytes")
            except (RegistryUnavailable, RegistryTimeout, WrongBody) as error:
                # The transport's errors name the host alone; a reader of this one needs the blob.
                named = error if wanted.what in str(error) else type(error)(f"{wanted.what}: {error}")
                if offset == start and (not is_answered or isinstance(error, Slow)):
                    raise named from error.__cause__  # nothing broke off: every attempt that makes sense was made
                try:
                    wait_s = failures.wait_s(named, offset)
                except WrongBody as wrong:
                    if wanted.parts_only:  # a server that cannot count gives no parts, and may give the whole
                        raise RangesRefused(str(wrong)) from wrong
                    raise
                self._stats.count("registry.retries")
                log.info("%s; going on at byte %d in %.1f s", named, offset, wait_s)
                deadline.current().sleep(wait_s)

    def _answer(self, endpoint: Endpoint, wanted: _Wanted, start: int, stop: int) -> Answer:
        """Return the answer, 200 or 206, to a request for `[start, stop)`.

        The storage that the registry redirected to a moment ago is asked first. Its URL is signed for a limited time;
        the registry may also have kept one for too long. So a refusal by the storage is followed by a fresh redirect.
        """
        key = (endpoint.base, wanted.repository, wanted.digest)
        with self._lock:
            location = self._locations.get(key)
        call = _call(wanted, start, stop)
        redirects = 0
        while True:
            if location is not None:
                answer, is_elsewhere = self._calls.elsewhere(location, call), True
            else:
                answer, redirects = self._calls.send(endpoint, call), redirects + 1
                is_elsewhere = crossed_origin(answer, self._calls.base(endpoint))
            if wanted.parts_only and call.headers and _gives_no_parts(answer, is_elsewhere=is_elsewhere):
                answer.close()
                raise RangesRefused(
                    f"{wanted.what}: {answer.request.origin} gives whole blobs only: it answers {answer.status} to a"
                    " request for a part"
                )
            if answer.status == 416 and call.headers:
                # The range lies inside the blob, so the server is wrong; it may still send the whole blob.
                answer.discard()
                call, redirects = _call(wanted, 0, wanted.size), 0
            elif is_elsewhere and answer.status in _SIGNED_URL_REFUSED and redirects < 2:
                answer.discard()
                location = self._location_after(key, location)
            else:
                break
        if is_elsewhere and answer.status in _SIGNED_URL_REFUSED:
            answer.close()
            raise ProtocolViolation(
                f"{wanted.what}: the storage {answer.request.origin} that {endpoint.host} redirects to "
                f"answers {answer.status}"
            )
        if is_elsewhere and answer.status in (200, 206):
            with self._lock:
                self._locations[key] = answer.url
        return expected(answer, 200, 206, what=wanted.what)

    def _location_after(self, key: _LocationKey, refused: str | None) -> str | None:
        """Return where another thread was redirected since *refused* was kept; None: ask the registry."""
        with self._lock:
            known = self._locations.get(key)
            if known == refused:
                self._locations.pop(key, None)
            return None if known == refused else known


def _gives_no_parts(answer: Answer, *, is_elsewhere: bool) -> bool:
    """Tell whether *answer*, to a request for a part of a blob, says that there are no parts to be had.

    Some say so by 400 or 501; a storage's 400 may be about the signature of its URL. A part may also come under 200,
    with the header that a 206 has.
    """
    if answer.status == 200:
        return not answer.headers.all("Content-Range")
    return answer.status in (416, 501) or (answer.status == 400 and not is_elsewhere)


def _known(descriptor: Descriptor) -> bytes | None:
    """Return the bytes that need no request: embedded ones, the empty JSON object, nothing."""
    if descriptor.content is not None:
        return descriptor.content
    if descriptor.digest == EMPTY.digest and descriptor.size == EMPTY.size:
        return b"{}"
    return b"" if descriptor.size == 0 else None


def _call(wanted: _Wanted, start: int, stop: int) -> Call:
    call = Call.pull(wanted.repository, f"blobs/{wanted.digest}", what=wanted.what)
    if start == 0 and stop == wanted.size:
        return replace(call, bulk=True)
    return replace(call, bulk=wanted.bulk, headers={"Range": range_header(start, stop)})


def _part(
    answer: Answer, wanted: _Wanted, body: tuple[int, int], start: int, stop: int
) -> Generator[bytes, None, None]:
    """Yield the bytes from *start* on, *stop* at most, that *answer* has, whose body is the part *body* of the blob.

    What its body has after *stop* is read only as far as it came with the last chunk.
    """
    first, last = body
    chunks = answer.chunks()
    if answer.status == 200 and is_encoded(answer):
        chunks = identity_body(answer, wanted.descriptor, what=wanted.what)
    position = first
    for chunk in chunks:
        here, position = position, position + len(chunk)
        if position > last:
            raise DigestMismatch(f"{wanted.what}: the body goes on after the {last - first} bytes that it should have")
        if here < stop and position > start:
            yield chunk[max(start - here, 0) : stop - here]
        if position > stop:
            return
