"""`regfs get`: writes the files of an artifact into a directory, as its own tool does.

A file gets its name when it is complete. Nothing is written outside the directory: the names come from files/ in the
tree, which has replaced hostile ones, and no link is followed.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path as LocalPath
from typing import NamedTuple

from regfs.app.config import Config
from regfs.errors import CacheFailure, InvalidOption, NotFound, RegfsError
from regfs.library.path import Path
from regfs.process.removal import temporary_directory
from regfs.verbs.image_paths import Say, opened_paths

_CHUNK = 1 << 20


class Got(NamedTuple):
    """The full *name* of the artifact, and the paths that were written."""

    name: str
    written: tuple[LocalPath, ...]


def get(text: str, directory: LocalPath, *, config: Config, environment: Mapping[str, str], say: Say) -> Got:
    """Write the files of the artifact *text*, or what is at a path in them, into *directory*, which may be there.

    Blocks on the network. Raises RegfsErrors; InvalidOption where a file is in the way: nothing is overwritten.
    """
    with opened_paths([text], config=config, environment=environment, say=say) as opened:
        image, path = next(opened)
        if image.contents == image.rootfs:
            raise InvalidOption(f"{text} is an image; regfs unpack IMAGE [DIR] writes it, regfs cp IMAGE:/PATH a part")
        if not path.exists():
            raise NotFound(f"{path} is not in {image.name}")
        sources = sorted(path.iterdir()) if path.is_dir() else [path]
        return Got(image.name, write_all(sources, directory))


def write_all(sources: list[Path], directory: LocalPath) -> tuple[LocalPath, ...]:
    """Write *sources*, with everything below them, into *directory*, which is made; return their paths.

    Blocks on the network. Raises InvalidOption where one of the names exists, CacheFailure, and the errors of reads.
    """
    written = tuple(directory / source.name for source in sources)
    try:
        for each in written:
            if os.path.lexists(each):
                raise InvalidOption(f"{each} is there already; nothing is overwritten")
        directory.mkdir(parents=True, exist_ok=True)
        with temporary_directory(directory) as temporary:
            for source in sources:
                _write(source, temporary / source.name)
            for each in written:
                os.rename(temporary / each.name, each)
    except RegfsError:
        raise
    except OSError as error:
        raise CacheFailure(f"{directory} cannot be written: {error.strerror}") from error
    return written


def write_copy(source: Path, to: LocalPath) -> None:
    """Write *source*, with everything below it, as *to*; a file replaces an older one. Raises as write_all() does."""
    try:
        with temporary_directory(to.parent) as temporary:
            if source.is_file():
                _write_file(source, temporary / to.name, source.stat())
            else:
                _write(source, temporary / to.name)
            os.replace(temporary / to.name, to)
    except RegfsError:
        raise
    except OSError as error:
        raise CacheFailure(f"{to} cannot be written: {error.strerror}") from error


def _write(source: Path, to: LocalPath) -> None:
    """Write *source* and what is below it as *to*, which is not there.

    Without recursion: an archive may nest directories deeper than Python nests calls.
    """
    waiting = [(source, to)]
    while waiting:
        source, to = waiting.pop()
        status = source.lstat()
        if stat.S_ISDIR(status.st_mode):
            to.mkdir()
            waiting += [(child, to / child.name) for child in source.iterdir()]
        else:
            _write_file(source, to, status)


def _write_file(source: Path, to: LocalPath, status: os.stat_result) -> None:
    """Write the link or regular file *source*; skip special files, which an ordinary user cannot make."""
    if stat.S_ISLNK(status.st_mode):
        to.symlink_to(source.readlink())
    elif stat.S_ISREG(status.st_mode):
        with source.open("rb") as content, to.open("xb") as file:
            shutil.copyfileobj(content, file, _CHUNK)
        to.chmod(0o755 if status.st_mode & 0o111 else 0o644)
        os.utime(to, ns=(status.st_mtime_ns, status.st_mtime_ns))
