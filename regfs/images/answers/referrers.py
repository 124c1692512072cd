"""Lists what refers to the manifests of one repository: signatures, SOCI indexes, records of starts.

A list is fetched once an hour, and stored on the disk, also if it is empty. It is not trusted: what it names is fetched
by digest, and must name the manifest as its subject. Used by repository.py. Thread rule: any thread; each
list is fetched by one flight.
"""

from __future__ import annotations

import logging
import threading
from functools import partial

from cachetools import TTLCache

from regfs.errors import AccessDenied, BadContent, NotFound, Offline, ProtocolViolation, TooLarge, Unsupported
from regfs.images.answers.remembered import UNREACHABLE
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.model.names import RepositoryName
from regfs.process.waiting.deadline import Deadline, under
from regfs.process.waiting.single_flight import Flights
from regfs.registry.client import RegistryClient
from regfs.store.references.references import References, left_s

log = logging.getLogger(__name__)

HOLDS_S = 3600.0
# Such a list is optional: it is not worth a long wait, nor a second request to a registry that fails.
_ANSWERS_WITHIN_S = 10.0
_FAILED_S = 60.0
_MOST_FAILED = 256
_FAILURES = (*UNREACHABLE, AccessDenied, BadContent, NotFound, TooLarge, Unsupported)


class Referrers:
    """The referrers of the repository *name*."""

    def __init__(
        self, name: RepositoryName, *, registry: RegistryClient, references: References, flights: Flights
    ) -> None:
        self._name = name
        self._registry = registry
        self._references = references
        self._flights = flights
        self._lock = threading.Lock()
        self._failed: TTLCache[Digest, bool] = TTLCache(_MOST_FAILED, _FAILED_S)

    def of(self, digest: Digest, artifact_type: str) -> tuple[Descriptor, ...]:
        """Return the manifests of *artifact_type* that refer to the manifest *digest*, as the registry lists them.

        If the registry does not answer within seconds, returns the last list, or nothing. Blocks on the network as the
        thread's deadline allows (WouldBlock, Interrupted, RegistryTimeout).
        """
        return tuple(each for each in self._all(digest) if each.artifact_type == artifact_type)

    def listed(self, digest: Digest) -> tuple[Descriptor, ...]:
        """Return all manifests that refer to the manifest *digest*, as the registry lists them.

        If the registry cannot be reached, returns the last list; without one it raises, since an empty list would mean
        that there is no signature. Blocks on the network. Raises AccessDenied, BadContent, TooLarge and the errors of
        the network.
        """
        known = self._references.referrers(self._name, digest)
        if known is not None and left_s(known.checked, HOLDS_S) > 0:
            return known.manifests
        try:
            return self._flights.run(("all referrers", self._name, digest), partial(self._ask, digest))
        except NotFound as missing:  # not a NotFound: the manifest exists
            raise ProtocolViolation(f"{self._name}@{digest}: its referrers cannot be listed: {missing}") from missing
        except UNREACHABLE:
            if known is None:
                raise
            return known.manifests

    def forget(self, digest: Digest) -> None:
        """Let the list be fetched again, because something was pushed."""
        self._references.expire_referrers(self._name, digest)

    def _all(self, digest: Digest) -> tuple[Descriptor, ...]:
        known = self._references.referrers(self._name, digest)
        with self._lock:
            has_failed = digest in self._failed
        if known is not None and (has_failed or left_s(known.checked, HOLDS_S) > 0):
            return known.manifests
        if has_failed:
            return ()
        found = self._flights.run(("referrers", self._name, digest), partial(self._fetch, digest))
        if found is None:
            return () if known is None else known.manifests
        return found

    def _fetch(self, digest: Digest) -> tuple[Descriptor, ...] | None:
        """Ask the registry; return None if it does not answer. Runs in a flight."""
        try:
            with under(Deadline(_ANSWERS_WITHIN_S)):
                return self._ask(digest)
        except _FAILURES as failure:
            if not isinstance(failure, Offline):
                log.info("%s@%s: its referrers are not known: %s", self._name, digest, failure)
                with self._lock:
                    self._failed[digest] = True
            return None

    def _ask(self, digest: Digest) -> tuple[Descriptor, ...]:
        """Ask the registry, and store its answer. Runs in a flight."""
        found = tuple(self._registry.referrers.of(self._name, digest))
        self._references.keep_referrers(self._name, digest, found)
        return found
