"""`…/oci/`: an OCI image layout of the image, for tools that do not read registries.

    library/debian/12/oci/
    ├── oci-layout  index.json
    └── blobs/sha256/…            manifest, config and layers

`skopeo copy oci:DIR`, `umoci --image DIR` and `podman pull oci:DIR` read it as it is; listing it fetches no layer.
model/oci_layout.py has its contents. Used by image.py. Any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from regfs.images.pinned_images import PinnedImage
from regfs.model.manifest import Descriptor
from regfs.model.oci_layout import VERSION, OciLayout, oci_layout
from regfs.tree.blobs import BlobFile
from regfs.tree.node import DIRECTORY_MODE, FILE_MODE, BytesFile, Node
from regfs.tree.views.directory import Entry, ViewDirectory


def oci_directory(key: str, pinned: PinnedImage) -> ViewDirectory:
    """Return the directory of the layout. Its look-ups and listing block on the network for the manifest."""
    return ViewDirectory(key, pinned, partial(_top, pinned))


def _layout(pinned: PinnedImage) -> OciLayout:
    image = pinned.image
    return oci_layout(image.manifest, image.manifest_document.content, image.manifest_descriptor)


def _top(pinned: PinnedImage) -> Mapping[str, Entry]:
    return {
        "oci-layout": Entry(FILE_MODE, lambda key: _bytes(pinned, key, VERSION)),
        "index.json": Entry(FILE_MODE, lambda key: _bytes(pinned, key, _layout(pinned).index_json)),
        "blobs": _directory(pinned, lambda: _algorithms(pinned)),
    }


def _algorithms(pinned: PinnedImage) -> Mapping[str, Entry]:
    return {name: _directory(pinned, partial(_blobs, pinned, name)) for name in _layout(pinned).blobs}


def _blobs(pinned: PinnedImage, algorithm: str) -> Mapping[str, Entry]:
    layout = _layout(pinned)
    entries = {encoded: _blob(pinned, blob) for encoded, blob in layout.blobs[algorithm].items()}
    if layout.manifest.algorithm == algorithm:
        entries[layout.manifest.encoded] = Entry(FILE_MODE, lambda key: _bytes(pinned, key, layout.content))
    return entries


def _blob(pinned: PinnedImage, blob: Descriptor) -> Entry:
    if blob.content is not None:  # a config that the manifest embeds need not be in the registry
        content = blob.content
        return Entry(FILE_MODE, lambda key: _bytes(pinned, key, content))
    return Entry(FILE_MODE, lambda key: BlobFile(key, pinned.repository, blob, pinned))


def _directory(pinned: PinnedImage, entries: Callable[[], Mapping[str, Entry]]) -> Entry:
    return Entry(DIRECTORY_MODE, lambda key: ViewDirectory(key, pinned, entries))


def _bytes(pinned: PinnedImage, key: str, content: bytes) -> Node:
    return BytesFile(key, content, lambda: pinned.created_ns)
