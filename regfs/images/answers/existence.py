"""Decides whether a repository or a namespace exists, for look-ups of names.

The specification has no request for that, and registries do not know namespaces. So regfs makes the cheapest request (a
page of tags/list), whose answer means different things at different registries:

    tags/list of PATH       in an existing repository        elsewhere, with a catalog     elsewhere, without one
    ---------------------   ------------------------------   ---------------------------   ------------------------
    200                     a repository                     a repository                  a repository
    "no such repository"    missing, unless the catalog      missing, unless the catalog   unsaid
                            has something below it           has something below it
    401, 403                as "no such repository":         unsaid                        unsaid
                            Hub and GHCR refuse what
                            they lack
    anything else           unsaid                           unsaid                        unsaid

"Unsaid" names open: look-ups below them find out more, and report failures. The first look-up of a missing name costs
these requests (further look-ups make none for 2 s, and none for the tag for 10 s):

    a repository                        1   tags/list
    a tag                               2   GET of the manifest; tags/list of the repository that may be nested in this
                                            one under that name: no question covers both
    a tag of NAMESPACE/NAME on the Hub  1   HEAD of the manifest, which is reliable there; nothing can be nested in it
    at a registry with a catalog       +1   the catalog, which alone knows namespaces. One page is for all names in a
                                            repository (10 s) or a namespace (2 s); in a repository, a whole catalog is
                                            used if it is not older than 10 s
                                       +1   one request an hour and registry, kept for all mounts: whether it is a
                                            pull-through cache. Only where the catalog has nothing outside a repository
                                       +1   one request a minute: whether the catalog has what was visited last
    where the catalog is refused       +1   one request a minute

The catalog does not replace tags/list, because it may lack existing repositories. A list of tags does not replace the
GET, because pull-through caches list only what they have. No request is made for

- what regfs has listed or visited within the tag TTL, so that `ls -l` of a listing costs no request an entry
- a namespace that something known is below: visited once, or in the catalog of any age

Per registry: docker-registry, zot and others with a catalog give an answer for every name. A pull-through cache has a
catalog of what it has cached; regfs recognises it by a repository of Docker Hub that it serves and does not list, and
then does not use the catalog. Nor is a catalog used that is empty (Quay's without a login) or lacks a visited
repository. Docker Hub has two levels and no catalog: `NAME` is library/NAME or a namespace, which cannot be asked for;
below a namespace the registry's "no" is final. GHCR and Harbor (for ordinary users) have no catalog: a namespace stays
unsaid, since a repository may be anywhere below it. A registry without any lists (pulls only) leaves all unsaid. Only
the registry's own "no", an error document with its code, makes a name missing.

Used by repositories.py and the tree. Thread rule: any thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum

from regfs.errors import (
    AccessDenied,
    BadContent,
    NotFound,
    Offline,
    RegfsError,
    RegistryTimeout,
    RepositoryUnknown,
    TooLarge,
    Unsupported,
)
from regfs.images.answers.catalog_below import SAYS_NOTHING, CatalogBelow
from regfs.images.answers.remembered import STALE_TTL_S, UNREACHABLE, Refreshes, Remembered
from regfs.images.answers.tags import Tags
from regfs.model.names import DOCKER_HUB, OFFICIAL, RepositoryName, repository_at
from regfs.process.waiting.deadline import Deadline, current, under
from regfs.process.waiting.single_flight import Flights
from regfs.registry.client import RegistryClient
from regfs.store.references.references import References, left_s

log = logging.getLogger(__name__)

# A missing name may be pushed at any time. A program that asks twice within this time is a script or a shell.
_MISSING_TTL_S = 2.0
# A registry that cannot answer is not asked again for this time. It is short, because a login ends a refusal.
_UNSAID_TTL_S = 10.0
_UNLISTED_TTL_S = 60.0
# How long a look-up waits for an answer before it continues without one.
_ANSWER_S = 5.0
_CATALOG_ANSWER_S = 2.0


class Said(Enum):
    """A registry's answer about one repository."""

    THERE = "there"
    MISSING = "missing"
    REFUSED = "refused"
    NOTHING = "nothing"


_TTL_S = {Said.MISSING: _MISSING_TTL_S, Said.REFUSED: _UNSAID_TTL_S, Said.NOTHING: _UNSAID_TTL_S}


class Verdict(Enum):
    """The result for the look-up of a name."""

    REPOSITORY = "repository"
    NAMESPACE = "namespace"
    MISSING = "missing"
    UNSAID = "unsaid"


