"""IMAGE[:/PATH] on the command line: a file or directory of an image, without a mount. Used by the reading verbs.

    debian:12:/etc/passwd       a path in the merged files; the first `:/` separates them
    debian:12                   the merged files' root; for an artifact, its files/
    ./library/debian/12/rootfs/etc/passwd       a path in a mount, as the shell completes it

A verb works in its own process on the same cache as the mounts. Any thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import NamedTuple

from regfs.app.composition import App, build
from regfs.app.config import Config
from regfs.errors import NotADirectory, NotFound
from regfs.images.image import Image as FoundImage
from regfs.images.named_images import full_name
from regfs.library.image import Image
from regfs.library.path import Path
from regfs.library.path_resolver import Files
from regfs.model.names import Reference
from regfs.mount.mountpoint import Mounted, inside, mounts
from regfs.process.waiting.deadline import Deadline, under
from regfs.rootfs.paths import files_below, find
from regfs.rootfs.rootfs import Rootfs
from regfs.verbs.image import as_far_as_kept, fetching, find_image, merged_files
from regfs.verbs.image_argument import read_reference

Say = Callable[[str], None]
_ROOTFS = "/rootfs"


class ImagePath(NamedTuple):
    """What was *typed*, the image, and the path in its files; '' for their root."""

    typed: str
    reference: Reference
    path: str

    @property
    def name(self) -> str:
        """The last component of the path; '' for the root."""
        return self.path.rstrip("/").rpartition("/")[2]


class Opened(NamedTuple):
    """An image, and the path in it that was asked for."""

    image: Image
    path: Path


def read_image_path(text: str, default_registry: str, mounted: Sequence[Mounted]) -> ImagePath:
    """Return what *text* names. Raises InvalidName, InvalidOption."""
    points = {each.mountpoint for each in mounted if each.is_regfs and not each.image}
    if inside(text, points) is not None:
        head, rootfs, path = text.partition(f"{_ROOTFS}/")
        return ImagePath(text, read_reference(head + rootfs.rstrip("/"), default_registry, mounted), path)
    head, colon, path = text.partition(":/")
    if path.startswith("/"):  # docker://debian:12:/etc
        scheme, colon, rest = text.partition("://")
        head, colon, path = rest.partition(":/")
        head = f"{scheme}://{head}"
    return ImagePath(text, read_reference(head, default_registry, mounted), path if colon else "")


@contextmanager
def opened_paths(
    texts: Sequence[str], *, config: Config, environment: Mapping[str, str], say: Say
) -> Iterator[Iterator[Opened]]:
    """Yield an iterator over the images and paths that *texts* name; the block keeps their cache open.

    Blocks on the network for the manifest of each; its layers are fetched with its first file, and *say* or a bar shows
    the progress. Raises RegfsErrors.
    """
    wanted = [read_image_path(text, config.default_registry, mounts()) for text in texts]
    with closing(build(config, environment)) as app:
        if app.note:
            say(app.note)
        files = Files(app.tree, timeout_s=config.timeout_s)
        with fetching(app, say=say, environment=environment):
            yield (open_path(each, app, files) for each in wanted)
        files.close()


def open_path(wanted: ImagePath, app: App, files: Files) -> Opened:
    """Return the image and the path that are *wanted*. Blocks on the network; raises RegfsErrors."""
    found = find_image(wanted.reference, app)
    name = full_name(wanted.reference, found)
    image = Image(
        found,
        files,
        referring=app.images.referring,
        name=name,
        timeout_s=app.config.timeout_s,
        close=lambda: None,
    )
    path = image.contents / wanted.path
    if wanted.path.strip("/") and wanted.path.endswith("/") and path.exists() and not path.is_dir():
        raise NotADirectory(f"{path} is not a directory; leave out the slash at its end")
    return Opened(image, path)


def find_wanted(wanted: ImagePath, image: FoundImage, files: Rootfs) -> int:
    """Return the node of the path in the *files* of *image*. Raises NotFound, which names the path."""
    try:
        return find(files, os.fsencode(wanted.path))
    except (NotFound, NotADirectory) as missing:
        raise NotFound(f"/{wanted.path.lstrip('/')} is not in {image}") from missing


def fetched_files(wanted: ImagePath, app: App) -> tuple[Rootfs, int]:
    """Fetch what is at and below the path as far as the cache takes it; return the image's files and the path's node.

    Blocks on the network. Raises NotFound where the image lacks the path, and the errors of fetches.
    """
    image = find_image(wanted.reference, app)
    files = merged_files(image, app)
    node = find_wanted(wanted, image, files)
    with as_far_as_kept(app), under(Deadline()):  # each request has its own deadline
        image.fetch([files.content(each) for each in files_below(files, node)], lambda _layer, _done, _of: None)
    return files, node
