"""`…/12/` and `…/sha256:…/`: the directory of an image, or of an index, shown as its image for the wanted platform.

    library/debian/12/
    ├── digest           what the tag points to
    ├── manifest-digest  the digest of manifest.json: that of the chosen manifest, where the tag points to an index
    ├── index.json       the index, if it is one
    ├── manifest.json    the manifest for the platform, and its config
    ├── config.json
    ├── manifests/       linux-amd64/ linux-arm64-v8/ … each a directory like this one
    ├── history          each step of the build, its layer, sizes and command
    ├── wasted           bytes of lower layers that upper ones hide or delete, with the paths
    ├── packages         what dpkg or apk has installed
    ├── blobs/  layers/
    ├── files/           an artifact's files under their own names (views/files.py)
    ├── oci/             an OCI image layout of it and its referrers (views/oci.py)
    ├── referrers/       what refers to it: signatures, attestations, SBOMs (views/referrers.py)
    └── rootfs/          all layers merged

Parts that an image does not have are not listed. An index without the wanted platform has `digest`, `index.json`,
`manifests/`, and a note that says so (platform_notes.py). An artifact has `files/`, but neither `layers/` nor
`rootfs/`; the same holds for a manifest with an image's config and no layer of files (a cosign signature). A document
that regfs cannot read (schema 1, a broken one) has `digest` and its exact bytes; a look-up of another part fails and
says why. _PARTS at the end of this file has one row for each part. Used by tag.py. Any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from regfs.errors import BadContent, BadManifest, NotFound, RegfsError, TooLarge, Unsupported
from regfs.images.image import Image
from regfs.images.pinned_images import PinnedImage
from regfs.images.reports.history import history_text
from regfs.images.reports.packages import packages_text
from regfs.images.reports.wasted import wasted_text
from regfs.model.manifest import Index, Manifest
from regfs.model.media_types import INDEX_TYPES
from regfs.tree.blobs import BlobsDirectory
from regfs.tree.directory_parts import DirectoryOfImage, Part, listed
from regfs.tree.layers import LayersDirectory
from regfs.tree.node import (
    DIRECTORY_MODE,
    FILE_MODE,
    FOREVER,
    TABLE_MODE,
    Child,
    FetchedFile,
    Found,
    Node,
    TableDirectory,
    children_of,
    text_file,
)
from regfs.tree.platform_notes import DIFFERS, MISSING, listed_note, text_of
from regfs.tree.unlisted_xattrs import origin_of
from regfs.tree.views.computed import ComputedFile
from regfs.tree.views.files import FilesDirectory
from regfs.tree.views.oci import oci_directory
from regfs.tree.views.referrers import referrers_directory


class Has(NamedTuple):
    """The facts, read from an image's documents, that decide which parts a listing shows."""

    raw: str = ""
    """The file name of a document that regfs cannot parse. The image then has no other parts but `digest`."""
    is_index: bool = False
    manifest_bytes: bool = False
    manifest: Manifest | None = None
    rootfs: bool = False
    files: bool = False
    note: str | None = None


@dataclass(frozen=True, slots=True)
class ImageDirectory(DirectoryOfImage):
    """The directory of an image. *within* is the index through which it was found, else None.

    A manifest that is shown because it refers to another (*is_referrer*) has no referrers/: cosign's tags can form a
    circle, and a walk over the directories must end.
    """

    within: PinnedImage | None = None
    is_referrer: bool = False

    @property
    def image(self) -> Image:
        """The image that is shown."""
        return self.pinned.image

    def lookup(self, name: str) -> Found:
        """Return the part *name*. May block on the network for manifest and index, never for content."""
        part = _BY_NAME.get(name)
        if part is None or (name == _REFERRERS and self.is_referrer):
            raise NotFound(f"an image has no {name[:300]!r}; it has {', '.join(sorted(NAMES))}")
        return Found(part.make(self, f"{self.key}/{name}"), FOREVER)

    def children(self) -> list[Child]:
        """Return the parts that this image has. May block on the network for manifest and index."""
        parts = _PARTS_OF_REFERRER if self.is_referrer else _PARTS
        return listed(parts, self, self.key, _has(self.pinned))