class Existence:
    """Decides whether names exist, and remembers the answers for 2 s up to the tag TTL."""

    def __init__(
        self,
        registry: RegistryClient,
        references: References,
        tags_of: Callable[[RepositoryName], Tags],
        *,
        flights: Flights,
        refreshes: Refreshes,
        ttl_s: float,
    ) -> None:
        """*tags_of* returns the tags of a repository, which store the names that came with an answer."""
        self._registry = registry
        self._references = references
        self._tags_of = tags_of
        self._flights = flights
        self._ttl_s = ttl_s
        self._catalog = CatalogBelow(registry, references, refreshes=refreshes, ttl_s=ttl_s)
        self._said: Remembered[RepositoryName, Said] = Remembered(refreshes, ttl_s=ttl_s)
        # Whether the catalog had something below a path; paths in listings; names that lead to repositories.
        self._below: Remembered[tuple[str, str], bool] = Remembered(refreshes, ttl_s=ttl_s)
        self._shown: Remembered[tuple[str, str], bool] = Remembered(refreshes, ttl_s=ttl_s)
        self._namespaces: Remembered[RepositoryName, bool] = Remembered(refreshes, ttl_s=ttl_s)
        # Registries that: fail for now; answer again; answer, but not for lists; have no catalog.
        self._silent: Remembered[str, bool] = Remembered(refreshes, ttl_s=STALE_TTL_S)
        self._answered: Remembered[str, bool] = Remembered(refreshes, ttl_s=STALE_TTL_S)
        self._listless: Remembered[str, bool] = Remembered(refreshes, ttl_s=_UNLISTED_TTL_S)
        self._unlisted: Remembered[str, bool] = Remembered(refreshes, ttl_s=max(ttl_s, _UNLISTED_TTL_S))

    def of(self, registry: str, path: str, *, in_repository: bool) -> Verdict:
        """Return what *path* in *registry* is, by the table above. *in_repository*: its parent is a repository.

        Blocks on the network, for 10 s at most. Raises Offline if nothing is known and no request may be made.
        """
        if (registry, path) == (DOCKER_HUB, OFFICIAL) or self._leads_below(registry, path):
            return Verdict.NAMESPACE
        if registry == DOCKER_HUB and in_repository and path.count("/") > 1:
            return Verdict.MISSING  # its repositories have two components, so nothing is below a repository
        name = repository_at(registry, path)
        said = self.said(name)
        if said is Said.THERE:
            return Verdict.REPOSITORY
        # Of a deleted repository, the cache still serves the digests that were seen.
        if said is Said.NOTHING or self._references.has_manifests(name):
            return Verdict.UNSAID
        if registry == DOCKER_HUB:
            is_final = in_repository or (said is Said.MISSING and "/" in path)
            return Verdict.MISSING if is_final else Verdict.UNSAID
        if said is Said.REFUSED and not in_repository:
            return Verdict.UNSAID
        below = self._has_below(registry, path, in_repository=in_repository)
        if below:
            self._namespaces.keep(name, True)
            return Verdict.NAMESPACE
        return Verdict.MISSING if below is False or in_repository else Verdict.UNSAID

    def said(self, name: RepositoryName) -> Said:
        """Return the registry's answer about the repository *name*. Blocks on the network, for some seconds at most.

        Raises Offline if it is not known and no request may be made.
        """
        known = self._remembered(name)
        if known is not None:
            return known
        if self._is_shown(name):
            return Said.THERE
        try:
            with under(_at_most(_ANSWER_S)):
                return self._flights.run(("exists", name), lambda: self._ask(name))
        except Offline:
            if self._references.repositories.is_known(name.registry, name.path):
                return Said.THERE
            raise
        except RegistryTimeout:  # a late answer still counts; until then no other name waits for this registry
            self._failed(name.registry)
            return Said.NOTHING

    def is_no_repository(self, name: RepositoryName) -> bool:
        """Tell whether the registry said a moment ago that it has no repository *name*, so no tag is asked for.

        Docker Hub says it by a refusal, which is the same for tags/list and for manifests.
        """
        said = self._said.get(name)
        is_refused = name.registry == DOCKER_HUB and said is Said.REFUSED
        return is_refused or said is Said.MISSING or name in self._namespaces

    def has_no_list(self, name: RepositoryName) -> bool:
        """Tell whether tags/list of *name* was refused a moment ago, or *name* is a namespace."""
        return self._said.get(name) in (Said.REFUSED, Said.MISSING) or name in self._namespaces

    def answered(self, registry: str) -> None:
        """Note that *registry* has just answered, and so does not fail any more."""
        if self._silent.drop(registry):
            self._answered.keep(registry, True)

    def no_catalog(self, registry: str) -> None:
        """Do not ask for *registry*'s catalog for a while: it was refused, failed, or took too long for a look-up."""
        self._unlisted.keep(registry, True)

    def shown(self, registry: str, path: str, refusal: RegfsError | None) -> None:
        """Assume that the known repositories in *path* exist: a listing shows them now, and each is looked up next.

        *refusal* is the registry's answer for the tags of *path* itself, if it refused them.
        """
        self._shown.keep((registry, path), True)
        if isinstance(refusal, RepositoryUnknown):
            self._namespaces.keep(repository_at(registry, path), True)
        elif isinstance(refusal, AccessDenied):
            self._remember(repository_at(registry, path), Said.REFUSED)

    def _remembered(self, name: RepositoryName) -> Said | None:
        said = self._said.get(name)
        if said in (Said.THERE, Said.MISSING):
            return said
        return Said.NOTHING if name.registry in self._silent or name.registry in self._listless else said

    def _is_shown(self, name: RepositoryName) -> bool:
        """Tell whether a tag, a listing or the catalog said within the tag TTL that the repository is there."""
        is_listed = (name.registry, name.path.rpartition("/")[0]) in self._shown
        if is_listed and self._references.repositories.is_known(name.registry, name.path):
            return True
        if left_s(self._references.last_visit(name), self._ttl_s) > 0:
            return True
        known = self._references.repositories
        is_fresh = left_s(known.catalog_checked(name.registry), self._ttl_s) > 0
        if is_fresh and known.is_in_catalog(name.registry, name.path):
            return True
        listing = self._references.listing(name.registry, name.path)
        return listing is not None and left_s(listing.checked, self._ttl_s) > 0

    def _ask(self, name: RepositoryName) -> Said:
        """Ask the registry; runs in a flight."""
        known = self._remembered(name)  # another flight may have ended since the caller looked
        if known is not None:
            return known
        tags = self._tags_of(name)
        asked_at = tags.refreshes
        try:
            page = self._registry.listing.first_tags(name)
        except RepositoryUnknown:
            return self._remember(name, Said.MISSING)
        except AccessDenied:
            return self._remember(name, Said.REFUSED)
        except (NotFound, Unsupported, BadContent, TooLarge) as failure:
            log.info("whether %s exists is not known: %s", name, failure)
            return self._remember(name, Said.NOTHING)
        except Offline:
            raise
        except UNREACHABLE as failure:
            log.info("whether %s exists is not known: %s", name, failure)
            self._failed(name.registry)
            return Said.NOTHING
        if page.is_all:
            tags.learn(page.names, asked_at)
        return self._remember(name, Said.THERE)

    def _failed(self, registry: str) -> None:
        (self._listless if registry in self._answered else self._silent).keep(registry, True)

    def _remember(self, name: RepositoryName, said: Said) -> Said:
        return self._said.keep(name, said, for_s=_TTL_S.get(said)).value

    # What is below a path.

    def _leads_below(self, registry: str, path: str) -> bool:
        return bool(self._below.get((registry, path))) or self._references.repositories.has_known_below(registry, path)

    def _has_below(self, registry: str, path: str, *, in_repository: bool) -> bool | None:
        """Tell whether the catalog has repositories below *path*; None if the registry has no usable catalog."""
        key = registry, path, in_repository

        def ask() -> bool | None:
            return self._ask_below(registry, path, in_repository=in_repository)

        if self._below.get((registry, path)) is False:
            return False
        if registry in self._unlisted or registry in self._silent:
            return None
        try:
            with under(_at_most(_CATALOG_ANSWER_S)):
                return self._flights.run(("below", *key), ask)
        except RegistryTimeout:  # a slow catalog will be slow the next time
            self.no_catalog(registry)
            return None

    def _ask_below(self, registry: str, path: str, *, in_repository: bool) -> bool | None:
        """Ask the catalog; runs in a flight."""
        known = self._below.get((registry, path))
        if known is not None:
            return known
        try:
            has = self._catalog.has_in_repository if in_repository else self._catalog.has
            found = has(registry, path)
        except SAYS_NOTHING as failure:
            log.info("%s does not tell what is below %s: %s", registry, path, failure)
            self.no_catalog(registry)
            return None
        if found:
            self._below.keep((registry, path), True)
        elif not in_repository:  # there the catalog was not compared with existing repositories
            self._below.keep((registry, path), False, for_s=_MISSING_TTL_S)
        return found


def _at_most(seconds: float) -> Deadline:
    """Return the thread's deadline, or one of *seconds* if that is shorter."""
    deadline = current()
    if not deadline.may_wait or (deadline.end_s is not None and deadline.remaining_s(seconds) < seconds):
        return deadline
    return Deadline(seconds)
