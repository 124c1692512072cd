"""Finds the image that a verb works on, and its merged files; reports the progress of what is fetched.

A verb works in its own process on the same cache as the mounts: what a mount has fetched is not fetched again.
Used by the verbs that need layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from regfs.app.composition import App
from regfs.errors import CacheDamaged, CacheFailure, CacheFull, RegistryUnavailable, Unsupported, WorkerKilled
from regfs.images.image import Image
from regfs.images.named_images import image_named
from regfs.model.attestations.kinds import type_of
from regfs.model.names import Reference, path_in_image
from regfs.process.waiting.deadline import Deadline, under
from regfs.rootfs.rootfs import Rootfs
from regfs.verbs.progress import Step, showing

SHOWN_DIGITS = 12


def find_image(reference: Reference, app: App) -> Image:
    """Return the image that *reference* names, with manifest and config. Blocks on the network, up to --timeout."""
    with under(Deadline(app.config.timeout_s, is_users=True)):
        try:
            return image_named(reference, app.repositories, app.images)
        except RegistryUnavailable as failure:
            repository = reference.repository
            if hint := path_in_image(repository.registry, repository.path):
                raise type(failure)(f"{failure}{hint}") from failure
            raise


def merged_files(image: Image, app: App) -> Rootfs:
    """Return the merged layers of *image*. Waits for --timeout, and longer while the layers make progress.

    Raises Unsupported for an artifact.
    """
    with under(Deadline(app.config.timeout_s, is_users=True)):
        if not image.has_rootfs:
            raise Unsupported(_no_image(image))
        return image.rootfs()


def _no_image(image: Image) -> str:
    remedy = "; regfs get ARTIFACT [DIR] writes its files" if image.has_files else " and has no files"
    return f"{image} is an artifact of type {type_of(image.manifest)!r}, not an image{remedy}"


def whole_files(image: Image, app: App, *, compare: bool = False, stays: bool = False) -> Rootfs:
    """Return the merged layers of *image*, all bytes of which are here. Waits as merged_files() does.

    With *compare*, tables of contents are compared with archives. With *stays*, no byte of them is evicted as long as
    the files are in use: the kernel may mount them by itself.
    """
    files = merged_files(image, app)
    try:
        with under(Deadline(app.config.timeout_s, is_users=True)):
            image.complete(compare=compare, stays=stays)
    except CacheFull as failure:
        raise CacheFull(f"{image}: {failure}") from failure
    return files


def readable_files(image: Image, app: App) -> Rootfs:
    """Return the merged layers of *image*, all bytes of which are here if the cache can take them.

    Waits as merged_files() does, also when bytes are read that the cache could not take.
    """
    files = merged_files(image, app)
    with as_far_as_kept(app), under(Deadline(app.config.timeout_s, is_users=True)):
        image.complete()
    return files


@contextmanager
def as_far_as_kept(app: App) -> Iterator[None]:
    """Fetch into the cache in the block; what that cannot take is fetched when it is read. See fetching()."""
    try:
        yield
    except CacheFailure as failure:
        if isinstance(failure, CacheDamaged | WorkerKilled):
            raise
        app.layers.unkept.tell(failure)


@contextmanager
def fetching(
    app: App,
    *,
    say: Callable[[str], None],
    environment: Mapping[str, str],
    steps: Callable[[], list[Step]] = list,
) -> Iterator[None]:
    """Show the progress of layers, and *steps*, while the block runs; *say* then whether the cache takes nothing."""
    with showing(lambda: [*layer_steps(app), *steps()], say=say, environment=environment):
        yield
    if app.layers.unkept.told:
        say(app.layers.unkept.told)


def layer_steps(app: App) -> list[Step]:
    """Return a step for each layer that is being fetched, named by the beginning of its digest."""
    under_way = [(each.blob.descriptor, each.progress) for each in app.layer_cache.under_way()]
    return [
        Step(f"layer {layer.digest.encoded[:SHOWN_DIGITS]}", progress.received, layer.size)
        for layer, progress in under_way
    ]


class Parts:
    """The progress of each lazy layer; one thread writes it and another shows it."""

    def __init__(self) -> None:
        self._layers: dict[str, tuple[int, int]] = {}

    def note(self, layer: str, done: int, of: int) -> None:
        """Note that *done* of *of* bytes of the layer with that digest came."""
        self._layers[layer] = done, of

    def steps(self) -> list[Step]:
        """Return a step for each layer."""
        return [Step(f"parts of {layer[:SHOWN_DIGITS]}", *sizes) for layer, sizes in list(self._layers.items())]
