"""What is looked at before a mount, and taking one away with words: for serve.py and the command line.

mount/mountpoint.py does the work; here are the checks that save the user a riddle, and the messages. Any thread.
"""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from regfs.errors import MountFailure
from regfs.mount import mountpoint as mountpoints

FUSE_DEVICE = "/dev/fuse"
FILE_SYSTEM_TYPE = "fuse.regfs"
_MOST_HOLDERS = 5


def prepare(point: str) -> list[str]:
    """Check that something can be mounted on *point*, and return notes for the user.

    A dead mount that a crashed regfs left there is detached. Raises MountFailure naming object, reason and remedy.
    """
    _refuse_hanging(point)
    notes = []
    if mountpoints.detach_dead(point):
        notes.append(f"removed the dead mount that a crashed regfs left on {point}")
    mountpoints.check(point)
    check_device()
    if os.geteuid() != 0 and not mountpoints.may_mount():
        mountpoints.helper("to mount")
        _check_ownership(point)
        if not os.path.exists(mountpoints.MTAB):
            notes.append(mountpoints.MTAB_REMEDY)
    if _has_entries(point):
        notes.append(f"{point} is not empty; what is in it is hidden until it is unmounted")
    return notes


def _refuse_hanging(point: str) -> None:
    """Raise MountFailure where the daemon of a mount on *point* hangs: all that follows would wait for it."""
    there = mountpoints.topmost(point)
    if there is None or there.kind != FILE_SYSTEM_TYPE:
        return
    from regfs.mount.inquiry import ask  # 3 ms that a start on a free directory does not need

    if ask([there], ("version",))[0].is_late:
        raise MountFailure(f"{point} is a mount that does not answer ({there.source}); regfs umount --force {point}")


def check_device() -> None:
    """Raise MountFailure, with the remedy, where this process cannot open /dev/fuse."""
    try:
        os.close(os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        raise MountFailure(
            f"{FUSE_DEVICE} is missing: modprobe fuse; in a container: --device {FUSE_DEVICE} --cap-add SYS_ADMIN "
            "[--security-opt apparmor=unconfined]"
        ) from None
    except PermissionError:
        found = os.stat(FUSE_DEVICE)
        raise MountFailure(
            f"{FUSE_DEVICE} may not be opened (mode {stat.S_IMODE(found.st_mode):04o}, owner {found.st_uid}): "
            f"chmod 666 {FUSE_DEVICE}, or run as root"
        ) from None
    except OSError as error:
        raise MountFailure(f"{FUSE_DEVICE}: {error.strerror}; is the fuse module loaded? modprobe fuse") from None


def umount(path: str, *, lazily: bool, by_force: bool = False) -> str:
    """Unmount the regfs on *path*, alive or dead, and return what to tell the user.

    *by_force* ends its connection first, so that a daemon that hangs holds up no process any longer.
    Raises MountFailure where something else or nothing is mounted there, or a process uses it, which it names;
    AccessDenied for a mount of another user.
    """
    point = mountpoints.resolved(path)
    mounted = mountpoints.mounted_at(point)
    if mounted is None:
        raise MountFailure(f"nothing is mounted on {point}")
    if mounted.kind != FILE_SYSTEM_TYPE:
        raise MountFailure(f"{point} is a mount of another kind ({mounted.kind}, {mounted.source}); umount {point}")
    mountpoints.check_may_unmount(mounted)
    _leave(point)
    gone = f"{mounted.source} is no longer mounted on {mountpoints.on_one_line(point)}"
    if by_force:
        if not mountpoints.abort(mounted.device, point):
            _kill_daemon(mounted.device)
        if mountpoints.topmost(point) != mounted:
            return gone  # one of the ways to end a connection takes the mount away with it
    try:
        mountpoints.unmount(point, lazily=lazily or by_force)
    except MountFailure as failure:
        if by_force:
            raise MountFailure(
                f"{failure}; its daemon has been cut off, and what is left is a dead mount: as root, umount -l {point}"
            ) from None
        holders = list(holding(point))
        if "busy" not in str(failure).lower() or lazily:
            raise
        raise MountFailure(
            f"{point} is in use{_by(holders)}; regfs umount --lazy {point} takes it away all the same"
        ) from None
    return gone


def _leave(point: str) -> None:
    """Leave the directory *point*, where this process works in it or below: it would keep the mount busy itself."""
    here = os.readlink("/proc/self/cwd")
    if here == point or here.startswith(f"{point}/"):
        os.chdir("/")


def _kill_daemon(device: str) -> None:
    """Kill the daemon of the FUSE connection *device*: without the control file system only its end ends that.

    It is found by its descriptor (fdinfo of /dev/fuse, from Linux 6.14 on), and held by another, so that no process
    that has its id by now is meant.
    """
    connection = f"fuse_connection:\t{device.partition(':')[2]}\n"
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            process = os.pidfd_open(int(pid))
            try:
                fds = [fd for fd in os.listdir(f"/proc/{pid}/fd") if os.readlink(f"/proc/{pid}/fd/{fd}") == FUSE_DEVICE]
                if any(connection in Path(f"/proc/{pid}/fdinfo/{fd}").read_text() for fd in fds):
                    signal.pidfd_send_signal(process, signal.SIGKILL)
            finally:
                os.close(process)


def holding(point: str) -> Iterator[str]:
    """Yield `name (pid 12, working directory)` of each visible process that holds something below *point*."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for what, link in _links(pid):
            if link == point or link.startswith(f"{point}/"):
                yield f"{_name(pid)} (pid {pid}, {what})"
                break


def _by(holders: list[str]) -> str:
    if not holders:
        return ""
    more = f" and {len(holders) - _MOST_HOLDERS} more" if len(holders) > _MOST_HOLDERS else ""
    return f" by {', '.join(holders[:_MOST_HOLDERS])}{more}"


def _check_ownership(point: str) -> None:
    """Refuse what fusermount3 would: a directory that the user cannot write to, or a sticky one of somebody else."""
    status = os.stat(point)
    sticky_of_another = status.st_mode & stat.S_ISVTX and status.st_uid != os.geteuid()
    if sticky_of_another or not os.access(point, os.W_OK, effective_ids=True):
        raise MountFailure(
            f"{point} belongs to uid {status.st_uid}, and you may not mount there; use a directory of yours"
        )


def _has_entries(point: str) -> bool:
    try:
        with os.scandir(point) as entries:
            return next(entries, None) is not None
    except OSError:
        return False  # unreadable is no obstacle to mounting


def _links(pid: str) -> Iterator[tuple[str, str]]:
    """Yield what a process holds, by reading links alone: following one could wait for a dead daemon."""
    named = [("working directory", "cwd"), ("root", "root"), ("program", "exe")]
    try:
        named += [("open file", f"fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        pass  # another user's process, or gone by now
    for what, name in named:
        try:
            yield what, os.readlink(f"/proc/{pid}/{name}")
        except OSError:
            continue  # as above


def _name(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return "a process"
