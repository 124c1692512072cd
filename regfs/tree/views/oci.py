"""`…/oci/`: an OCI image layout of the image and of what refers to it, for tools that read layouts.

    library/debian/12/oci/
    ├── oci-layout  index.json
    └── blobs/sha256/…            manifest, config and layers; those of the manifests that refer to the image

`skopeo copy oci:DIR:latest`, `umoci --image DIR:latest` and `podman pull oci:DIR:latest` read it as it is, and ORAS
finds signatures and SBOMs in it. Listing it fetches no layer. model/oci_layout.py makes the contents. Used by image.py.
Any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from regfs.images.image import Image
from regfs.images.pinned_images import PinnedImage
from regfs.images.referring.attached import Attached
from regfs.images.referring.gathered import TAGGED
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor, Manifest
from regfs.model.oci_layout import VERSION, OciLayout, Referring, oci_layout
from regfs.tree.blobs import BlobFile
from regfs.tree.node import DIRECTORY_MODE, FILE_MODE, FOREVER, BytesFile, FetchedFile, Node
from regfs.tree.views.directory import Entry, ViewDirectory

_VALID_S = 10.0


class _Place(NamedTuple):
    """The image, and the index through which it was found. *with_referrers*: the layout has what refers to it."""

    pinned: PinnedImage
    within: PinnedImage | None
    with_referrers: bool

    def layout(self) -> tuple[OciLayout, frozenset[Digest]]:
        """Return the layout, and which of its blobs are manifests or indexes. Blocks on the network for these."""
        image = self.pinned.image
        within = None if self.within is None else self.within.image
        found = self.pinned.images.attachments.of(image, within) if self.with_referrers else []
        subjects = list(_documents(image, within))
        layout = oci_layout(
            image.manifest, image.manifest_document.content, image.manifest_descriptor,
            referring=map(_referring, found), subjects=subjects,
        )  # fmt: skip
        return layout, frozenset((*(each.document.digest for each in found), *(each.digest for each in subjects)))


def oci_directory(key: str, pinned: PinnedImage, within: PinnedImage | None, *, with_referrers: bool) -> ViewDirectory:
    """Return the directory of the layout. Its look-ups and listing block on the network for manifests.

    *within* is the index through which the image was found, else None.
    """
    place = _Place(pinned, within, with_referrers)
    return ViewDirectory(key, pinned, partial(_top, place), _VALID_S if with_referrers else FOREVER)


def _documents(image: Image, within: Image | None) -> list[Descriptor]:
    """Return descriptors of the documents that may be referred to: the manifest, and the index that names it."""
    documents = [image.document, image.manifest_document, *([] if within is None else [within.document])]
    return [Descriptor(each.media_type, each.digest, len(each.content)) for each in documents]


def _referring(found: Attached) -> Referring:
    document, manifest, referrer = found.document, found.manifest, found.referrer
    descriptor = Descriptor(document.media_type, document.digest, len(document.content))
    tag = referrer.found_by.removeprefix(TAGGED) if referrer.found_by.startswith(TAGGED) else ""
    if not isinstance(manifest, Manifest):
        return Referring(descriptor, (), tag)
    descriptor = replace(descriptor, artifact_type=referrer.kind, annotations=manifest.annotations)
    return Referring(descriptor, (manifest.config, *manifest.layers), tag)


def _top(place: _Place) -> Mapping[str, Entry]:
    content = place.layout()[0].index_json
    return {
        "oci-layout": Entry(FILE_MODE, lambda key: _bytes(place, key, VERSION)),
        "index.json": Entry(FILE_MODE, lambda key: _bytes(place, key, content), str(Digest.of(content))),
        "blobs": _directory(place, lambda: _algorithms(place)),
    }


def _algorithms(place: _Place) -> Mapping[str, Entry]:
    return {name: _directory(place, partial(_blobs, place, name)) for name in place.layout()[0].blobs}


def _blobs(place: _Place, algorithm: str) -> Mapping[str, Entry]:
    layout, documents = place.layout()
    entries = {
        encoded: _document(place, blob) if blob.digest in documents else _blob(place, blob)
        for encoded, blob in layout.blobs[algorithm].items()
    }
    if layout.manifest.algorithm == algorithm:
        entries[layout.manifest.encoded] = Entry(FILE_MODE, lambda key: _bytes(place, key, layout.content))
    return entries


def _document(place: _Place, blob: Descriptor) -> Entry:
    manifests = place.pinned.repository.manifests

    def read() -> bytes:
        return manifests.document(blob.digest, blob.media_type).content

    return Entry(FILE_MODE, lambda key: FetchedFile(key, blob.size, read, lambda: place.pinned.created_ns))


def _blob(place: _Place, blob: Descriptor) -> Entry:
    if blob.content is not None:  # a config that the manifest embeds need not be in the registry
        content = blob.content
        return Entry(FILE_MODE, lambda key: _bytes(place, key, content))
    return Entry(FILE_MODE, lambda key: BlobFile(key, place.pinned.repository, blob, place.pinned))


def _directory(place: _Place, entries: Callable[[], Mapping[str, Entry]]) -> Entry:
    valid_s = _VALID_S if place.with_referrers else FOREVER
    return Entry(DIRECTORY_MODE, lambda key: ViewDirectory(key, place.pinned, entries, valid_s))


def _bytes(place: _Place, key: str, content: bytes) -> Node:
    return BytesFile(key, content, lambda: place.pinned.created_ns)
