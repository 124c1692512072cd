"""`regfs prefetch`: fetches images into the cache, for mounts to come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import NamedTuple

from regfs.app import App, build
from regfs.config import Config
from regfs.errors import CacheFailure, RegfsError
from regfs.images.image import Image
from regfs.mount.mountpoint import mounts
from regfs.store.blobs import BlobStore
from regfs.verbs.image import find_image, full_name, layer_steps, whole_files
from regfs.verbs.image_argument import read_reference
from regfs.verbs.progress import showing

Say = Callable[[str], None]


class Prefetched(NamedTuple):
    """How it went with one image: *asked* is what the user typed. *name* and the rest are known where it was found."""

    asked: str
    name: str = ""
    layers: int = 0
    received_bytes: int = 0
    failure: RegfsError | None = None


def prefetch(asked: Sequence[str], *, config: Config, environment: Mapping[str, str], say: Say) -> Iterator[Prefetched]:
    """Fetch, unpack and merge all layers of the images *asked* for, one after the other; a failure ends its image only.

    Blocks on the network. Raises CacheFailure where the cache directory cannot be used: nothing would be kept.
    """
    with closing(build(config, environment)) as app:
        if app.note:
            raise CacheFailure(f"{config.cache_dir} cannot keep anything: {app.note}")
        for text in asked:
            yield _prefetch_one(text, app, environment=environment, say=say)


def _prefetch_one(text: str, app: App, *, environment: Mapping[str, str], say: Say) -> Prefetched:
    before = app.stats.value("registry.bytes")
    try:
        reference = read_reference(text, app.config.default_registry, mounts())
        image = find_image(reference, app)
        with showing(lambda: layer_steps(app), say=say, environment=environment):
            whole_files(image, app)
        _insist_on_copies(image, app)
    except RegfsError as failure:
        return Prefetched(text, failure=failure)
    received = int(app.stats.value("registry.bytes") - before)
    return Prefetched(text, full_name(reference, image), len(image.layers), received)


def _insist_on_copies(image: Image, app: App) -> None:
    """Raise CacheFailure where a document of *image* was served but not kept, as happens on a full disk."""
    for digest in {image.digest, image.manifest_document.digest, image.manifest.config.digest}:
        path = BlobStore(app.cache / "blobs").path(digest)
        if not path.exists():
            raise CacheFailure(f"{path} could not be kept; is there room on its disk? --cache-dir names another")
