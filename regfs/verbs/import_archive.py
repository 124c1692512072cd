"""`regfs import`: reads images from a tar archive into the cache, so that they are served without a registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from typing import IO, NamedTuple

from regfs.app.composition import App, build
from regfs.app.config import Config
from regfs.errors import BadContent, CacheFailure, Offline, Unsupported
from regfs.export.archive.names import PINNED, references_of
from regfs.export.archive.reading import ArchiveReader, adopt_names
from regfs.images.adoption import Adoption
from regfs.images.cached_images import cached_images
from regfs.images.image import Image
from regfs.images.named_images import full_name
from regfs.model.manifest import Descriptor
from regfs.model.media_types import may_be_elsewhere
from regfs.model.names import Reference
from regfs.store.eviction.pins import keep_pin
from regfs.verbs.image import find_image, layer_steps, whole_files
from regfs.verbs.progress import Step, showing


class Imported(NamedTuple):
    """The full names of the images that are here now, those that were pinned, and notes for the user."""

    names: tuple[str, ...]
    pinned: tuple[str, ...]
    notes: tuple[str, ...]


def import_archive(
    file: IO[bytes],
    *,
    config: Config,
    environment: Mapping[str, str],
    say: Callable[[str], None],
    name: str | None = None,
    with_pins: bool = False,
) -> Imported:
    """Read the archive *file* into the cache, unpack its images, and pin those that were pinned, or all *with_pins*.

    *name* is what its image is called where the archive does not say. No network. Raises RegfsErrors.
    """
    with closing(build(replace(config, offline=True), environment)) as app:
        if app.note:
            raise CacheFailure(f"{config.cache_dir} cannot keep anything: {app.note}")
        adoption = app.repositories.adoption(app.layers.uses.hold)
        reader = ArchiveReader(file, adoption)

        def steps() -> list[Step]:
            return [Step("archive", reader.read, 0), *layer_steps(app)]

        names, pinned = [], []
        with showing(steps, say=say, environment=environment):
            entries = reader.entries()
            images = references_of(entries, name, default_registry=config.default_registry)
            adopt_names([(entry, each.repository, each.tag) for entry, each in images], entries, adoption)
            for entry, reference in images:
                image, is_unpacked = _unpacked(replace(reference, digest=entry.digest), app, adoption)
                names.append(full_name(reference, image))
                if with_pins or PINNED in entry.annotations:
                    _pin(image, names[-1], app, adoption, is_unpacked=is_unpacked)
                    pinned.append(names[-1])
        adoption.let_go()
        return Imported(tuple(names), tuple(pinned), tuple(app.journal.texts()))


def _unpacked(reference: Reference, app: App, adoption: Adoption) -> tuple[Image, bool]:
    """Unpack the image into the cache; return it, and whether it has files.

    Raises BadContent where the archive lacks a part of it.
    """
    try:
        image = find_image(reference, app)
        is_unpacked = _unpack_layers(image, app)
        missing = [] if is_unpacked else _missing(image, adoption)
    except Offline as error:
        raise BadContent(f"the archive lacks a part of {reference}: {error}") from error
    if missing:
        raise BadContent(f"the archive lacks blobs of {reference}: {missing[0].digest}")
    return image, is_unpacked


def _unpack_layers(image: Image, app: App) -> bool:
    """Unpack the layers into the cache; return False where they have no files: those of artifacts and of Windows."""
    if not image.has_rootfs:
        return False
    try:
        whole_files(image, app, stays=True)
    except Unsupported:
        return False
    return True


def _missing(image: Image, adoption: Adoption) -> list[Descriptor]:
    """Return the blobs that the archive lacks, but for those that registries may lack too."""
    return [each for each in image.blobs.values() if not (adoption.has(each) or may_be_elsewhere(each.media_type))]


def _pin(image: Image, name: str, app: App, adoption: Adoption, *, is_unpacked: bool) -> None:
    digest = image.manifest_document.digest
    found = next((each for each in cached_images(app.cache) if each.digest == digest), None)
    if found is None:
        raise CacheFailure(f"{name} could not be kept; is there room on the disk of {app.cache}?")
    # Layers are kept unpacked; their blobs may be evicted.
    packed = {adoption.path(layer.digest) for layer in image.manifest.layers} if is_unpacked else set()
    keep_pin(app.cache, digest, name, found.guards - packed)