@dataclass(frozen=True, slots=True)
class ManifestsDirectory(DirectoryOfImage):
    """`manifests/`: the entries of an index, by platform or by digest."""

    is_referrer: bool = False

    def lookup(self, name: str) -> Found:
        """Return the entry of that platform or digest."""
        image = self.pinned.image
        index = _index_of(image)
        spelled = (name, name.replace("-", ":", 1))  # a digest without a colon too
        entry = image.entries.get(name) or next((e for e in index.manifests if str(e.digest) in spelled), None)
        if entry is None:
            raise NotFound(f"the index {image} has no entry {name[:300]!r}")
        pinned = self.pinned.images.pinned(
            image.repository, entry.digest, announced=entry.media_type, is_vouched_for=True
        )
        return Found(ImageDirectory(f"{self.key}/{name}", pinned, self.pinned, self.is_referrer), FOREVER)

    def children(self) -> list[Child]:
        """Return the entries' names."""
        return children_of(self.key, dict.fromkeys(self.pinned.image.entries, DIRECTORY_MODE))


def _has(pinned: PinnedImage) -> Has:
    """Return the facts about the image. May block on the network for its documents."""
    image = pinned.image
    if not image.is_readable:
        return Has(raw=_raw_name(image))
    has = Has(is_index=image.index is not None, note=listed_note(pinned))
    try:
        has = has._replace(manifest_bytes=bool(image.manifest_document.content))
    except (NotFound, BadManifest):  # wrong bytes are a failure; the image is not shown without this part
        return has
    with suppress(BadContent, TooLarge, Unsupported):
        has = has._replace(manifest=image.manifest, rootfs=image.has_rootfs, files=image.has_files)
    return has


def _index_of(image: Image) -> Index:
    index = image.index
    if index is None:
        raise NotFound(f"{image} is a manifest, not an index")
    return index


def _raw_name(image: Image) -> str:
    """Return `index.json` or `manifest.json` for a document that regfs cannot parse, by the registry's media type."""
    return "index.json" if image.document.media_type in INDEX_TYPES else "manifest.json"


def _date(directory: ImageDirectory) -> Callable[[], int]:
    pinned = directory.pinned
    return lambda: pinned.created_ns


def _text(directory: ImageDirectory, key: str, text: str) -> Node:
    return text_file(key, text, _date(directory))


def _digest(directory: ImageDirectory, key: str) -> Node:
    return _text(directory, key, str(directory.pinned.digest))


def _index(directory: ImageDirectory, key: str) -> Node:
    if not _is_raw(directory.image, "index.json"):
        _index_of(directory.image)
    return _document(directory, key)


def _is_raw(image: Image, name: str) -> bool:
    return not image.is_readable and _raw_name(image) == name


def _document(directory: ImageDirectory, key: str) -> Node:
    pinned = directory.pinned
    return FetchedFile(key, len(pinned.image.document.content), lambda: pinned.image.document.content, _date(directory))


def _manifests(directory: ImageDirectory, key: str) -> Node:
    _index_of(directory.image)
    return ManifestsDirectory(key, directory.pinned, directory.is_referrer)


def _manifest(directory: ImageDirectory, key: str) -> Node:
    pinned = directory.pinned
    if _is_raw(pinned.image, "manifest.json"):
        return _document(directory, key)
    # Not the size in the index: some are wrong, and only the digest counts.
    size = len(pinned.image.manifest_document.content)
    return FetchedFile(key, size, lambda: pinned.image.manifest_document.content, _date(directory))


def _manifest_digest(directory: ImageDirectory, key: str) -> Node:
    return _text(directory, key, str(directory.image.manifest_descriptor.digest))


def _note(name: str) -> Callable[[ImageDirectory, str], Node]:
    return lambda directory, key: _text(directory, key, text_of(name, directory.pinned).removesuffix("\n"))


def _config(directory: ImageDirectory, key: str) -> Node:
    pinned = directory.pinned
    return FetchedFile(key, pinned.image.manifest.config.size, lambda: _read_config(pinned.image), _date(directory))


def _read_config(image: Image) -> bytes:
    content = image.config_content
    if image.manifest.is_image:
        with suppress(RegfsError):  # a config that cannot be parsed is shown as its bytes
            image.config  # noqa: B018 (parsing it keeps its date)
    return content


def _blobs(directory: ImageDirectory, key: str) -> Node:
    if not directory.image.blobs:  # raises if there is no manifest for the platform
        raise NotFound(f"{directory.image} names no blobs")
    _judge_referrer(directory)
    return BlobsDirectory(key, directory.pinned)


def _layers(directory: ImageDirectory, key: str) -> Node:
    _image_of(directory)
    return LayersDirectory(key, directory.pinned)


