"""`…/referrers/`: what refers to an image: signatures, attestations, SBOMs and other artifacts.

    library/debian/12/referrers/
    ├── by-type/application_vnd.in-toto+json/sha256:…/     each manifest, a directory like the image's
    ├── signatures/    1.json 1.raw 1.info
    ├── attestations/  provenance-1.json provenance-1.raw provenance-1.info
    └── sbom/          spdx-1.json spdx-1.raw spdx-1.info

`.json` is what was signed (of an SBOM in a statement, the predicate alone), `.raw` the exact bytes of the blob, `.info`
has who signed what and when, as the blob claims, and whether that was verified. An SBOM that is a blob of its own is
shown as that blob. Listing reads manifests and no blob; decoded files have the size 0, as those in /proc do. What is
below by-type/ has no referrers/: what refers to it is listed here too. Used by image.py. Any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from regfs.images.image import Image
from regfs.images.pinned_images import PinnedImage
from regfs.images.referring.contents import decoded_bytes, info_text
from regfs.images.referring.gathered import Document, Referrer, manifest_of
from regfs.model.attestations.kinds import PLACES, harmless, plain_suffix
from regfs.tree.blobs import BlobFile
from regfs.tree.node import DIRECTORY_MODE, FILE_MODE, Node
from regfs.tree.views.computed import ComputedFile
from regfs.tree.views.directory import Entry, ViewDirectory

_VALID_S = 10.0

MakeDirectory = Callable[[str, PinnedImage], Node]


class _Place(NamedTuple):
    """The image, the index through which it was found, and the function that makes the directory of a manifest."""

    pinned: PinnedImage
    within: PinnedImage | None
    make_directory: MakeDirectory

    @property
    def images(self) -> tuple[Image, Image | None]:
        return self.pinned.image, None if self.within is None else self.within.image

    def referrers(self) -> tuple[Referrer, ...]:
        return self.pinned.images.referring.of(*self.images).referrers

    def documents(self) -> tuple[Document, ...]:
        return self.pinned.images.referring.documents(*self.images)

    def info(self, document: Document) -> str:
        subjects = self.pinned.images.referring.of(*self.images).subjects
        return info_text(self.pinned.repository, document, subjects, self.pinned.images.judge)

    def created_ns(self) -> int:
        return self.pinned.created_ns


def referrers_directory(
    key: str, pinned: PinnedImage, within: PinnedImage | None, make_directory: MakeDirectory
) -> ViewDirectory:
    """Return the directory of what refers to the image *pinned*. Its listings and look-ups block on the network.

    *within* is the index through which the image was found, else None. *make_directory* makes the directory of a
    manifest, given its key.
    """
    place = _Place(pinned, within, make_directory)
    top = {"by-type": _directory(place, partial(_types, place))}
    top |= {name: _directory(place, partial(_documents, place, name)) for name in PLACES}
    return ViewDirectory(key, pinned, lambda: top)


def _directory(place: _Place, entries: Callable[[], Mapping[str, Entry]]) -> Entry:
    return Entry(DIRECTORY_MODE, lambda key: ViewDirectory(key, place.pinned, entries, _VALID_S))


def _types(place: _Place) -> dict[str, Entry]:
    names = sorted({harmless(each.kind) for each in place.referrers()})
    return {name: _directory(place, partial(_manifests, place, name)) for name in names}


def _manifests(place: _Place, name: str) -> dict[str, Entry]:
    return {
        str(each.digest): Entry(DIRECTORY_MODE, partial(_manifest, place, each))
        for each in place.referrers()
        if harmless(each.kind) == name
    }


def _manifest(place: _Place, referrer: Referrer, key: str) -> Node:
    repository = place.pinned.repository
    manifest_of(repository, referrer)  # raises if it does not refer to what it was listed for
    return place.make_directory(key, place.pinned.images.pinned(repository, referrer.digest, is_vouched_for=True))


def _documents(place: _Place, name: str) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for document in place.documents():
        if document.place == name:
            entries |= _files(place, document)
    return entries


def _files(place: _Place, document: Document) -> dict[str, Entry]:
    name, layer, repository = document.name, document.finding.layer, place.pinned.repository
    identity = f"{document.referrer.digest} {layer.digest}"

    def blob(key: str) -> Node:
        return BlobFile(key, repository, layer, place.pinned)

    def computed(make: Callable[[], str | bytes]) -> Entry:
        return Entry(FILE_MODE, lambda key: ComputedFile(key, make, place.created_ns), identity)

    info = {f"{name}.info": computed(lambda: place.info(document))}
    if document.finding.is_plain:
        return {f"{name}{plain_suffix(layer.media_type)}": Entry(FILE_MODE, blob, identity)} | info
    return {
        f"{name}.json": computed(lambda: decoded_bytes(repository, document)),
        f"{name}.raw": Entry(FILE_MODE, blob, identity),
    } | info
