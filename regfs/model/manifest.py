"""Parses manifests and indexes into values.

The tree shows documents as the exact bytes that came; all other code uses these values. A document that two programs
could read differently raises BadManifest. Used by images/ and registry/. Sources: image-spec, manifest.md,
image-index.md, descriptor.md. Pure; any thread.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from regfs.errors import BadContent, BadManifest, TooLarge, Unsupported
from regfs.model import media_types
from regfs.model.digest import Digest
from regfs.model.names import NAME_MAX
from regfs.model.platform import UNKNOWN, Platform, is_image_entry
from regfs.model.strict_json import DOCUMENT_LIMIT, Fields, naming, parse_document

log = logging.getLogger(__name__)

MAX_LAYERS = 4096
MAX_ENTRIES = 10_000
_MAX_FEATURES = 64
_DOCUMENT_KEYS = (
    "schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "fsLayers", "blobs", "subject",
)  # fmt: skip
_MANIFEST_KEYS = ("config", "layers", "fsLayers", "blobs")
_DESCRIPTOR_KEYS = ("mediaType", "digest", "size", "data", "platform", "artifactType", "annotations")
PLATFORM_KEYS = ("os", "architecture", "variant", "os.version", "os.features")
# Parts of the media types of layers with files, of any format: `.image.layer.v1.tar+encrypted`, `.image.rootfs.erofs`.
_WORDS_OF_LAYERS = (".image.layer.", ".image.rootfs.", ".erofs.layer.", "tar")
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A descriptor: what a document says of the bytes that it names. *content* is its embedded data, if valid."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False, kw_only=True)
    platform: Platform | None = field(default=None, kw_only=True)
    artifact_type: str | None = field(default=None, kw_only=True)
    content: bytes | None = field(default=None, kw_only=True, repr=False)


EMPTY = Descriptor(media_types.OCI_EMPTY, Digest.of(b"{}"), 2, content=b"{}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image or an artifact: a config and layers, base first.

    An artifact manifest (withdrawn from the image-spec) is converted to its replacement: its blobs become the layers,
    and its config is EMPTY.
    """

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    artifact_type: str | None = None

    @property
    def is_image(self) -> bool:
        """Whether the config is an image's. Any other config is opaque bytes, which parse_config() must not get."""
        return media_types.is_config(self.config.media_type, manifest_type=self.media_type)

    @property
    def may_have_rootfs(self) -> bool:
        """Whether it has an image's config and a layer of files, also of a format that regfs cannot read.

        A signature by cosign has the config of an image, and layers that are JSON documents.
        """
        return self.is_image and (not self.layers or any(map(_may_be_files, self.layers)))


