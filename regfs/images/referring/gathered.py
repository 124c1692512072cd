"""Finds all manifests that refer to an image, in the places where tools put them.

    referrers API, or its fallback tag    manifests whose subject is the index, or the manifest for the platform
    cosign's tags                         sha256-<hex>.sig .att .sbom
    BuildKit's entries of the index       attestations of that manifest
    the same for those in turn            BuildKit's attestations are signed apart from the image, and so are SBOMs

A list costs one request an hour; cosign's tags are in the list of tags. A list is a claim of the registry: a manifest
with another subject than it was listed for is left out and noted. Used by tree/views/referrers.py, the library and
`regfs inspect`. Thread rule: any thread; blocks on the network.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from cachetools import TTLCache

from regfs.errors import BadContent, ManifestMissing, NotFound, ProtocolViolation, TooLarge, Unsupported
from regfs.images.image import Image
from regfs.images.repository import Repository
from regfs.model.attestations.kinds import SIGNATURES, Finding, attested_by, findings, is_signed, type_of
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor, Index, Manifest, parse_manifest

MOST_SHOWN = 1000
"""How many referrers of one image are shown. If there are more, `.regfs/errors` says so."""
_MOST_READ = 200
_MOST_ASKED = 16
_MOST_TOLD = 3
_KEPT = 32
KEPT_S = 10.0
"""How many seconds a list of referrers is used again. The registry's answers are kept for longer."""
_UNREADABLE = (BadContent, NotFound, TooLarge, Unsupported)
_UNKNOWN = "unknown"
_CREATED = "org.opencontainers.image.created"
BY_LIST, BY_INDEX = "the registry's list of referrers", "the image's index"
TAGGED = "the tag "
"""The prefix of `found_by` for a referrer that was found by a tag of cosign; the tag follows."""


class Referrer(NamedTuple):
    """A manifest of the type *kind* that refers to the manifest *subject*; *found_by* says where. Not verified."""

    digest: Digest
    kind: str
    size: int
    subject: Digest
    found_by: str
    created: str = ""


class Document(NamedTuple):
    """A signature, an attestation or an SBOM, in the directory *place* under *name*."""

    place: str
    name: str
    referrer: Referrer
    finding: Finding


class Gathered(NamedTuple):
    """What refers to one image. *subjects* are the digests of the image."""

    subjects: frozenset[Digest]
    referrers: tuple[Referrer, ...]


class Referring:
    """Finds what refers to images. One for each mount."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gathered: TTLCache[object, Gathered] = TTLCache(_KEPT, KEPT_S)
        self._documents: TTLCache[object, tuple[Document, ...]] = TTLCache(_KEPT, KEPT_S)

    def of(self, image: Image, within: Image | None = None) -> Gathered:
        """Return what refers to *image*, the oldest first; *within* is the index through which it was found, if any.

        Blocks on the network. If the registry does not answer, raises instead of returning an empty list: AccessDenied,
        BadContent, TooLarge, and the errors of the network.
        """
        key = key_of(image, within)
        with self._lock:
            known = self._gathered.get(key)
        if known is None:
            known = _gather(image, within)
            with self._lock:
                self._gathered[key] = known
        return known

    def documents(self, image: Image, within: Image | None = None) -> tuple[Document, ...]:
        """Return the signatures, attestations and SBOMs among these. Reads their manifests, and no blob.

        Blocks and raises as of() does. A manifest that cannot be fetched or parsed is left out and noted.
        """
        key = key_of(image, within)
        with self._lock:
            known = self._documents.get(key)
        if known is None:
            known = tuple(_documents(image, self.of(image, within).referrers))
            with self._lock:
                self._documents[key] = known
        return known


def manifest_of(repository: Repository, referrer: Referrer) -> Manifest | Index:
    """Return the manifest of *referrer*. Raises ProtocolViolation if it has another subject than it was listed for.

    Blocks on the network; raises ManifestMissing, BadContent, TooLarge, Unsupported and the errors of the network.
    """
    try:
        parsed = _parsed(repository, referrer.digest)
    except NotFound as missing:
        raise ManifestMissing(
            f"{repository.name}@{referrer.digest}: it refers to {referrer.subject}, says {referrer.found_by}, and the "
            f"registry does not have it: {missing}"
        ) from missing
    if referrer.found_by == BY_LIST and (parsed.subject is None or parsed.subject.digest != referrer.subject):
        raise ProtocolViolation(
            f"{repository.name}@{referrer.digest}: the registry lists it for {referrer.subject}, which it does not name"
        )
    return parsed


def key_of(image: Image, within: Image | None) -> object:
    """Return a key for *image*, as it was found in *within*. It changes at each refresh."""
    others = None if within is None else within.digest
    return image.repository.name, image.digest, image.wanted, others, image.repository.tags.refreshes


def _gather(image: Image, within: Image | None) -> Gathered:
    subjects, kinds = _subjects(image), _Kinds(image)
    found: dict[Digest, Referrer] = {}
    for each in _attestations(image, within, subjects, kinds):
        found.setdefault(each.digest, each)
    for subject in subjects:
        for each in _referring_to(image, subject, kinds):
            found.setdefault(each.digest, each)
    unsigned = [each for each in found.values() if not is_signed(each.kind)]
    for referrer in unsigned[:_MOST_ASKED]:
        for each in _referring_to(image, referrer.digest, kinds):
            found.setdefault(each.digest, each)
    kinds.tell()
    shown = sorted(found.values(), key=lambda each: (each.created, each.digest))
    if len(shown) > MOST_SHOWN or len(unsigned) > _MOST_ASKED:
        count = f"more than {MOST_SHOWN}" if len(shown) > MOST_SHOWN else len(shown)
        image.contents.note(
            f"{image}: {count} manifests refer to it: too many to show all, or to look for what refers to each"
        )
    return Gathered(frozenset(subjects), tuple(shown[:MOST_SHOWN]))


def _subjects(image: Image) -> tuple[Digest, ...]:
    """Return the digests of the image: those of the index and of the manifest for the platform."""
    subjects = {image.digest: None}
    if image.is_readable and image.index is not None:
        with suppress(*_UNREADABLE):  # the index has none for this platform
            subjects[image.manifest_descriptor.digest] = None
    return tuple(subjects)


def _attestations(
    image: Image, within: Image | None, subjects: tuple[Digest, ...], kinds: _Kinds
) -> Iterator[Referrer]:
    """Yield the entries of BuildKit's that the index has for the manifests *subjects*."""
    named = {str(subject): subject for subject in subjects}
    for holder in (image, within):
        index = holder.index if holder is not None and holder.is_readable else None
        for entry in () if index is None else index.manifests:
            subject = named.get(attested_by(entry))
            if subject is not None:
                yield _referrer(kinds, entry, subject, BY_INDEX)


