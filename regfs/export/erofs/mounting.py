"""Mounts an EROFS image with the layers' data files as its devices, read-only or below a writable overlay.

Everything is opened first, and mounted by descriptor: so the checked files are mounted, whatever is renamed meanwhile.
The mount is attached when it is complete, so a killed process leaves none.

Used by verbs/mount.py and verbs/run.py. One thread, whose process changes its working directory for a moment.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from regfs.errors import MountFailure
from regfs.export.erofs.cached import can_keep, open_data_files, open_erofs, scratch_directory
from regfs.export.overlay import escaped, insist_on_unused, lock_upper, overlay_options, prepare_upper
from regfs.model.names import ONE_IMAGE
from regfs.mount.mount_api import (
    NO_DEVICES,
    NO_EXEC,
    NO_SUID,
    READ_ONLY,
    VALUE_MAX,
    Refused,
    attach,
    keep_mounts_private,
    make_mount,
    map_ids,
)
from regfs.mount.mountpoint import CONTAINER_REMEDY, may_mount
from regfs.process.syscalls import NEW_MOUNTS, unshare
from regfs.process.threads import start_thread
from regfs.rootfs.rootfs import Rootfs
from regfs.store.eviction.inventory import EROFS, IMAGES, INGESTS, LAYERS
from regfs.store.layers.ingest_directories import ingest_directory
from regfs.store.layers.layer_store import LayerStore

_BACKING_DEVICES = Path("/sys/class/bdi")
_READ_AHEAD_KB = 512  # the kernel's own is 128; with 2,048 a cold read took longer again
_NEEDED = (6, 12)
_NEEDS_FILES = "EROFS on files needs Linux 6.12 or newer, with CONFIG_EROFS_FS_BACKED_BY_FILE"
_SAYS = {
    errno.ENOTBLK: f"this kernel takes no files for EROFS: {_NEEDS_FILES}",
    errno.ENODEV: "this kernel has no EROFS (CONFIG_EROFS_FS)",
    errno.EPERM: "the kernel does not allow it: CAP_SYS_ADMIN in the first user namespace is needed",
}


def reason_against(cache: Path) -> str:
    """Return why this process, run by root, cannot mount images of *cache*; "" if no reason is known."""
    if not may_mount():
        return CONTAINER_REMEDY
    release = os.uname().release
    if tuple(map(int, re.findall(r"\d+", release)[:2])) < _NEEDED:
        return f"this is Linux {release}: {_NEEDS_FILES}"
    for path in (cache, cache / IMAGES, cache / LAYERS):
        if path.exists() and (reason := _others_may_write(path, path.stat())):
            # The kernel trusts the image: a user that can write it could attack the kernel.
            return f"{reason}: the kernel mounts images of a cache that root alone may write"
    return ""


def mount_image(
    rootfs: Rootfs,
    store: LayerStore,
    point: str,
    *,
    name: str,
    allow_suid: bool = False,
    allow_dev: bool = False,
    noexec: bool = False,
    upper: Path | None = None,
    is_writable: bool = False,
    user_namespace: int | None = None,
) -> None:
    """Mount *rootfs*, all layers of which are in *store*, on the directory *point*; *name* is shown as the source.

    With *is_writable*, changes go to the directories `upper` and `work` below *upper*, which is made, or into memory
    where that is None. *user_namespace*, a descriptor, maps owners. Raises MountFailure, Unsupported for names that
    EROFS cannot hold, CacheFailure.
    """
    attributes = (0 if allow_suid else NO_SUID) | (0 if allow_dev else NO_DEVICES) | (NO_EXEC if noexec else 0)
    opened = [detached_mount(rootfs, store, name=name, attributes=attributes)]
    try:
        with _explained(f"on {point}"):
            if user_namespace is not None:
                map_ids(opened[0], user_namespace)
            if is_writable:
                opened.append(_overlay(opened[0], upper, name, attributes, store))
            attach(opened[-1], point)
    finally:
        for fd in reversed(opened):
            os.close(fd)


def detached_mount(rootfs: Rootfs, store: LayerStore, *, name: str, attributes: int) -> int:
    """Return a descriptor of a read-only mount of *rootfs* that is attached nowhere; close() removes it.

    *attributes* are those of mount_api.make_mount(). Raises what mount_image() does.
    """
    opened = [open_erofs(rootfs, store)]
    try:
        opened += open_data_files(rootfs, store)
        _insist_on_root(
            [rootfs.merged.path.with_suffix(EROFS), *(store.data_path(layer) for layer in rootfs.diff_ids)], opened
        )
        with _explained(name):
            return _erofs(opened, store, name, attributes | READ_ONLY)
    finally:
        for fd in reversed(opened):
            os.close(fd)


def _erofs(opened: Sequence[int], store: LayerStore, name: str, attributes: int) -> int:
    """Return a mount of the image `opened[0]`; its devices follow."""
    image, *files = opened
    devices = [("device", f"/proc/self/fd/{fd}") for fd in files]
    with (
        _directory(store) as directory,
        _source(directory, name, image) as source,
        _reading_further_ahead(),
    ):
        return make_mount("erofs", [("source", source), *devices], attributes=attributes)


@contextmanager
def _reading_further_ahead() -> Iterator[None]:
    """Make the kernel read further ahead in what is mounted in the block.

    Reading a whole image from a cold disk takes a fifth less time then, and a quarter less CPU time. The kernel makes a
    backing device for each EROFS on files, with a number that it uses once; the device can only be found as one that is
    new after the block. One that another process mounts meanwhile gets the same read-ahead.
    """
    before = _backing_devices()
    yield
    for name in _backing_devices() - before:
        with suppress(OSError):  # gone already, or /sys cannot be written
            (_BACKING_DEVICES / name / "read_ahead_kb").write_text(f"{_READ_AHEAD_KB}\n")


def _backing_devices() -> set[str]:
    """Return the names of the backing devices of EROFS on files. Source: the kernel's sysfs-class-bdi."""
    with suppress(OSError):
        return {name for name in os.listdir(_BACKING_DEVICES) if name.startswith("erofs-")}
    return set()


