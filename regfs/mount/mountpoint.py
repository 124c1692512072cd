"""Mount points: finds what is mounted where and whether its daemon has died, and unmounts it.

Used by both drivers, the daemon, and the verbs. Nothing here sends a request to a live regfs: the daemon that stats its
own mount would wait for itself. Any thread; blocks only on umount(2) and on fusermount3.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from regfs.errors import AccessDenied, MountFailure
from regfs.model.names import ONE_IMAGE
from regfs.process.user import FALLBACK_PATH

log = logging.getLogger(__name__)

FILE_SYSTEM_TYPE = "fuse.regfs"
"""The type of regfs's mounts in /proc/mounts, whichever driver made them."""
MTAB = "/etc/mtab"
MTAB_REMEDY = f"{MTAB} is missing, without which fusermount3 unmounts nothing; as root: ln -s /proc/self/mounts {MTAB}"
CONTAINER_REMEDY = (
    "CAP_SYS_ADMIN is missing; in a container: --cap-add SYS_ADMIN --device /dev/fuse "
    "[--security-opt apparmor=unconfined]"
)
HELPER_TIMEOUT_S = 30.0
_HELPERS = ("fusermount3", "fusermount")
_MOST_LINKS = 40  # as path_resolution(7)
_MNT_FORCE = 1
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_OCTAL = re.compile(rb"\\([0-7]{3})")
_USER_ID = re.compile(rb"\buser_id=([0-9]+)")
_DEAD = (errno.ENOTCONN, errno.ECONNABORTED)


class Mounted(NamedTuple):
    """One line of /proc/self/mountinfo. *device* is "major:minor", the minor being the FUSE connection's number.

    *user_id* is the user who mounted a FUSE file system; None for other kinds. *root* is the directory of the file
    system that is mounted there: "/", or another one for a bind mount of a part.
    """

    mountpoint: str
    device: str
    kind: str
    source: str
    user_id: int | None = None
    root: str = "/"

    @property
    def is_regfs(self) -> bool:
        """Whether a regfs made it, with whichever driver."""
        return self.kind == FILE_SYSTEM_TYPE

    @property
    def is_kernel_mount(self) -> bool:
        """Whether `regfs mount` made it, and the kernel serves it without a daemon."""
        return self.kind in ("erofs", "overlay") and self.source.startswith(ONE_IMAGE)

    @property
    def image(self) -> str:
        """The name of the one image that a mount shows; empty where it shows registries."""
        return self.source.removeprefix(ONE_IMAGE) if self.source.startswith(ONE_IMAGE) else ""

    @property
    def is_whole(self) -> bool:
        """Whether all of the file system is shown: `.regfs` is there then."""
        return self.root == "/"


@dataclass(frozen=True, slots=True)
class OwnMount:
    """The mount that a session has made. Its *device* ("major:minor") tells it from a later mount at the same path."""

    path: str
    device: str

    @classmethod
    def at(cls, path: str) -> OwnMount:
        """Return the mount that was just made on *path*, a result of `resolved`."""
        mounted = topmost(path)
        return cls(path, mounted.device if mounted is not None else "")

    def is_there(self) -> bool:
        """Return whether this mount still exists and is the topmost one on its path."""
        there = topmost(self.path)
        return there is not None and there.device == self.device

    def unmount(self, *, lazily: bool = False) -> None:
        """Unmount it, as `unmount` does. Raises MountFailure, also if another mount is on top of it."""
        if not self.is_there():
            raise MountFailure(f"this daemon's mount is not on {self.path} any more")
        unmount(self.path, lazily=lazily)

    def abort(self) -> bool:
        """End its connection at once, as `abort` does; return whether that was possible."""
        return abort(self.device, self.path if self.is_there() else None)


