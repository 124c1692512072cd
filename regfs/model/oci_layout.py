"""An OCI image layout of one manifest: the directory that `oci:` of skopeo and podman, umoci, ORAS and scanners read.

    oci-layout                {"imageLayoutVersion":"1.0.0"}
    index.json                names the manifest, as `latest`
    blobs/<algorithm>/<hex>   the manifest, its config, its layers

A manifest of Docker's type is converted to OCI, the only one that umoci reads: blobs and their digests stay, the
manifest gets a new digest. Source: image-spec, image-layout.md. Used by tree/views/oci.py. Pure; any thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor, Manifest
from regfs.model.media_types import DOCKER_MANIFEST, OCI_MANIFEST
from regfs.model.render import oci_manifest, render_index

VERSION = b'{"imageLayoutVersion":"1.0.0"}\n'
_REF_NAME = "org.opencontainers.image.ref.name"
_TAG = "latest"


class OciLayout(NamedTuple):
    """A layout: index.json, the manifest as *content*, and the other *blobs* by algorithm and encoded digest."""

    index_json: bytes
    manifest: Digest
    content: bytes
    blobs: Mapping[str, Mapping[str, Descriptor]]


def oci_layout(manifest: Manifest, content: bytes, descriptor: Descriptor) -> OciLayout:
    """Return the layout of *manifest*, whose bytes are *content*; *descriptor* is its entry in an index."""
    if manifest.media_type == DOCKER_MANIFEST:
        content = oci_manifest(content)
        descriptor = replace(descriptor, media_type=OCI_MANIFEST, digest=Digest.of(content), size=len(content))
    named = replace(
        descriptor,
        annotations={**descriptor.annotations, _REF_NAME: _TAG},
        artifact_type=descriptor.artifact_type or manifest.artifact_type,
    )
    blobs: dict[str, dict[str, Descriptor]] = {descriptor.digest.algorithm: {}}
    for blob in (manifest.config, *manifest.layers):
        blobs.setdefault(blob.digest.algorithm, {})[blob.digest.encoded] = blob
    return OciLayout(render_index([named]), descriptor.digest, content, blobs)