@contextmanager
def _directory(store: LayerStore) -> Iterator[Path]:
    """Yield a directory for a while, in the cache if that can be written."""
    with ExitStack() as stack:
        if can_keep(store):
            yield stack.enter_context(ingest_directory(store.root / INGESTS))
        else:
            yield Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="regfs-", dir=scratch_directory())))


@contextmanager
def _source(directory: Path, name: str, fd: int) -> Iterator[str]:
    """Yield a relative path to *fd* that names the image: `df` and mount(8) show it as the source."""
    shown = _shown(name)
    path = directory / shown
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(f"/proc/self/fd/{fd}")
    before = os.open(".", os.O_PATH | os.O_CLOEXEC)
    try:
        os.chdir(directory)
        yield shown
    finally:
        os.fchdir(before)
        os.close(before)


def _shown(name: str) -> str:
    shown = f"{ONE_IMAGE}{name}"
    return shown if len(shown.encode()) <= VALUE_MAX else f"{ONE_IMAGE}{name.rpartition('@')[2]}"


def _overlay(lower: int, upper: Path | None, name: str, attributes: int, store: LayerStore) -> int:
    """Return an overlay over the mount *lower*, which is attached nowhere, as the result is.

    Before Linux 6.15, the layers of an overlay have to be attached in the mount namespace of the thread that makes it
    (clone_private_mount() of fs/namespace.c). So a thread gets one of its own, which ends with it.
    """
    made: Future[int] = Future()

    def make(directory: Path) -> None:
        try:
            unshare(NEW_MOUNTS)  # from now on the working directory is that of this thread alone
            keep_mounts_private()
            made.set_result(_attached_overlay(lower, upper, name, attributes, directory))
        except BaseException as error:
            made.set_exception(error)

    if upper is not None:
        upper.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _directory(store) as directory, lock_upper(upper, option="--writable"):
        start_thread(make, directory, name="regfs-overlay").join()
        return made.result()


def _attached_overlay(lower: int, upper: Path | None, name: str, attributes: int, directory: Path) -> int:
    """Return the overlay, after its layers were attached below *directory*, for this thread's mount namespace alone."""
    os.chdir(directory)  # an option is at most VALUE_MAX long
    os.mkdir("lower")
    attach(lower, "lower")
    if upper is None:
        memory = make_mount("tmpfs", [("source", _shown(name)), ("mode", "0700")], attributes=attributes)
        os.mkdir("memory")
        attach(memory, "memory")
        os.close(memory)
        where = Path("memory")
    elif len(os.fsencode(escaped(f"{upper}/upper"))) <= VALUE_MAX:
        where = upper
    else:
        where = Path("upper")
        where.symlink_to(upper)
    prepare_upper(where, Path("lower"))
    insist_on_unused(where, shown=f"--writable={upper}")
    return make_mount(
        "overlay", overlay_options("lower", where, is_root=True, source=_shown(name)), attributes=attributes
    )


def _insist_on_root(paths: Sequence[Path], opened: Sequence[int]) -> None:
    """Raise MountFailure where users other than root may write the mounted files."""
    for path, fd in zip(paths, opened, strict=True):
        if reason := _others_may_write(path, os.fstat(fd)):
            raise MountFailure(f"{reason}: the kernel mounts images of a cache that root alone may write")


def _others_may_write(path: Path, status: os.stat_result) -> str:
    if status.st_uid != 0:
        return f"{path} belongs to uid {status.st_uid}"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others than root may write {path} (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except Refused as error:
        raise MountFailure(f"cannot mount {what}: {_SAYS.get(error.errno or 0, error.strerror)}") from None
    except OSError as error:
        raise MountFailure(f"cannot mount {what}: {error.filename or ''} {error.strerror}".strip()) from error