def mounts(process: str = "self") -> list[Mounted]:
    """Return what is mounted in the mount namespace of *process*, in order: the last one at a path is on top (proc(5)).

    Raises OSError where *process*, the number of another one, is gone or another user's.
    """
    found = []
    for line in Path(f"/proc/{process}/mountinfo").read_bytes().split(b"\n")[:-1]:  # a name may have \r in it
        left, _, right = line.partition(b" - ")
        fields, kind_source = left.split(b" "), right.split(b" ")
        user = _USER_ID.search(right)
        found.append(
            Mounted(
                _text(fields[4]),
                _text(fields[2]),
                _text(kind_source[0]),
                _text(kind_source[1]),
                int(user[1]) if user is not None else None,
                _text(fields[3]),
            )
        )
    return found


def mounted_at(mountpoint: str) -> Mounted | None:
    """Return what is mounted on *mountpoint* itself, the topmost; None where nothing is."""
    return topmost(resolved(mountpoint))


def topmost(path: str) -> Mounted | None:
    """Return what is mounted on *path*, a result of `resolved`; sends no request to any mount."""
    return next((entry for entry in reversed(mounts()) if entry.mountpoint == path), None)


def is_automount(path: str) -> bool:
    """Return whether *path*, a result of `resolved`, is the trigger of an automount; sends no request to any mount."""
    there = topmost(path)
    return there is not None and there.kind == "autofs"


def resolved(mountpoint: str) -> str:
    """Return the absolute path without links, as mountinfo has it; sends no request to what is mounted there."""
    path = os.path.abspath(mountpoint)
    if topmost(path) is not None:
        return path
    parent, name = os.path.split(path)
    if os.path.islink(path):
        return os.path.realpath(path)
    return os.path.join(os.path.realpath(parent), name)


class MountedPath(NamedTuple):
    """A path in a mount: the mount point, and the path below it, '' for the mount point itself."""

    mountpoint: str
    path: str


def inside(path: str, mountpoints: Collection[str]) -> MountedPath | None:
    """Return which of *mountpoints* contains *path*, following symbolic links up to there; None if none does.

    Nothing below a mount point is looked at: its daemon may hang.
    """
    path = os.path.abspath(path)
    for _ in range(_MOST_LINKS):
        walked, rest = "/", path.split("/")[1:]
        while rest:
            walked = os.path.join(walked, rest.pop(0))
            if walked in mountpoints:
                return MountedPath(walked, "/".join(rest))
            try:
                target = os.readlink(walked)
            except OSError:
                continue  # no link
            path = os.path.abspath(os.path.join(os.path.dirname(walked), target, *rest))
            break
        else:
            return None
    return None