def _rootfs(directory: ImageDirectory, key: str) -> TableDirectory:
    pinned = directory.pinned
    identity = str(_image_of(directory).manifest_descriptor.digest)
    return TableDirectory(key, identity, lambda: pinned.image.rootfs(), lambda layer: origin_of(pinned.image, layer))


def _computed(make: Callable[[Image], str]) -> Callable[[ImageDirectory, str], Node]:
    """Return a function that makes a file whose text *make* computes when the file is read."""

    def node(directory: ImageDirectory, key: str) -> Node:
        _image_of(directory)
        pinned = directory.pinned
        return ComputedFile(key, lambda: make(pinned.image), _date(directory))

    return node


def _files(directory: ImageDirectory, key: str) -> Node:
    if not directory.image.has_files:
        raise NotFound(f"{directory.image} names no files: its layers are those of an image")
    _judge_referrer(directory)
    return FilesDirectory(key, directory.pinned)


def _oci(directory: ImageDirectory, key: str) -> Node:
    directory.image.manifest  # noqa: B018 (raises where there is none for the platform)
    _judge_referrer(directory)
    return oci_directory(key, directory.pinned, directory.within, with_referrers=not directory.is_referrer)


def _referrers(directory: ImageDirectory, key: str) -> Node:
    directory.image.index  # noqa: B018 (raises where the document cannot be read)
    return referrers_directory(
        key, directory.pinned, directory.within, lambda below, pinned: ImageDirectory(below, pinned, is_referrer=True)
    )


def _image_of(directory: ImageDirectory) -> Image:
    image = directory.image
    if not image.has_rootfs:
        types = {image.manifest.config.media_type, *(layer.media_type for layer in image.manifest.layers)}
        raise NotFound(f"{image} is an artifact ({', '.join(sorted(types))[:300]}): it has no layers of files")
    _judge_referrer(directory)
    return image


def _judge_referrer(directory: ImageDirectory) -> None:
    """Judge an image that refers to this one by the policy, and raise AccessDenied if it is not allowed.

    Everyone who may push can let an image refer to an allowed one. Signatures and SBOMs are shown without judgement;
    their `.info` says whether they were verified.
    """
    judge = directory.pinned.images.judge
    if directory.is_referrer and judge is not None and directory.image.has_rootfs:
        judge.judge(directory.pinned.repository, directory.pinned.digest)


_REFERRERS = "referrers"
_PARTS: tuple[Part[ImageDirectory, Has], ...] = (
    Part("digest", FILE_MODE, lambda _: True, _digest),
    Part("index.json", FILE_MODE, lambda has: has.is_index or has.raw == "index.json", _index),
    Part("manifests", DIRECTORY_MODE, lambda has: has.is_index, _manifests),
    Part(MISSING, FILE_MODE, lambda has: has.note == MISSING, _note(MISSING)),
    Part(DIFFERS, FILE_MODE, lambda has: has.note == DIFFERS, _note(DIFFERS)),
    Part("manifest-digest", FILE_MODE, lambda has: has.manifest_bytes, _manifest_digest),
    Part("manifest.json", FILE_MODE, lambda has: has.manifest_bytes or has.raw == "manifest.json", _manifest),
    Part("config.json", FILE_MODE, lambda has: has.manifest is not None, _config),
    Part("blobs", DIRECTORY_MODE, lambda has: has.manifest is not None, _blobs),
    Part("files", DIRECTORY_MODE, lambda has: has.files, _files),
    Part("oci", DIRECTORY_MODE, lambda has: has.manifest is not None, _oci),
    Part(_REFERRERS, DIRECTORY_MODE, lambda has: not has.raw, _referrers),
    Part("history", FILE_MODE, lambda has: has.rootfs, _computed(history_text)),
    Part("wasted", FILE_MODE, lambda has: has.rootfs, _computed(wasted_text)),
    Part("packages", FILE_MODE, lambda has: has.rootfs, _computed(packages_text)),
    Part("layers", DIRECTORY_MODE, lambda has: has.rootfs, _layers),
    Part("rootfs", TABLE_MODE, lambda has: has.rootfs, _rootfs),
)
_PARTS_OF_REFERRER = tuple(part for part in _PARTS if part.name != _REFERRERS)
_BY_NAME = {part.name: part for part in _PARTS}
NAMES = frozenset(_BY_NAME)
"""All names that an image's directory may have."""
