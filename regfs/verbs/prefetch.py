"""`regfs prefetch`: fetches images, or parts of them, into the cache, for later mounts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import NamedTuple

from regfs.app.composition import App, build
from regfs.app.config import Config
from regfs.errors import CacheFailure, NotADirectory, NotFound, RegfsError
from regfs.images.image import Image
from regfs.images.named_images import full_name
from regfs.model.units import in_units
from regfs.mount.mountpoint import inside, mounts
from regfs.process.waiting.deadline import Deadline, under
from regfs.rootfs.paths import files_below, find
from regfs.rootfs.rootfs import Rootfs
from regfs.store.blobs import BlobStore
from regfs.verbs.image import Parts, fetching, find_image, merged_files, whole_files
from regfs.verbs.image_argument import read_reference

Say = Callable[[str], None]


class Wanted(NamedTuple):
    """An image as the user typed it, and the paths in it that are wanted; all of it where there are none.

    *only_start*: what the image's start reads is wanted instead, beside the paths.
    """

    image: str
    paths: tuple[str, ...] = ()
    only_start: bool = False


def wanted(words: Sequence[str]) -> list[Wanted]:
    """Return what *words* ask for: a word that begins with a slash is a path in the image before it.

    A word with a slash that leads into a mount of regfs is an image itself.
    """
    points = {mounted.mountpoint for mounted in mounts() if mounted.is_regfs}
    found: list[Wanted] = []
    for word in words:
        if found and word.startswith("/") and inside(word, points) is None:
            found[-1] = found[-1]._replace(paths=(*found[-1].paths, word))
        else:
            found.append(Wanted(word))
    return found


class Prefetched(NamedTuple):
    """The result for one image: *asked* is what the user typed. *name* and the rest are set if the image was found.

    *notes* says what is odd about an image that was fetched.
    """

    asked: str
    name: str = ""
    layers: int = 0
    received_bytes: int = 0
    failure: RegfsError | None = None
    notes: tuple[str, ...] = ()


def prefetch(
    asked: Sequence[Wanted], *, config: Config, environment: Mapping[str, str], say: Say
) -> Iterator[Prefetched]:
    """Fetch, unpack and merge all layers of the images *asked* for, one after the other; a failure ends its image only.

    With paths, only the chunks of the files at and below them are fetched of lazy layers. Blocks on the network. Raises
    CacheFailure where the cache directory cannot be used: nothing would be kept.
    """
    with closing(build(config, environment)) as app:
        if app.note:
            raise CacheFailure(f"{config.cache_dir} cannot keep anything: {app.note}")
        for each in asked:
            yield _prefetch_one(each, app, environment=environment, say=say)


def _prefetch_one(asked: Wanted, app: App, *, environment: Mapping[str, str], say: Say) -> Prefetched:
    text, parts, left_out = asked.image, Parts(), list[str]()
    before, told = app.stats.value("registry.bytes"), app.journal.texts()
    try:
        reference = read_reference(text, app.config.default_registry, mounts())
        image = find_image(reference, app)
        with fetching(app, say=say, environment=environment, steps=parts.steps):
            if asked.only_start:
                _fetch_start(image, app, parts)
            if asked.paths:
                _fetch_paths(asked.paths, image, app, parts)
            elif not asked.only_start:
                left_out = _left_out(whole_files(image, app, compare=True), app)
        _insist_on_copies(image, app)
    except RegfsError as failure:
        return Prefetched(text, failure=failure)
    received = int(app.stats.value("registry.bytes") - before)
    notes = [each for each in app.journal.texts() if each not in told]
    return Prefetched(text, full_name(reference, image), len(image.layers), received, notes=(*notes, *left_out))


def _left_out(files: Rootfs, app: App) -> list[str]:
    """Return a note if the cache is too small for *files*: the last bytes have evicted the first."""
    size, limit = sum(index.layout().size for index in files.layers), app.layers.budget.effective_limit()
    if size <= limit or app.layer_cache.has_all(files.diff_ids):
        return []
    return [
        f"the cache keeps a part of it: its files have {in_units(size)}, and --cache-size is {in_units(limit)}; "
        "regfs prefetch IMAGE PATH fetches what is at a path"
    ]


def _fetch_start(image: Image, app: App, parts: Parts) -> None:
    files = merged_files(image, app)
    with under(Deadline()):
        image.fetch_start(files, parts.note)


def _fetch_paths(paths: Sequence[str], image: Image, app: App, parts: Parts) -> None:
    files = merged_files(image, app)
    contents = []
    for path in paths:
        try:
            node = find(files, os.fsencode(path))
        except (NotFound, NotADirectory) as missing:
            raise NotFound(f"{path} is not in {image}") from missing
        contents += [files.content(each) for each in files_below(files, node)]
    # No deadline for all of them: each request has its own.
    with under(Deadline()):
        image.fetch(contents, parts.note)


def _insist_on_copies(image: Image, app: App) -> None:
    """Raise CacheFailure where a document of *image* was served but not kept, as happens on a full disk."""
    for digest in {image.digest, image.manifest_document.digest, image.manifest.config.digest}:
        path = BlobStore(app.cache / "blobs").path(digest)
        if not path.exists():
            raise CacheFailure(
                f"{path} could not be kept, or was deleted; is there room on its disk? --cache-dir names another"
            )
