"""The writable side of an overlay over an image's files: its directories and options.

    UPPER/upper     what was written
    UPPER/work      the kernel's

Used by export/container/. Source: the kernel's Documentation/filesystems/overlayfs.rst. Any thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def prepare_upper(upper: Path, lower: Path) -> None:
    """Make the two directories below *upper*, where they are not there yet.

    The new upper one gets the attributes of the directory *lower*, because an overlay shows those of its upper one.
    Raises OSError.
    """
    (upper / "work").mkdir(mode=0o700, exist_ok=True)
    if (upper / "upper").exists():
        return
    made = upper / ".upper"  # renamed when it is whole
    made.mkdir(mode=0o700, exist_ok=True)
    status = os.stat(lower)
    with suppress(OSError):  # an owner without a place in this user namespace
        os.chown(made, status.st_uid, status.st_gid)
    os.chmod(made, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(lower):
        with suppress(OSError):  # a disk without, or without the right
            os.setxattr(made, name, os.getxattr(lower, name))
    os.utime(made, ns=(status.st_mtime_ns, status.st_mtime_ns))
    made.rename(upper / "upper")


def overlay_options(lower: str, upper: Path, *, is_root: bool) -> Iterator[tuple[str, str | None]]:
    """Yield the options of the overlay. One of an ordinary user keeps its marks in attributes of users (5.11)."""
    yield "source", "regfs"
    yield "lowerdir", lower
    yield "upperdir", os.fspath(upper / "upper")
    yield "workdir", os.fspath(upper / "work")
    if not is_root:
        yield "userxattr", None
