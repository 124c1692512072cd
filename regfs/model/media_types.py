"""The media types of OCI and Docker: indexes, manifests, configs, layers.

An unknown type is not an error (image-spec, manifest.md): its blobs are shown as bytes. Only rootfs/ and layers/N/tree/
need layers of known types. Pure; any thread.
"""

from __future__ import annotations

from typing import Literal

from regfs.errors import Unsupported

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
OCTET_STREAM = "application/octet-stream"

INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
SCHEMA1_TYPES = frozenset({DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED})
CONFIG_TYPES = frozenset({OCI_CONFIG, DOCKER_CONFIG})
# What Docker 1.10 pushed as the type of an image's config (distribution#1621, moby#22378, moby#30083). Old images still
# have it, and every client accepts them as images. Source: moby, distribution/registry.go.
_OLD_CONFIG_TYPES = frozenset({"", OCTET_STREAM, "application/json", "text/html"})
_MANIFEST_KINDS = MANIFEST_TYPES | SCHEMA1_TYPES | {OCI_ARTIFACT}
DOCUMENT_TYPES = INDEX_TYPES | _MANIFEST_KINDS

Compression = Literal["none", "gzip", "zstd"]

_LAYERS: dict[str, Compression] = {
    "application/vnd.oci.image.layer.v1.tar": "none",
    "application/vnd.oci.image.layer.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd": "zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar": "none",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": "zstd",
    "application/vnd.docker.image.rootfs.diff.tar": "none",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar": "none",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": "gzip",
}
# Words in the types of layers that cannot be shown, each with the reason.
_UNREADABLE = (
    ("+encrypted", "it is encrypted, and regfs has no keys"),
    (".erofs", "it is an EROFS image, not a tar"),
    ("squashfs", "it is a squashfs image, not a tar"),
)


def layer_compression(media_type: str) -> Compression:
    """Return the compression that *media_type* names. A layer's bytes may have another.

    Raises Unsupported if the type is not that of a tar layer (an encrypted one, a file system image, an artifact's
    blob).
    """
    try:
        return _LAYERS[media_type]
    except KeyError:
        reasons = (reason for word, reason in _UNREADABLE if word in media_type)
        reason = next(reasons, "it is not a tar that regfs knows")
        shown = media_type[:200]
        raise Unsupported(
            f"layers of type {shown!r} cannot be shown as files: {reason}; blobs/ has the bytes"
        ) from None


def may_be_elsewhere(media_type: str) -> bool:
    """Tell whether registries may lack layers of *media_type*: non-distributable ones, such as Windows' base."""
    return media_type in _LAYERS and (".foreign." in media_type or ".nondistributable." in media_type)


def oci_layer_type(media_type: str) -> str:
    """Return the OCI type of a tar layer of one of Docker's types; any other type as it is."""
    if not media_type.startswith("application/vnd.docker.image.rootfs.") or media_type not in _LAYERS:
        return media_type
    foreign = "nondistributable." if ".foreign." in media_type else ""
    compression = _LAYERS[media_type]
    return f"application/vnd.oci.image.layer.{foreign}v1.tar" + ("" if compression == "none" else f"+{compression}")


def is_config(media_type: str, *, manifest_type: str) -> bool:
    """Tell whether a config of *media_type* in a manifest of *manifest_type* is an image's.

    In an OCI manifest, an old type of Docker may be the type of an artifact.
    """
    if media_type in CONFIG_TYPES:
        return True
    return manifest_type == DOCKER_MANIFEST and without_parameters(media_type) in _OLD_CONFIG_TYPES


def is_other_kind(announced: str, found: str) -> bool:
    """Tell whether one media type is that of an index and the other that of a manifest. Unknown types are neither."""
    if announced in INDEX_TYPES:
        return found in _MANIFEST_KINDS
    return announced in _MANIFEST_KINDS and found in INDEX_TYPES


def is_tar_layer(media_type: str) -> bool:
    """Tell whether a layer of *media_type* is a tar, compressed or not."""
    return media_type in _LAYERS


def without_parameters(content_type: str) -> str:
    """Return the media type of a Content-Type header: lower case, without `; charset=…`."""
    return content_type.partition(";")[0].strip().lower()
