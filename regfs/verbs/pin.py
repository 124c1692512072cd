"""`regfs pin`, `regfs unpin` and `regfs pins`: images that stay in the cache, whatever its limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing

from regfs.app.composition import build
from regfs.app.config import Config
from regfs.errors import CacheFailure, NotFound
from regfs.images.cached_images import cached_images
from regfs.images.named_images import full_name
from regfs.mount.mountpoint import mounts
from regfs.store.eviction.pins import Pin, drop_pin, keep_pin, pins
from regfs.verbs.cache import images_named
from regfs.verbs.image import fetching, find_image, whole_files
from regfs.verbs.image_argument import read_reference

__all__ = ["Pin", "pin", "pinned", "unpin"]


def pin(text: str, *, config: Config, environment: Mapping[str, str], say: Callable[[str], None]) -> str:
    """Fetch all of the image *text*, pin it, and return its full name. Blocks on the network; raises RegfsErrors."""
    reference = read_reference(text, config.default_registry, mounts())
    with closing(build(config, environment)) as app:
        if app.note:
            raise CacheFailure(f"{config.cache_dir} cannot keep anything: {app.note}")
        image = find_image(reference, app)
        with fetching(app, say=say, environment=environment):
            files = whole_files(image, app, stays=True)
        # The files stay in use until the pin is written, so that no eviction between the two steps removes them.
        manifest = image.manifest_document.digest
        found = next((each for each in cached_images(app.cache) if each.digest == manifest), None)
        if found is None:
            raise CacheFailure(f"{text} could not be kept; is there room on the disk of {app.cache}?")
        name = full_name(reference, image)
        keep_pin(app.cache, manifest, name, found.guards)
        del files
    return name


def unpin(text: str, *, config: Config) -> list[str]:
    """Let the image *text* be evicted again, and return the names that were pinned. No network.

    Raises NotFound where no such image is pinned, and CacheFailure.
    """
    root = config.cache_dir
    known = {each.digest: each for each in pins(root)}
    images = images_named(text, cached_images(root), config.default_registry)
    dropped = [known[str(image.digest)].name for image in images if str(image.digest) in known]
    for image in images:
        drop_pin(root, image.digest)
    if not dropped:
        raise NotFound(f"{text} is not pinned; regfs pins shows what is")
    return dropped


def pinned(config: Config) -> list[Pin]:
    """Return all pins. Raises CacheFailure."""
    return pins(config.cache_dir)