def on_one_line(path: str) -> str:
    """Return *path* for a line of text, with control characters escaped."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", path)


def is_dead(mountpoint: str) -> bool:
    """Return whether the FUSE daemon of the mount here has died. The daemon of a live mount must not ask this."""
    try:
        os.statvfs(mountpoint)  # unlike stat, never answered from what the kernel remembers of the root
    except OSError as error:
        return error.errno in _DEAD
    return False


def check(mountpoint: str) -> None:
    """Raise MountFailure, with the remedy, if nothing can be mounted on *mountpoint*, as on a dead mount."""
    if mountpoint == "/":  # the kernel allows it, but no path leads there: it could be neither seen nor unmounted
        raise MountFailure("nothing that is mounted on / could be seen; name another directory")
    try:
        mode = os.stat(mountpoint).st_mode
    except FileNotFoundError:
        raise MountFailure(f"{mountpoint} does not exist; create it: mkdir {mountpoint}") from None
    except OSError as error:
        if error.errno in _DEAD:
            raise MountFailure(f"{mountpoint} is a dead mount; regfs umount {mountpoint}") from None
        raise MountFailure(f"{mountpoint}: {error.strerror}") from error
    if not stat.S_ISDIR(mode):
        raise MountFailure(f"{mountpoint} is not a directory")
    there = mounted_at(mountpoint)
    if there is not None and there.kind.startswith("fuse"):
        raise MountFailure(f"{mountpoint} is already a mount ({there.kind}, {there.source}); regfs umount {mountpoint}")


def detach_dead(mountpoint: str) -> bool:
    """Unmount the dead regfs mounts that crashed daemons left on *mountpoint*; return whether there was one.

    Raises MountFailure if one cannot be unmounted.
    """
    removed = False
    while is_dead(mountpoint):
        there = mounted_at(mountpoint)
        if there is None or not there.is_regfs:
            break
        unmount(mountpoint, lazily=True)
        removed = True
    return removed


def unmount(mountpoint: str, *, lazily: bool = False) -> None:
    """Unmount *mountpoint* with umount2(2), or with fusermount3 if that is not permitted. Raises MountFailure.

    *lazily* detaches a busy mount at once; processes inside keep being served.
    """
    flags = _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazily else 0)
    number = _umount2(mountpoint, flags)
    if number == 0:
        return
    if number != errno.EPERM:
        raise MountFailure(f"cannot unmount {mountpoint}: {_reason(number)}")
    _check_helper()
    call = [helper("to unmount"), "-u", *(["-z"] if lazily else []), "--", mountpoint]
    done = subprocess.run(call, capture_output=True, text=True, errors="replace", timeout=HELPER_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise MountFailure(f"cannot unmount {mountpoint}: {done.stderr.strip() or f'{call[0]} failed'}")


def check_may_unmount(mounted: Mounted) -> None:
    """Raise an error with the remedy if this process cannot unmount *mounted*, dead or alive.

    Call it before ending the daemon: otherwise a dead mount would stay. Raises AccessDenied for a mount of another
    user, otherwise MountFailure.
    """
    if may_mount():
        return
    point = on_one_line(mounted.mountpoint)
    if os.geteuid() == 0:
        raise MountFailure(f"cannot unmount {point}: {CONTAINER_REMEDY}")
    if mounted.user_id not in (None, os.getuid()):
        raise AccessDenied(f"{point}: it is a mount of another user (uid {mounted.user_id})")
    _check_helper()


def may_mount() -> bool:
    """Return whether this process may call mount(2): it has CAP_SYS_ADMIN, perhaps in its own user namespace."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> 21 & 1)
    return False


def abort(device: str, mountpoint: str | None = None) -> bool:
    """End the FUSE connection *device* ("major:minor") at once, even while it is in use; return whether that worked.

    If the FUSE control file system is not mounted, *mountpoint* is unmounted with MNT_FORCE and MNT_DETACH instead.
    """
    control = Path("/sys/fs/fuse/connections", device.partition(":")[2], "abort")
    try:
        control.write_bytes(b"1")
    except OSError:
        return mountpoint is not None and _umount2(mountpoint, _UMOUNT_NOFOLLOW | _MNT_FORCE | _MNT_DETACH) == 0
    return True


def set_read_ahead(device: str, size: int) -> None:
    """Make the kernel read *size* bytes ahead in the file system *device*, not 128 KiB; only root may set it."""
    if not device:
        return
    try:
        Path("/sys/class/bdi", device, "read_ahead_kb").write_text(str(size // 1024))
    except OSError as error:
        log.debug("read-ahead stays as it is: %s", error.strerror)


def helper(purpose: str) -> str:
    """Return the path of the set-user-id program that mounts for ordinary users; *purpose* completes the message."""
    for name in _HELPERS:
        for path in (None, FALLBACK_PATH):
            found = shutil.which(name, path=path)
            if found is not None:
                return found
    raise MountFailure(
        f"fusermount3 is not installed (needed {purpose} because you are not root): "
        "apt install fuse3 / dnf install fuse3 / apk add fuse3 / pacman -S fuse3"
    )


def _check_helper() -> None:
    helper("to unmount")
    if not os.path.exists(MTAB):
        raise MountFailure(MTAB_REMEDY)


def _umount2(mountpoint: str, flags: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    return 0 if libc.umount2(os.fsencode(mountpoint), flags) == 0 else ctypes.get_errno()


def _reason(number: int) -> str:
    if number == errno.EBUSY:
        return "it is busy (a working directory or an open file of a process is in it)"
    if number == errno.EINVAL:
        return "nothing is mounted there"
    return os.strerror(number)


def _text(field: bytes) -> str:
    if b"\\" in field:
        field = _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field)
    return os.fsdecode(field)