@dataclass(frozen=True, slots=True)
class Index:
    """A list of manifests. Entries that cannot be parsed are left out, so that the others stay usable."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    artifact_type: str | None = None


def parse_manifest(
    content: bytes, *, content_type: str, announced: str = "", limit: int = DOCUMENT_LIMIT
) -> Manifest | Index:
    """Parse the document *content*, a manifest or an index.

    The document's own bytes decide which it is: `mediaType`, then the fields that it has. *content_type*, the header of
    one answer, is a hint that decides only if the bytes do not. *announced* is the media type in the descriptor that
    names the document. A document of another kind (manifest, index) than announced is refused; the other vendor's
    type of the same kind is accepted (distribution#3528).

    Raises:
        BadManifest: it is neither, or could be read as both. Unsupported: schema 1, which Docker withdrew. TooLarge:
        over *limit* bytes, MAX_LAYERS layers or MAX_ENTRIES entries.
    Source: image-spec, manifest.md and image-index.md; CVE-2021-41190.
    """
    with naming(content):
        document = parse_document(content, limit=limit)
        document.refuse_variants(_DOCUMENT_KEYS)
        media_type = _type_of(document, media_types.without_parameters(content_type))
        if media_types.is_other_kind(announced, media_type):
            raise BadManifest(f"it is {media_type!r}, but it was announced as {announced!r}")
        if media_type in media_types.INDEX_TYPES:
            return _index(document, media_type)
        if media_type == media_types.OCI_ARTIFACT:
            return _manifest(document, media_type, layers="blobs")
        return _manifest(document, media_type, layers="layers")


def entry_names(index: Index) -> dict[str, Descriptor]:
    """Return the entries of *index* by their names in the tree's `manifests/`, in the index's order.

    A name is `os-architecture[-variant]`, plus os.version if several entries would have the same name. It is the digest
    if the entry is not an image, or if its platform is missing, unsafe as a name, or that of an earlier entry.
    """
    plain = Counter(_platform_name(entry, with_version=False) for entry in index.manifests)
    names: dict[str, Descriptor] = {}
    for entry in index.manifests:
        name = _platform_name(entry, with_version=False)
        if name and plain[name] > 1:
            name = _platform_name(entry, with_version=True)
        if not name or name in names:
            name = str(entry.digest)
        names[name] = entry
    return names


def _type_of(document: Fields, hint: str) -> str:
    """Return the media type of *document* by its own bytes; *hint* decides if these do not."""
    if document.has("manifests") and any(document.has(key) for key in _MANIFEST_KEYS):
        raise BadManifest("it has both manifests and layers: neither an index nor a manifest (CVE-2021-41190)")
    declared = media_types.without_parameters(document.text("mediaType"))
    media_type = declared if declared in media_types.DOCUMENT_TYPES else _type_by_shape(document, hint)
    if media_type in media_types.SCHEMA1_TYPES:
        raise Unsupported("a schema 1 manifest, which Docker withdrew: push the image again with a newer client")
    if document.has("schemaVersion") and document.size("schemaVersion") != 2:
        document.fail("schemaVersion", "is not 2")
    return media_type


def _type_by_shape(document: Fields, hint: str) -> str:
    """Return the type of a document without a known `mediaType`; *hint* chooses between types of the same shape."""
    if document.has("fsLayers") or document.values.get("schemaVersion") == 1:
        return media_types.DOCKER_SCHEMA1
    if document.has("manifests"):
        shape = media_types.INDEX_TYPES
    elif document.has("config") or document.has("layers"):
        shape = media_types.MANIFEST_TYPES
    elif "manifests" in document.values:  # Go writes null for a list without elements
        shape = media_types.INDEX_TYPES
    else:
        shape = media_types.DOCUMENT_TYPES
    if hint in shape:
        return hint
    if shape is media_types.DOCUMENT_TYPES:
        raise BadManifest("neither a manifest nor an index")
    return media_types.OCI_INDEX if shape is media_types.INDEX_TYPES else media_types.OCI_MANIFEST


def _manifest(document: Fields, media_type: str, *, layers: str) -> Manifest:
    if document.has("manifests"):
        raise BadManifest(f"it has manifests, but its mediaType is {media_type}")
    config = document.child("config")
    if config is None and layers == "layers":
        document.fail("config", "is missing")
    parsed = tuple(_descriptor(fields) for fields in document.children(layers, limit=MAX_LAYERS))
    sizes: dict[Digest, int] = {}
    manifest_config = EMPTY if config is None else _descriptor(config)
    for descriptor in (manifest_config, *parsed):
        if sizes.setdefault(descriptor.digest, descriptor.size) != descriptor.size:
            raise BadManifest(f"it gives {descriptor.digest} two different sizes")
    return Manifest(
        media_type,
        manifest_config,
        parsed,
        _subject(document),
        document.mapping("annotations"),
        document.text("artifactType") or None,
    )


def _index(document: Fields, media_type: str) -> Index:
    if any(document.has(key) for key in _MANIFEST_KEYS):
        raise BadManifest(f"it has layers, but its mediaType is {media_type}")
    entries: list[Descriptor] = []
    invalid: list[str] = []
    sizes: dict[Digest, int] = {}
    for position, element in enumerate(document.array("manifests", limit=MAX_ENTRIES)):
        try:
            entry = _entry(element, position)
            if sizes.setdefault(entry.digest, entry.size) != entry.size:
                raise BadManifest(f"manifests[{position}] has another size than before for the same digest")
        except (BadContent, TooLarge) as error:
            invalid.append(str(error))
        else:
            entries.append(entry)
    if invalid:
        log.warning("an index has %d entries that are left out, the first: %s", len(invalid), invalid[0])
    return Index(
        media_type,
        tuple(entries),
        _subject(document),
        document.mapping("annotations"),
        document.text("artifactType") or None,
    )


def _may_be_files(layer: Descriptor) -> bool:
    return media_types.is_tar_layer(layer.media_type) or any(word in layer.media_type for word in _WORDS_OF_LAYERS)


def _entry(element: object, position: int) -> Descriptor:
    if not isinstance(element, dict):
        raise BadManifest(f"manifests[{position}] is not an object")
    return _descriptor(Fields(element, f"manifests[{position}]."))


def _subject(document: Fields) -> Descriptor | None:
    subject = document.child("subject")
    return None if subject is None else _descriptor(subject)


def _descriptor(fields: Fields) -> Descriptor:
    fields.refuse_variants(_DESCRIPTOR_KEYS)
    digest, size = fields.as_digest(fields.text("digest"), "digest"), fields.size("size")
    platform = fields.child("platform")
    return Descriptor(
        fields.text("mediaType"),
        digest,
        size,
        annotations=fields.mapping("annotations"),
        platform=None if platform is None else platform_in(platform),
        artifact_type=fields.text("artifactType") or None,
        content=_embedded(fields.values.get("data"), digest, size),
    )


def platform_in(fields: Fields) -> Platform | None:
    """Return the platform in the fields of an index's entry or of a config; None if they have none."""
    fields.refuse_variants(PLATFORM_KEYS)
    system, architecture = fields.text("os"), fields.text("architecture")
    if not system and not architecture:
        return None
    return Platform(
        system or UNKNOWN,
        architecture or UNKNOWN,
        fields.text("variant"),
        fields.text("os.version"),
        fields.texts("os.features", limit=_MAX_FEATURES),
    )


def _embedded(encoded: object, digest: Digest, size: int) -> bytes | None:
    """Return the bytes that a descriptor embeds; None unless they match its digest and size (descriptor.md, "data")."""
    if (digest, size) == (EMPTY.digest, 2):
        return b"{}"
    if not isinstance(encoded, str):
        return None
    try:
        content = base64.b64decode(encoded, validate=True)
        right = len(content) == size and digest.matches(content)
    except (binascii.Error, ValueError, Unsupported):
        return None
    return content if right else None


def _platform_name(entry: Descriptor, *, with_version: bool) -> str:
    """Return `linux-arm64-v8`; '' if the entry is not an image or its platform is unsafe as a name."""
    platform = entry.platform
    if platform is None or not is_image_entry(entry):
        return ""
    parts = [platform.os, platform.architecture, platform.variant]
    if with_version:
        parts.append(platform.os_version)
    name = "-".join(part for part in parts if part)
    return name if len(name) <= NAME_MAX and _SAFE_NAME.fullmatch(name) else ""
