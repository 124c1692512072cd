"""Makes the OCI image layout of one image: the directory that skopeo, podman, umoci, ORAS and scanners read.

    oci-layout                {"imageLayoutVersion":"1.0.0"}
    index.json                names the manifest, as `latest`, and then the manifests that refer to it
    blobs/<algorithm>/<hex>   these manifests, their configs and layers; the index that names the image

A manifest of Docker's type is converted to OCI, the only one that umoci reads: blobs and their digests stay, the
manifest gets a new digest. If something refers to the original manifest, the layout has the original too. Source:
image-spec, image-layout.md; that index.json names referrers without a name is how ORAS finds them. Used by
tree/views/oci.py. Pure; any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor, Manifest
from regfs.model.media_types import DOCKER_MANIFEST, OCI_MANIFEST
from regfs.model.render import oci_manifest, render_index

VERSION = b'{"imageLayoutVersion":"1.0.0"}\n'
_REF_NAME = "org.opencontainers.image.ref.name"
_TAG = "latest"


class Referring(NamedTuple):
    """A manifest that refers to the image: its entry in an index, the *blobs* that it names, and its *tag* if any."""

    descriptor: Descriptor
    blobs: Sequence[Descriptor]
    tag: str = ""


class OciLayout(NamedTuple):
    """A layout: index.json, the manifest as *content*, and the other *blobs* by algorithm and encoded digest."""

    index_json: bytes
    manifest: Digest
    content: bytes
    blobs: Mapping[str, Mapping[str, Descriptor]]


def oci_layout(
    manifest: Manifest,
    content: bytes,
    descriptor: Descriptor,
    *,
    referring: Iterable[Referring] = (),
    subjects: Sequence[Descriptor] = (),
) -> OciLayout:
    """Return the layout of *manifest*, whose bytes are *content*; *descriptor* is its entry in an index.

    *subjects* are the other documents that *referring* may refer to: the index, and the original manifest of Docker's
    type.
    """
    if manifest.media_type == DOCKER_MANIFEST:
        content = oci_manifest(content)
        descriptor = replace(descriptor, media_type=OCI_MANIFEST, digest=Digest.of(content), size=len(content))
    artifact_type = descriptor.artifact_type or manifest.artifact_type
    entries = [_named(replace(descriptor, artifact_type=artifact_type), _TAG)]
    blobs: dict[str, dict[str, Descriptor]] = {descriptor.digest.algorithm: {}}
    named = [manifest.config, *manifest.layers]
    for each in referring:
        entries.append(_named(each.descriptor, each.tag))
        named += [each.descriptor, *each.blobs]
    for blob in (*named, *(subjects if len(entries) > 1 else ())):
        if blob.digest != descriptor.digest:
            blobs.setdefault(blob.digest.algorithm, {}).setdefault(blob.digest.encoded, blob)
    return OciLayout(render_index(entries), descriptor.digest, content, blobs)


def _named(descriptor: Descriptor, tag: str) -> Descriptor:
    return replace(descriptor, annotations={**descriptor.annotations, _REF_NAME: tag}) if tag else descriptor
