"""`regfs export`: writes images into a tar archive that another machine imports, or that skopeo reads."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from regfs.app.composition import build
from regfs.app.config import Config
from regfs.errors import CacheFailure, CacheFull, InvalidOption, Offline
from regfs.export.archive.writing import ArchiveWriter, Contents
from regfs.images.named_images import full_name
from regfs.model.names import parse_reference
from regfs.mount.mountpoint import mounts
from regfs.process.umask import current_umask
from regfs.process.waiting.deadline import Deadline, under
from regfs.store.eviction.pins import pins
from regfs.verbs.image import find_image
from regfs.verbs.image_argument import read_reference
from regfs.verbs.progress import Step, showing


class Exported(NamedTuple):
    """The full names of the images in the archive, its bytes, and notes for the user."""

    names: tuple[str, ...]
    size: int
    notes: tuple[str, ...]


def export(
    texts: Sequence[str],
    file: IO[bytes],
    *,
    config: Config,
    environment: Mapping[str, str],
    say: Callable[[str], None],
    with_pinned: bool = False,
) -> Exported:
    """Write the images *texts*, and *with_pinned* those that are pinned, to *file*.

    Blocks on the network; raises RegfsErrors and OSError. After an error what was written is not an archive.
    """
    pinned = {pin.digest: pin.name for pin in pins(config.cache_dir)}
    references = [read_reference(text, config.default_registry, mounts()) for text in texts]
    if with_pinned:
        references += [parse_reference(name) for name in pinned.values()]
    if not references:
        raise InvalidOption("no image is named, and none is pinned")
    contents, names = Contents(), []
    with closing(build(config, environment)) as app:
        for reference in dict.fromkeys(references):
            image = find_image(reference, app)
            with under(Deadline(config.timeout_s, is_users=True)):
                is_pinned = str(image.manifest_document.digest) in pinned
                contents.add(reference, image, app.images, is_pinned=is_pinned)
            names.append(full_name(reference, image))
        writer = ArchiveWriter(contents, file)
        with showing(lambda: [Step("archive", writer.written, contents.size)], say=say, environment=environment):
            try:
                writer.write()
            except Offline as error:
                raise Offline(
                    f"{error}; an archive has layers as a registry sent them, and the cache has this one unpacked"
                ) from error
        return Exported(tuple(names), writer.written, (*app.journal.texts(), *writer.left_out))


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file that gets the name *path* at the end of the block, and leaves nothing after an error.

    What a symbolic link leads to is replaced, not the link. A device or pipe is written to.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        with _written_to(path) as file:
            yield file
        return
    path = Path(os.path.realpath(path))
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".regfs-", delete=False) as file:
            try:
                yield file
                file.flush()
                os.fchmod(file.fileno(), 0o666 & ~current_umask())
                os.fsync(file.fileno())
                os.rename(file.name, path)
            except BaseException:
                with suppress(OSError):
                    os.unlink(file.name)
                raise
    except OSError as error:
        raise _failure(str(path), error) from error


@contextmanager
def _written_to(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("wb") as file:
            yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _failure(str(path), error) from error


@contextmanager
def emptied_after_errors(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """Yield *file*, standard output. If that is a regular file, it is truncated again after an error."""
    start = file.tell() if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None
    try:
        yield file
        file.flush()
    except BaseException as error:
        if start is not None:
            with suppress(OSError):
                file.flush()
            os.ftruncate(file.fileno(), start)
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            raise _failure("the archive", error) from error
        raise


def _failure(what: str, error: OSError) -> CacheFailure:
    kind = CacheFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else CacheFailure
    return kind(f"{what} cannot be written: {error.strerror}")
