"""The writable side of an overlay over an image's files: its directories and options.

    UPPER/upper     the changes
    UPPER/work      the kernel's

Used by export/erofs/mounting.py and by export/container/. Source: the kernel's Documentation/filesystems/overlayfs.rst.
Any thread.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from regfs.errors import MountFailure
from regfs.mount.mount_api import Refused, make_mount

_FREED_S, _LOOK_S = 1.0, 0.05


@contextmanager
def lock_upper(upper: Path | None, *, option: str) -> Iterator[None]:
    """Lock the directory *upper*, which *option* names: two overlays in one directory destroy each other's files.

    Locks nothing where *upper* is None. Raises MountFailure where another process has locked it, OSError.
    """
    if upper is None:
        yield
        return
    descriptor = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise MountFailure(f"{option} {upper}: another regfs run or regfs mount is using it") from None
    finally:
        os.close(descriptor)


def insist_on_unused(upper: Path, *, shown: str) -> None:
    """Raise MountFailure where a mounted overlay, in any mount namespace, has its changes below *upper*.

    Call prepare_upper() before. *shown* names the directory in the message. Only the kernel knows: with an index of
    files it refuses an upper directory that is in use, without one it only warns. So this asks the kernel for an
    overlay that can never be made, because its lower directory is its upper one; the kernel checks that after the upper
    directory (ovl_get_upper() and ovl_get_layers() of fs/overlayfs/super.c). A process that enters a mount namespace of
    its own holds a copy of all mounts for a moment, also of one that is unmounted meanwhile: so this tries again for a
    second.
    """
    options = [("lowerdir", escaped(f"{upper}/upper")), *_upper_options(upper), ("index", "on")]
    over = time.monotonic() + _FREED_S
    while True:
        try:
            os.close(make_mount("overlay", options, attributes=0))
            return
        except Refused as error:
            if error.errno != errno.EBUSY:
                return
            if time.monotonic() > over:
                raise MountFailure(
                    f"{shown}: an overlay that is mounted has its changes there; unmount it first"
                ) from None
            time.sleep(_LOOK_S)


def prepare_upper(upper: Path, lower: Path) -> None:
    """Make the two directories below *upper* if they do not exist yet.

    The new upper one gets the attributes of the directory *lower*, because an overlay shows those of its upper one.
    Raises OSError.
    """
    (upper / "work").mkdir(mode=0o700, exist_ok=True)
    if (upper / "upper").exists():
        return
    made = upper / ".upper"  # renamed when it is whole
    made.mkdir(mode=0o700, exist_ok=True)
    status = os.stat(lower)
    with suppress(OSError):  # an owner without an id in this user namespace
        os.chown(made, status.st_uid, status.st_gid)
    os.chmod(made, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(lower):
        with suppress(OSError):  # a disk without xattrs, or no right to set them
            os.setxattr(made, name, os.getxattr(lower, name))
    os.utime(made, ns=(status.st_mtime_ns, status.st_mtime_ns))
    made.rename(upper / "upper")


def overlay_options(
    lower: str, upper: Path, *, is_root: bool, source: str = "regfs"
) -> Iterator[tuple[str, str | None]]:
    """Yield the options of the overlay. An ordinary user's keeps its marks in user.* attributes (Linux 5.11)."""
    yield "source", source
    yield "lowerdir", escaped(lower)
    yield from _upper_options(upper)
    if not is_root:
        yield "userxattr", None


def _upper_options(upper: Path) -> Iterator[tuple[str, str]]:
    yield "upperdir", escaped(f"{upper}/upper")
    yield "workdir", escaped(f"{upper}/work")


def escaped(directory: str) -> str:
    """Return *directory* as the overlay's options have it: a colon separates lower directories."""
    return directory.replace("\\", "\\\\").replace(":", "\\:")
