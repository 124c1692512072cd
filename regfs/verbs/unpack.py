"""`regfs unpack`: finds an image, and lets export/unpack.py write its merged files, or a part, into a directory."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from regfs.app.composition import App, build
from regfs.app.config import Config
from regfs.errors import NotADirectory
from regfs.export.unpack import Summary, Unpacker, check_directory, prepare_directory, total_size
from regfs.images.image import Image
from regfs.images.named_images import full_name
from regfs.model.attributes import mode_of
from regfs.mount.mountpoint import mounts
from regfs.process.removal import clear_directory
from regfs.process.umask import current_umask
from regfs.rootfs.file_tree import FileTree
from regfs.rootfs.part_of_tree import PartOfTree
from regfs.verbs.image import fetching, find_image, readable_files
from regfs.verbs.image_paths import ImagePath, fetched_files, read_image_path
from regfs.verbs.progress import Count, Step, showing

Say = Callable[[str], None]
_MOST_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Unpacked:
    """The full *name* of the image, *notes* on what its files lack, and whether all were written."""

    name: str
    notes: tuple[str, ...]
    is_complete: bool


def unpack(
    text: str, directory: Path, *, config: Config, environment: Mapping[str, str], say: Say, warn: Say
) -> Unpacked:
    """Write the merged files of the image that *text* names, or what is at a path in them, into *directory*.

    *directory* must be empty, and is made when there is something to write. An error or Ctrl-C leaves nothing in it;
    where that cannot be removed, *warn* is called. *say* is called with the progress. Blocks on the network. Raises
    RegfsErrors.
    """
    wanted = read_image_path(text, config.default_registry, mounts())
    check_directory(directory)
    with closing(build(config, environment)) as app:
        if app.note:
            say(app.note)
        image = find_image(wanted.reference, app)
        with fetching(app, say=say, environment=environment):
            files = _files(wanted, image, app)
        written, total = Count(), total_size(files)
        is_new = not os.path.lexists(directory)
        prepare_directory(directory)
        unpacker = Unpacker(
            files, app.layer_cache.open, as_root=os.geteuid() == 0, umask=current_umask(), on_bytes=written.add
        )
        try:
            with showing(lambda: [Step("writing files", written.size, total)], say=say, environment=environment):
                summary = unpacker.into(directory)
        except BaseException:
            _remove(directory, is_new=is_new, warn=warn)
            raise
    return Unpacked(full_name(wanted.reference, image), _notes(summary), is_complete=not summary.failures)


def _files(wanted: ImagePath, image: Image, app: App) -> FileTree:
    """Return what is to be written, with its bytes in the cache as far as that takes them. Blocks on the network."""
    if not wanted.path.strip("/"):
        return readable_files(image, app)
    files, node = fetched_files(wanted, app)
    if stat.S_ISDIR(mode_of(files.attributes(node))):
        return PartOfTree(files, node)
    if wanted.path.endswith("/"):
        raise NotADirectory(f"{wanted.typed} is not a directory; leave out the slash at its end")
    return PartOfTree(files, files.root, (os.fsencode(wanted.name), node))


def _remove(directory: Path, *, is_new: bool, warn: Say) -> None:
    try:
        clear_directory(directory)
        if is_new:
            directory.rmdir()
    except OSError as error:
        warn(f"{directory} is incomplete and cannot be removed: {error.strerror}")


def _notes(summary: Summary) -> tuple[str, ...]:
    notes = summary.notes()
    if summary.failures:
        notes.append(f"{len(summary.failures)} entries could not be written as the image has them:")
        notes.extend(f"  {failure}" for failure in summary.failures[:_MOST_SHOWN])
    return tuple(notes)