def _referring_to(image: Image, subject: Digest, kinds: _Kinds) -> Iterator[Referrer]:
    """Yield what the registry lists for *subject*, and cosign's tags."""
    repository = image.repository
    for descriptor in repository.referrers.listed(subject)[: MOST_SHOWN + 1]:
        yield _referrer(kinds, descriptor, subject, BY_LIST)
    for tag in repository.tags.about(subject):
        with suppress(NotFound):  # the tag was listed, but is gone
            found = repository.tags.resolve(tag)
            descriptor = Descriptor(found.media_type, found.digest, found.size)
            yield _referrer(kinds, descriptor, subject, f"{TAGGED}{tag}")


def _referrer(kinds: _Kinds, descriptor: Descriptor, subject: Digest, found_by: str) -> Referrer:
    created = descriptor.annotations.get(_CREATED, "")
    return Referrer(descriptor.digest, kinds.of(descriptor), descriptor.size, subject, found_by, created)


class _Kinds:
    """Finds the artifact types of what refers to *image*.

    Cosign's tags and old indexes do not have them. Then manifests are read, at most _MOST_READ: one request for each.
    """

    def __init__(self, image: Image) -> None:
        self._image = image
        self._read: dict[Digest, str] = {}
        self._unread: set[Digest] = set()
        self._failed: list[tuple[Digest, Exception]] = []

    def of(self, descriptor: Descriptor) -> str:
        """Return the artifact type of *descriptor*, "unknown" if it cannot be found. May block on the network."""
        if descriptor.artifact_type:
            return descriptor.artifact_type
        digest = descriptor.digest
        if digest not in self._read:
            if len(self._read) == _MOST_READ:
                self._unread.add(digest)
                return _UNKNOWN
            self._read[digest] = self._kind(digest)
        return self._read[digest]

    def tell(self) -> None:
        """Note the manifests whose type is unknown."""
        tell_some(self._image, "refers to it, and cannot be read", self._failed)
        if self._unread:
            self._image.contents.note(
                f"{self._image}: {len(self._unread)} manifests that refer to it are in by-type/{_UNKNOWN}: too many "
                f"are listed without a type to read each"
            )

    def _kind(self, digest: Digest) -> str:
        try:
            return type_of(_parsed(self._image.repository, digest))
        except _UNREADABLE as error:
            self._failed.append((digest, error))
            return _UNKNOWN


def _parsed(repository: Repository, digest: Digest) -> Manifest | Index:
    document = repository.manifests.document(digest)
    return parse_manifest(document.content, content_type=document.media_type)


def _documents(image: Image, referrers: tuple[Referrer, ...]) -> Iterator[Document]:
    numbers: dict[tuple[str, str], int] = {}
    left_out: list[tuple[Digest, Exception]] = []
    if len(referrers) > _MOST_READ:
        image.contents.note(f"{image}: of {len(referrers)} referrers the first {_MOST_READ} are decoded in referrers/")
    for referrer in referrers[:_MOST_READ]:
        try:
            manifest = manifest_of(image.repository, referrer)
        except _UNREADABLE as error:
            left_out.append((referrer.digest, error))
            continue
        for finding in findings(manifest)[:MOST_SHOWN] if isinstance(manifest, Manifest) else ():
            number = numbers[finding.place, finding.stem] = numbers.get((finding.place, finding.stem), 0) + 1
            name = str(number) if finding.place == SIGNATURES else f"{finding.stem}-{number}"
            yield Document(finding.place, name, referrer, finding)
    tell_some(image, "is left out of referrers/", left_out)


def tell_some(image: Image, what: str, found: Sequence[tuple[Digest, Exception]]) -> None:
    """Note *what* is wrong with the first few manifests *found*, and why. More would fill `.regfs/errors`."""
    for digest, reason in found[:_MOST_TOLD]:
        image.contents.note(f"{image}: {digest} {what}: {reason}")
    if len(found) > _MOST_TOLD:
        image.contents.note(f"{image}: of {len(found) - _MOST_TOLD} more manifests each {what}")
