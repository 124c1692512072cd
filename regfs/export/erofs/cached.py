"""Keeps the EROFS image of an image in the cache, beside its merged table: written at first use, checked at each.

    images/<chain id>.erofs      the image
    images/<chain id>.sums       a line for it, beside that of the merged table
    images/.erofs-*              one that is being written, locked by its writer
    /var/tmp                     a file without a name, where the cache cannot be written

The kernel parses the file, so it must be as it was written: its checksum is compared, by the descriptor that is
mounted. That also finds a file that a power cut has torn, which is written again; so no write waits for the disk. The
sum of a million names takes 0.2 s: so an xattr of the file records boot, size and time of the last check.

Used by mounting.py. Thread rule: one thread; any number of processes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from regfs.errors import CacheDamaged, CacheFailure
from regfs.export.erofs.image import is_current, write_image
from regfs.export.erofs.names import Names
from regfs.rootfs.rootfs import Rootfs
from regfs.store.eviction.inventory import EROFS
from regfs.store.files.boot_id import boot_id
from regfs.store.files.cached_files import open_file, put, take_away
from regfs.store.files.checksums import SUFFIX as SUMS
from regfs.store.files.checksums import format_sums, load_sums
from regfs.store.files.failures import failures_of
from regfs.store.files.replaced_files import replace_file
from regfs.store.layers.data_writer import TAR
from regfs.store.layers.layer_store import LayerStore
from regfs.store.locks.file_locks import changing, new_locked_file, touch

log = logging.getLogger(__name__)

_READ = 1 << 20
_ON_DISK = Path("/var/tmp")  # noqa: S108 (files there get no name)
_SOUND = "user.regfs.sound"


def open_erofs(rootfs: Rootfs, store: LayerStore) -> int:
    """Return a descriptor of the EROFS image of *rootfs*, which is verified; writes it where it is missing.

    Takes 10 us for each name to write one. *rootfs* keeps the image and its layers from eviction. One that the cache
    cannot keep lives as long as its mount. Raises Unsupported for names that EROFS cannot hold, CacheFailure.
    """
    path = rootfs.merged.path.with_suffix(EROFS)
    fd = _open_sound(store.root, path)
    if fd is not None:
        touch(path)
        return fd
    if not can_keep(store):
        return _unkept(Names(rootfs))
    with failures_of(path):
        store.budget.reserve_table(rootfs.size_of_tables())
        return _written(store.root, path, Names(rootfs))


def can_keep(store: LayerStore) -> bool:
    """Tell whether the cache can be written: its file system may be read-only."""
    return os.access(store.root, os.W_OK)


def scratch_directory() -> Path:
    """Return the directory for what the cache cannot keep; on a disk, for EROFS takes no file of a tmpfs."""
    directory = tempfile.gettempdir()
    return _ON_DISK if directory == "/tmp" and os.access(_ON_DISK, os.W_OK) else Path(directory)  # noqa: S108


def open_data_files(rootfs: Rootfs, store: LayerStore) -> list[int]:
    """Return descriptors of the data files of the layers of *rootfs*, base first, each as long as its index says.

    The caller has fetched all of them. (A mount that fetches on demand could get descriptors of other files: one for
    each layer, on a private FUSE file system. The image has all names and attributes, so the kernel would ask that file
    system only for bytes that were not read yet.)

    Raises CacheDamaged where one is missing, incomplete or too short; CacheFailure.
    """
    opened: list[int] = []
    try:
        for layer, index in zip(rootfs.diff_ids, rootfs.layers, strict=True):
            path, layout = store.data_path(layer), index.layout()
            # Missing bytes would be read as zeros.
            if layout.source != TAR and not store.is_complete(layer):
                raise CacheDamaged(f"{path}: bytes of it are missing, or not what the layer's table says")
            with failures_of(path):
                try:
                    opened.append(open_file(path))
                except FileNotFoundError as error:
                    raise CacheDamaged(f"{path}: it is gone from the cache") from error
                if (found := os.fstat(opened[-1]).st_size) != layout.size:
                    raise CacheDamaged(f"{path} has {found} bytes, not {layout.size}")
    except BaseException:  # Ctrl-C too: no descriptor must stay open
        for fd in opened:
            os.close(fd)
        raise
    return opened


def _open_sound(root: Path, path: Path) -> int | None:
    """Return a descriptor of the image at *path* if its checksum is right; None where it is wrong or missing."""
    try:
        fd = open_file(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CacheFailure(f"{path}: {error.strerror}") from error
    try:
        if not _is_as_written(root, path, fd):
            log.warning("%s is not as it was written, and is written again", path)
        elif not is_current(fd):
            log.info("%s was written by another release, and is written again", path)
        else:
            return fd
    except (OSError, ValueError) as error:
        log.warning("%s is written again: %s", path, error)
    os.close(fd)
    return None


def _is_as_written(root: Path, path: Path, fd: int) -> bool:
    """Whether the image *fd*, which is at *path*, has the right checksum. Raises OSError, ValueError."""
    status = os.fstat(fd)
    mark = f"{boot_id()} {status.st_ino} {status.st_size} {status.st_mtime_ns}".encode()
    with suppress(OSError):  # none yet, or no xattrs on this disk
        if os.getxattr(fd, _SOUND) == mark:
            return True
    expected = load_sums(path.with_suffix(SUMS)).get(path.relative_to(root).as_posix())
    if expected != _sha256(fd):
        return False
    with suppress(OSError):
        os.setxattr(fd, _SOUND, mark)
    return True


def _unkept(names: Names) -> int:
    """Write the image of *names* to a file without a name and return a descriptor to read it. Raises CacheFailure."""
    scratch = scratch_directory()
    with failures_of(scratch), tempfile.TemporaryFile(dir=scratch) as file:
        write_image(file.fileno(), names, scratch=scratch)
        # Opened again to be read: EROFS takes no file that is open for writing.
        return os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)


def _written(root: Path, path: Path, names: Names) -> int:
    """Write the image of *names* to *path* and return a descriptor to read it. Raises OSError."""
    fd, temporary = new_locked_file(path.parent, ".erofs-")
    try:
        write_image(fd, names, scratch=path.parent)
        os.fchmod(fd, 0o600)
        sha256 = _sha256(fd)
        # Opened again to be read: EROFS takes no file that is open for writing.
        reading = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with changing(root):
                # After a kill in the middle the image is missing, or its checksum is right.
                take_away(path)
                _add_sum(path.with_suffix(SUMS), path.relative_to(root).as_posix(), sha256)
                put(temporary, path)
        except BaseException:  # a full disk, or Ctrl-C: the descriptor must not stay open
            os.close(reading)
            raise
        return reading
    except BaseException:  # also on Ctrl-C: half an image must not stay in the cache
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    finally:
        os.close(fd)


def _add_sum(sums_path: Path, name: str, sha256: str) -> None:
    """Add a line to the sums of an image, atomically, for a file that gets its name after it."""
    sums = load_sums(sums_path) | {name: sha256}
    replace_file(sums_path, format_sums(sums), is_flushed=True)


def _sha256(fd: int) -> str:
    """Return the hexadecimal sha256 of the file *fd*. Raises OSError."""
    digest, at = hashlib.sha256(), 0
    while content := os.pread(fd, _READ, at):
        digest.update(content)
        at += len(content)
    return digest.hexdigest()
