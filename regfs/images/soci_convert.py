"""Makes the SOCI index (version 2) of an image, as `soci convert` does: zTOCs, and a new image index that names them.

    new index ── the image's manifest, annotated with the digest of its SOCI index (so that its digest is another one)
             └── the SOCI index, annotated with the digest of that manifest

Layers, config and the manifests for other platforms stay the same. Used by verbs/index.py. One thread. Source:
soci-snapshotter, soci/soci_convert.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from regfs import __version__
from regfs.errors import Unsupported
from regfs.images.image import Image
from regfs.images.soci_indexes import INDEX_DIGEST
from regfs.layers.formats.soci import (
    BUILD_TOOL,
    IMAGE_MANIFEST_DIGEST,
    INDEX_V2,
    LAYER_DIGEST,
    LAYER_MEDIA_TYPE,
    SPAN_SIZE,
)
from regfs.layers.formats.ztoc_writer import write_ztoc
from regfs.model.digest import Digest
from regfs.model.manifest import EMPTY, Descriptor
from regfs.model.media_types import OCI_INDEX, OCI_MANIFEST, OCTET_STREAM, layer_compression
from regfs.model.names import RepositoryName
from regfs.model.render import annotated_manifest, index_with, render_manifest
from regfs.process.waiting.deadline import current
from regfs.registry.push import Pushes

Report = Callable[[Digest, int, int], None]
"""Called with a layer, its size in bytes, and how many of these are done."""


@dataclass(frozen=True, slots=True)
class Converted:
    """The new parts of an image with a SOCI index: blobs (*ztocs*), two manifests and the *index* that names these.

    *left_out* has a sentence for each layer without a zTOC, with the reason.
    """

    ztocs: tuple[bytes, ...]
    soci_index: bytes
    manifest: bytes
    index: bytes
    left_out: tuple[str, ...]

    def push(self, pushes: Pushes, repository: RepositoryName, tag: str) -> Digest:
        """Push all parts to *repository*, which already has the image's blobs; the index comes last, under *tag*."""
        for blob in (*self.ztocs, b"{}"):
            pushes.blob(repository, blob)
        for manifest in (self.soci_index, self.manifest):
            pushes.manifest(repository, Digest.of(manifest), manifest, OCI_MANIFEST)
        return pushes.manifest(repository, tag, self.index, OCI_INDEX)


def convert(image: Image, *, span_size: int, least_layer: int, report: Report) -> Converted:
    """Make the SOCI index of *image*, for its layers of at least *least_layer* bytes. Each is read once.

    Blocks on the network for layers that are not in the cache. Raises Unsupported if no layer can be indexed.
    """
    left_out: list[str] = []
    ztocs = list(_ztocs(image, span_size=span_size, least_layer=least_layer, report=report, left_out=left_out))
    if not ztocs:
        raise Unsupported("; ".join([f"{image}: no layer of it can be indexed", *left_out]))
    config = replace(EMPTY, media_type=INDEX_V2, content=None)
    made_by = {BUILD_TOOL: f"regfs {__version__}"}
    soci_index = render_manifest(config, [descriptor for descriptor, _ in ztocs], annotations=made_by)
    named = {INDEX_DIGEST: str(Digest.of(soci_index))}
    manifest = annotated_manifest(image.manifest_document.content, named)
    platform = image.config.platform
    annotated = Descriptor(
        OCI_MANIFEST, Digest.of(manifest), len(manifest), annotations={**image.manifest.annotations, **named},
        platform=platform,
    )  # fmt: skip
    entry = Descriptor(
        OCI_MANIFEST,
        Digest.of(soci_index),
        len(soci_index),
        annotations={IMAGE_MANIFEST_DIGEST: str(annotated.digest)},
        platform=platform,
        artifact_type=INDEX_V2,
    )
    old = None if image.index is None else image.document.content
    index = index_with(old, annotated, instead_of=image.manifest_descriptor.digest, also=entry, kind=INDEX_V2)
    return Converted(tuple(content for _, content in ztocs), soci_index, manifest, index, tuple(left_out))


def _ztocs(
    image: Image, *, span_size: int, least_layer: int, report: Report, left_out: list[str]
) -> Iterator[tuple[Descriptor, bytes]]:
    for layer in image.layers:
        descriptor = layer.descriptor
        if descriptor.size < least_layer:
            continue
        try:
            if layer_compression(descriptor.media_type) != "gzip":
                raise Unsupported(f"{descriptor.media_type} is not gzip")
            content = write_ztoc(
                current().watch(image.layer_blob(layer)),
                diff_id=layer.diff_id,
                tool=f"regfs {__version__}",
                span_size=span_size,
                report=partial(report, descriptor.digest, descriptor.size),
            )
        except Unsupported as error:
            left_out.append(f"layer {descriptor.digest} is left out: {error}")
            continue
        annotations = {
            LAYER_DIGEST: str(descriptor.digest), LAYER_MEDIA_TYPE: descriptor.media_type, SPAN_SIZE: str(span_size),
        }  # fmt: skip
        yield Descriptor(OCTET_STREAM, Digest.of(content), len(content), annotations=annotations), content
