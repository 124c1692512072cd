"""The tags of one repository and what each points to: when the registry is asked again, and the fallback if it fails.

    asked                             again after                    if the registry does not respond
    -------------------------------   ----------------------------   -------------------------------------------
    a tag (HEAD of its manifest)      the tag TTL; a refresh         what the tag pointed to last, for 10 s
    the list of tags (tags/list)      the tag TTL; a refresh         the last list, or the tags visited, for 10 s
    a tag or repository it lacks      10 s, or the tag TTL           the error
    a tag that a list names           not at all, while that holds

Answers are kept in memory (remembered.py) and on the disk (store/references/references.py), where other mounts and
later ones find them. An answer is in doubt when another contradicts it: a tag points to a manifest that the registry
lacks, or a list has a tag that the registry lacks. Then both are asked for again. Used by repository.py. Thread rule:
any thread; each question is one flight.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from regfs.errors import AccessDenied, BadContent, NotFound, RegistryTimeout, TooLarge, Unsupported
from regfs.images.answers.past_tags import PastTags
from regfs.images.answers.remembered import MISSING_TTL_S, STALE_TTL_S, UNREACHABLE, Answer, Refreshes, Remembered
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.model.names import RepositoryName, is_attachment_tag
from regfs.process.clocks import since_boot_s
from regfs.process.waiting.single_flight import Flights
from regfs.registry.client import RegistryClient
from regfs.store.references.references import References, TagRecord, left_s
from regfs.telemetry.stats import Stats

log = logging.getLogger(__name__)

_LISTS_KEPT = 1024
_COSIGN_SUFFIXES = (".sig", ".att", ".sbom")


class Resolved(NamedTuple):
    """What a tag points to: *digest*, and when this answer expires (seconds since the boot)."""

    digest: Digest
    media_type: str
    size: int
    expires_s: float

    @property
    def valid_s(self) -> float:
        """The seconds until the answer expires."""
        return max(0.0, self.expires_s - since_boot_s())


class _Listing(NamedTuple):
    """*members* are all tags, *names* those that are not about another manifest."""

    names: tuple[str, ...]
    members: frozenset[str]


class TagAnswers:
    """The answers in memory about the tags of all repositories of a mount. None is valid longer than *ttl_s* seconds.

    *note* is called with messages for users.
    """

    def __init__(self, refreshes: Refreshes, *, ttl_s: float, note: Callable[[str], None] = log.info) -> None:
        self.note = note
        self.refreshes = refreshes
        self.ttl_s = ttl_s
        self.resolved: Remembered[tuple[RepositoryName, str], TagRecord] = Remembered(refreshes, ttl_s=ttl_s)
        self.listed: Remembered[RepositoryName, _Listing] = Remembered(refreshes, ttl_s=ttl_s, most=_LISTS_KEPT)
        missing_s = min(MISSING_TTL_S, ttl_s)
        self.missing: Remembered[tuple[RepositoryName, str], str] = Remembered(refreshes, ttl_s=missing_s)
        self.missing_lists: Remembered[RepositoryName, str] = Remembered(refreshes, ttl_s=missing_s)
        self.lacking: Remembered[tuple[RepositoryName, Digest], bool] = Remembered(refreshes, ttl_s=MISSING_TTL_S)


class Tags:
    """The tags of the repository *name*. *answers* are shared by all repositories of the mount."""

    def __init__(
        self,
        name: RepositoryName,
        *,
        registry: RegistryClient,
        references: References,
        answers: TagAnswers,
        flights: Flights,
        stats: Stats,
    ) -> None:
        self._name = name
        self._registry = registry
        self._references = references
        self._answers = answers
        self._flights = flights
        self._stats = stats
        self.past = PastTags(name, references=references, note=answers.note)

    def names(self) -> tuple[str, ...]:
        """Return the tags, from one listing. Blocks on the network if the last listing is older than the TTL.

        Tags about another manifest (signatures, referrers) are left out. Raises NotFound, AccessDenied. If the registry
        cannot be reached, returns the last listing, or raises if there is none.
        """
        return self._listing().names

    def about(self, digest: Digest) -> tuple[str, ...]:
        """Return cosign's tags about the manifest *digest*: signatures, attestations, an SBOM.

        They are in the listing of tags; if the registry gives no listing, each is asked for. Blocks on the network, and
        raises as names() does, except NotFound.
        """
        wanted = [f"{digest.algorithm}-{digest.encoded}{suffix}" for suffix in _COSIGN_SUFFIXES]
        try:
            members = self._listing().members
        except (AccessDenied, BadContent, NotFound, TooLarge, Unsupported):
            return tuple(tag for tag in wanted if self._is_there(tag))
        return tuple(tag for tag in wanted if tag in members)

    def resolve(self, tag: str) -> Resolved:
        """Return what *tag* points to; ask the registry (HEAD) if the last answer is older than the TTL.

        Raises NotFound, AccessDenied. If the registry cannot be reached, returns the last answer, or raises if there is
        none.
        """
        return self._resolve(tag, may_be_missing=False)

    def valid_s(self, tag: str) -> float:
        """Return for how many seconds *tag* is known to exist: from a listing that has it, else the tag is resolved.

        Blocks on the network and raises as resolve() does.
        """
        listed = self._known_listing()
        if listed is not None and tag in listed.value.members:
            return listed.valid_s
        return self._resolve(tag, may_be_missing=True).valid_s

    def is_listed(self, tag: str) -> bool | None:
        """Tell whether the last listing has *tag*; None if no listing is valid. No network."""
        listed = self._known_listing()
        return None if listed is None else tag in listed.value.members

    def last_known(self, tag: str) -> TagRecord | None:
        """Return what *tag* pointed to when the registry was last asked, and when that was; no network."""
        return self._references.tag(self._name, tag)

    def pointing_to(self, digest: Digest) -> str | None:
        """Return a tag that pointed to *digest* when the registry was last asked; None if none did. No network."""
        return self._references.tag_pointing_to(self._name, digest, since=0.0)

    def created_ns(self, tag: str) -> int:
        """Return when the image that *tag* last pointed to was made, in nanoseconds since 1970; 0 if unknown.

        No network.
        """
        return self._references.tag_created(self._name, tag)

    def was_just_visited(self) -> bool:
        """Tell whether a tag was resolved here within the TTL, in this mount or another; no network."""
        return left_s(self._references.last_visit(self._name), self._answers.ttl_s) > 0

    @property
    def refreshes(self) -> int:
        """How many refreshes there were: for learn()."""
        return self._answers.refreshes.count

    def learn(self, names: Iterable[str], asked_at: int) -> None:
        """Store *names*, all tags, as the registry listed them. *asked_at* is `refreshes` from before the request."""
        self._learn(tuple(names), asked_at)

    def doubt(self, digest: Digest) -> None:
        """Let the tags be resolved again that pointed to *digest*, which the registry says it does not have."""
        self._answers.lacking.keep((self._name, digest), True)
        self._answers.resolved.drop_where(lambda key, record: key[0] == self._name and record.digest == digest)
        self._references.expire_tags(self._name, digest)

    # One tag.

    def _is_there(self, tag: str) -> bool:
        try:
            self.resolve(tag)
        except NotFound:
            return False
        return True

    def _resolve(self, tag: str, *, may_be_missing: bool) -> Resolved:
        """Return what *tag* points to. If it *may_be_missing* and was never seen or listed, it is asked for by GET."""
        known = self._answers.resolved.answer((self._name, tag))
        if known is not None:
            return _resolved(known)
        asked_at = self.refreshes
        record = self._references.tag(self._name, tag)
        valid_s = 0.0 if record is None else left_s(record.checked, self._answers.ttl_s)
        if record is not None and valid_s > 0:
            return self._keep(tag, record, for_s=valid_s, asked_at=asked_at)
        _raise_missing(self._answers.missing.get((self._name, tag)))
        may_be_missing = may_be_missing and record is None and not self._was_listed(tag)
        try:
            return self._flights.run(("tag", self._name, tag), lambda: self._fetch(tag, may_be_missing=may_be_missing))
        except RegistryTimeout as reason:  # the caller's deadline is over, but the request to the registry goes on
            return self._last_known(tag, reason)

    def _keep(self, tag: str, record: TagRecord, *, for_s: float | None = None, asked_at: int) -> Resolved:
        return _resolved(self._answers.resolved.keep((self._name, tag), record, for_s=for_s, asked_at=asked_at))

    def _fetch(self, tag: str, *, may_be_missing: bool) -> Resolved:
        """Ask the registry for *tag*; runs in a flight."""
        known = self._answers.resolved.answer((self._name, tag))
        if known is not None:  # a flight landed between the look at the answers and the start of this one
            return _resolved(known)
        asked_at, asked = self.refreshes, time.time()
        try:
            said = self._registry.manifests.resolve(self._name, tag, may_be_missing=may_be_missing)
            descriptor = self._confirmed(tag, said)
        except NotFound as missing:
            self.past.observe(tag, "", asked=asked)
            self._references.drop_tag(self._name, tag)
            self._answers.resolved.drop((self._name, tag))
            self._answers.missing.keep((self._name, tag), str(missing))
            self._doubt_listing(tag)
            raise
        except UNREACHABLE as reason:
            return self._last_known(tag, reason)
        record = TagRecord(descriptor.digest, descriptor.media_type, descriptor.size, time.time())
        self.past.observe(tag, str(record.digest), asked=asked)
        self._references.keep_tag(self._name, tag, record)
        if self.refreshes != asked_at:  # the request may have been made before the push that the refresh is for
            self._references.keep_tag(self._name, tag, record._replace(checked=0.0))
        return self._keep(tag, record, asked_at=asked_at)

    def _confirmed(self, tag: str, said: Descriptor) -> Descriptor:
        """Return *said*, or if the registry lacks that (its HEAD was wrong), what *tag* names by its bytes."""
        if (self._name, said.digest) not in self._answers.lacking:
            return said
        fetched = self._registry.manifests.fetch(self._name, tag)
        return Descriptor(fetched.content_type, fetched.digest, len(fetched.content))

    def _last_known(self, tag: str, reason: Exception) -> Resolved:
        record = self.last_known(tag)
        if record is None:
            raise reason
        log.info("%s:%s is shown as it was last known: %s", self._name, tag, reason)
        self._stats.count("registry.stale_answers")
        return self._keep(tag, record, for_s=STALE_TTL_S, asked_at=self.refreshes)

    # All tags.

    def _listing(self) -> _Listing:
        listed = self._known_listing()
        if listed is None:
            _raise_missing(self._answers.missing_lists.get(self._name))
            listed = self._flights.run(("tags", self._name), self._fetch_names)
        return listed.value

    def _known_listing(self) -> Answer[_Listing] | None:
        listed = self._answers.listed.answer(self._name)
        if listed is not None:
            return listed
        asked_at = self.refreshes
        record = self._references.listing(self._name.registry, self._name.path)
        valid_s = 0.0 if record is None else left_s(record.checked, self._answers.ttl_s)
        if record is None or valid_s <= 0:
            return None
        return self._keep_listing(record.names, for_s=valid_s, asked_at=asked_at)

    def _keep_listing(self, names: tuple[str, ...], *, for_s: float | None = None, asked_at: int) -> Answer[_Listing]:
        return self._answers.listed.keep(self._name, _listing_of(names), for_s=for_s, asked_at=asked_at)

    def _was_listed(self, tag: str) -> bool:
        listing = self._references.listing(self._name.registry, self._name.path)
        return listing is not None and tag in listing.names

    def _learn(self, names: tuple[str, ...], asked_at: int) -> Answer[_Listing]:
        self._references.keep_listing(self._name.registry, self._name.path, names)
        if self.refreshes != asked_at:  # the request may have been made before the push that the refresh is for
            self._references.expire_listing(self._name.registry, self._name.path)
        return self._keep_listing(names, asked_at=asked_at)

    def _fetch_names(self) -> Answer[_Listing]:
        """Ask the registry for the list of tags; runs in a flight."""
        asked_at = self.refreshes
        try:
            names = self._registry.listing.tags(self._name)
        except NotFound as missing:
            self._references.drop_listing(self._name.registry, self._name.path)
            self._answers.missing_lists.keep(self._name, str(missing))
            raise
        except UNREACHABLE as reason:
            return self._last_known_names(reason)
        return self._learn(tuple(names), asked_at)

    def _last_known_names(self, reason: Exception) -> Answer[_Listing]:
        listing = self._references.listing(self._name.registry, self._name.path)
        names = listing.names if listing else tuple(self._references.known_tags(self._name))
        if not names:
            raise reason
        log.info("%s: the last known tags are listed: %s", self._name, reason)
        self._stats.count("registry.stale_answers")
        return self._keep_listing(names, for_s=STALE_TTL_S, asked_at=self.refreshes)

    def _doubt_listing(self, tag: str) -> None:
        """Ask for the list again if it names *tag*, which the registry says it does not have."""
        listed = self._known_listing()
        if listed is not None and tag in listed.value.members:
            self._answers.listed.drop(self._name)
            self._references.expire_listing(self._name.registry, self._name.path)


def _listing_of(tags: tuple[str, ...]) -> _Listing:
    return _Listing(tuple(tag for tag in tags if not is_attachment_tag(tag)), frozenset(tags))


def _resolved(answer: Answer[TagRecord]) -> Resolved:
    record = answer.value
    return Resolved(record.digest, record.media_type, record.size, answer.expires_s)


def _raise_missing(reason: str | None) -> None:
    """Raise NotFound if the registry gave a *reason* some seconds ago."""
    if reason is not None:
        raise NotFound(reason)
