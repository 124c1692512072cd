"""`regfs mount`: finds an image, fetches what is missing of it, and mounts its merged files without a daemon."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from regfs.app.composition import App, build
from regfs.app.config import Config
from regfs.errors import CacheDamaged, CacheFailure, MountFailure, Offline, Unsupported
from regfs.export.erofs.mounting import mount_image, reason_against
from regfs.images.named_images import full_name
from regfs.mount import mountpoint as mountpoints
from regfs.mount.checks import hidden_by_mount
from regfs.process.waiting.deadline import Deadline, under
from regfs.rootfs.rootfs import Rootfs
from regfs.store.layers.content import Span
from regfs.store.layers.data_writer import TAR
from regfs.verbs.image import fetching, find_image, whole_files
from regfs.verbs.image_argument import read_reference

Say = Callable[[str], None]
_INSTEAD = "regfs mount --fuse mounts it by FUSE"


@dataclass(frozen=True, slots=True)
class Writable:
    """Changes go below the directory *upper*, or into memory where that is None."""

    upper: Path | None = None


def mount(
    image_text: str,
    directory: str,
    *,
    config: Config,
    environment: Mapping[str, str],
    writable: Writable | None,
    user_namespace: int | None = None,
    say: Say,
) -> str:
    """Mount the image that *image_text* names on *directory*, and return its full name.

    *user_namespace*, a descriptor, maps the owners of the files. Blocks on the network until the whole image is here;
    *say* is called with the progress. Raises MountFailure and other RegfsErrors.
    """
    if against := reason_against(config.cache_dir):
        raise MountFailure(f"the kernel cannot mount {image_text}: {against}; {_INSTEAD}")
    point = check_point(directory)
    for note in hidden_by_mount(point):
        say(note)
    reference = read_reference(image_text, config.default_registry, mountpoints.mounts())
    with closing(_built(config, environment)) as app:
        if app.note:
            say(app.note)
        with _named_remedy(app, config):
            image = find_image(reference, app)
            name = full_name(reference, image)
            with fetching(app, say=say, environment=environment):
                files = whole_files(image, app, stays=True)
                fetch_damaged(files, app)
        try:
            if not app.note:
                app.sweep()  # of mounts that were killed
            mount_image(
                files, app.layers, point, name=config.shown_image or name, allow_suid=config.allow_suid,
                allow_dev=config.allow_dev, noexec=config.noexec, is_writable=writable is not None,
                upper=writable.upper if writable else None, user_namespace=user_namespace,
            )  # fmt: skip
        except (Unsupported, CacheDamaged, MountFailure) as reason:
            instead = f"; {_INSTEAD}" if writable is None else ""  # what FUSE shows cannot be written
            raise type(reason)(f"{image}: {reason}{instead}") from reason
    return name


def _built(config: Config, environment: Mapping[str, str]) -> App:
    """Return an App whose cache is that of *config*; offline where that can only be read, as its note says then.

    A temporary cache would be gone with this process, and the mount's files with it. Raises CacheFailure.
    """
    app = build(config, environment)
    if not app.note or app.cache == config.cache_dir:
        return app
    app.close()
    reading = build(replace(config, offline=True), environment)
    if reading.cache == config.cache_dir:
        return reading
    reading.close()
    raise CacheFailure(f"{config.cache_dir} cannot keep anything: {app.note}")


@contextmanager
def _named_remedy(app: App, config: Config) -> Iterator[None]:
    """Say in failures that nothing is fetched into a cache that is only read."""
    try:
        yield
    except (Offline, CacheFailure) as failure:
        if not app.note or config.offline:
            raise
        raise type(failure)(
            f"{failure}; nothing is fetched, because the cache cannot be written: make {config.cache_dir} writable,"
            f" choose another with --cache-dir, or {_INSTEAD}"
        ) from failure


def fetch_damaged(files: Rootfs, app: App) -> None:
    """Fetch layers again whose data file is gone or too short."""
    for layer, index in zip(files.diff_ids, files.layers, strict=True):
        layout = index.layout()
        if layout.source == TAR:
            with under(Deadline(app.config.timeout_s, is_users=True)):
                app.layer_cache.open(Span(layer, 0, layout.size)).close()


def check_point(directory: str) -> str:
    """Return the path of the mount point. Raises MountFailure if a regfs is mounted on it, or nothing can be."""
    point = mountpoints.resolved(directory)
    mountpoints.check(point)
    there = mountpoints.topmost(point)
    if there is not None and there.is_kernel_mount:
        raise MountFailure(f"{point} is already a mount ({there.image}); regfs umount {point}")
    return point
