"""`regfs cp`: copies files and directories out of an image or artifact, without a mount.

A copy gets its name when it is complete: Ctrl-C, a full disk and a lost registry leave nothing behind.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from regfs.app.composition import App, build
from regfs.app.config import Config
from regfs.errors import CacheFailure, InvalidOption, NotFound
from regfs.export.unpack import Unpacker
from regfs.library.path_resolver import Files
from regfs.model.attributes import mode_of
from regfs.mount.mountpoint import mounts
from regfs.process.removal import temporary_directory
from regfs.process.umask import current_umask
from regfs.rootfs.part_of_tree import PartOfTree
from regfs.rootfs.rootfs import Rootfs
from regfs.verbs.get import write_copy
from regfs.verbs.image import fetching
from regfs.verbs.image_paths import ImagePath, Say, fetched_files, open_path, read_image_path


class Copied(NamedTuple):
    """The *copies*, each what was typed and the path of the copy, and notes for the user."""

    copies: tuple[tuple[str, Path], ...]
    notes: tuple[str, ...]


def cp(texts: Sequence[str], destination: Path, *, config: Config, environment: Mapping[str, str], say: Say) -> Copied:
    """Copy what *texts*, IMAGE:/PATH, name to *destination*, or into it where it is a directory.

    Owners, modes, links and times are as export/unpack.py makes them. A file replaces a file. A symbolic link in
    *texts* is followed, and so is *destination*. Files of artifacts are made as get.py makes them. Blocks on the
    network for the layers, of lazy ones only for these files. Raises RegfsErrors.
    """
    wanted = [read_image_path(text, config.default_registry, mounts()) for text in texts]
    for each in wanted:
        if not each.path.strip("/"):
            raise InvalidOption(f"{each.typed} is a whole image; regfs unpack {each.typed} DIR writes one")
    if len(wanted) > 1 and not destination.is_dir():
        raise InvalidOption(f"{destination} is not a directory, and several files are to be copied")
    copies, notes = [], []
    with closing(build(config, environment)) as app:
        if app.note:
            say(app.note)
        paths = Files(app.tree, timeout_s=config.timeout_s)
        for each in wanted:
            with fetching(app, say=say, environment=environment):
                to = _place(destination / each.name if destination.is_dir() else destination)
                notes += _copy(each, to, app, paths)
                copies.append((each.typed, to))
        paths.close()
    return Copied(tuple(copies), tuple(notes))


def _place(to: Path) -> Path:
    """Return where the copy *to* is written: what a symbolic link leads to is replaced, not the link.

    Raises InvalidOption for a device, a pipe or a socket, which a copy would replace, too.
    """
    if to.exists() and not to.is_file() and not to.is_dir():
        raise InvalidOption(f"{to} is neither a file nor a directory; regfs cat IMAGE:/PATH > {to} writes to it")
    return Path(os.path.realpath(to)) if to.is_symlink() else to


def _copy(wanted: ImagePath, to: Path, app: App, paths: Files) -> list[str]:
    """Copy what is *wanted* to the path *to*; return notes."""
    opened = open_path(wanted, app, paths)
    if opened.image.contents == opened.image.rootfs:
        files, node = fetched_files(wanted, app)
        return _write(files, node, to, app)
    if not opened.path.exists():
        raise NotFound(f"{opened.path} is not in {opened.image.name}")
    _insist_on_room(to, is_directory=opened.path.is_dir())
    write_copy(opened.path, to)
    return []


def _write(files: Rootfs, node: int, to: Path, app: App) -> list[str]:
    """Write the entry *node* of *files* as the path *to*; return notes."""
    _insist_on_room(to, is_directory=stat.S_ISDIR(mode_of(files.attributes(node))))
    part = PartOfTree(files, files.root, (os.fsencode(to.name), node))
    unpacker = Unpacker(
        part, app.layer_cache.open, as_root=os.geteuid() == 0, umask=current_umask(), on_bytes=lambda _size: None
    )
    try:
        with temporary_directory(to.parent) as temporary:
            summary = unpacker.into(temporary)
            if summary.failures:
                raise CacheFailure(f"{to} could not be written as the image has it: {summary.failures[0]}")
            os.replace(temporary / to.name, to)
    except OSError as error:
        raise CacheFailure(f"{to} cannot be written: {error.strerror}") from error
    return summary.notes()


def _insist_on_room(to: Path, *, is_directory: bool) -> None:
    """Raise InvalidOption where *to* exists (a file may replace a file), has no name, or has no parent directory."""
    if not to.name:
        raise InvalidOption(f"{to} is not a name for a copy")
    if not to.parent.is_dir():
        raise InvalidOption(f"{to.parent} is not a directory")
    if os.path.lexists(to) and (is_directory or to.is_dir()):
        raise InvalidOption(f"{to} is there already; name a directory that is not")
