"""`regfs umount`: unmount a regfs, alive or dead; where it is in use, name the processes that use it.

mount/mountpoint.py unmounts; this module has the order of the steps and the messages. Any thread. Blocks on umount(2)
and fusermount3; a daemon that hangs blocks it too, unless *by_force*.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from regfs.errors import AccessDenied, MountFailure
from regfs.mount import mountpoint as mountpoints
from regfs.mount.device import DEVICE

_MOST_HOLDERS = 5


class Unmounted(NamedTuple):
    """What is no longer mounted: the *source*, a registry or an image, and a *note* where others still have it."""

    mountpoint: str
    source: str
    note: str = ""

    def text(self) -> str:
        """Return what to tell the user."""
        gone = f"{self.source} is no longer mounted on {mountpoints.on_one_line(self.mountpoint)}"
        return f"{gone}; {self.note}" if self.note else gone


def is_mounted(path: str) -> bool:
    """Tell whether anything is mounted on *path*."""
    return mountpoints.mounted_at(mountpoints.resolved(path)) is not None


def umount(path: str, *, lazily: bool, by_force: bool = False) -> Unmounted:
    """Unmount the regfs on *path*, alive or dead.

    *by_force* aborts the FUSE connection first, so that no process waits for a hanging daemon any longer. Raises
    MountFailure where something else or nothing is mounted there, or a process uses it, which it names; AccessDenied
    for a mount of another user.
    """
    point = mountpoints.resolved(path)
    mounted = mountpoints.mounted_at(point)
    if mounted is None:
        raise MountFailure(f"nothing is mounted on {point}")
    if mounted.is_kernel_mount:
        _unmount_from_kernel(mounted, lazily=lazily or by_force)
        return Unmounted(point, mounted.image, _still_there(mounted))
    if not mounted.is_regfs:
        raise MountFailure(f"{point} is a mount of another kind ({mounted.kind}, {mounted.source}); umount {point}")
    mountpoints.check_may_unmount(mounted)
    _leave(point)
    source = mounted.image or mounted.source
    if by_force:
        if not mountpoints.abort(mounted.device, point):
            _kill_daemon(mounted.device)
        if mountpoints.topmost(point) != mounted:
            return Unmounted(point, source)  # killing the daemon removed the mount as well
    try:
        _unmount(point, lazily=lazily or by_force)
    except MountFailure as failure:
        if by_force:
            raise MountFailure(
                f"{failure}; its daemon has been cut off, and what is left is a dead mount: as root, umount -l {point}"
            ) from None
        raise
    return Unmounted(point, source, "" if by_force else _still_there(mounted))


def _unmount_from_kernel(mounted: mountpoints.Mounted, *, lazily: bool) -> None:
    """Unmount what the kernel serves by itself, which has no daemon to end."""
    point = mounted.mountpoint
    if not mountpoints.may_mount():
        raise AccessDenied(f"{mountpoints.on_one_line(point)}: root has mounted it, and root alone may unmount it")
    _leave(point)
    _unmount(point, lazily=lazily)


def _unmount(point: str, *, lazily: bool) -> None:
    """Unmount what is on *point*. Raises MountFailure, which names the processes that use it."""
    try:
        mountpoints.unmount(point, lazily=lazily)
    except MountFailure as failure:
        if "busy" not in str(failure).lower() or lazily:
            raise
        holders = list(holding(point))
        raise MountFailure(
            f"{point} is in use{_by(holders)}; regfs umount --lazy {point} unmounts it all the same"
        ) from None


def _still_there(mounted: mountpoints.Mounted) -> str:
    """Return a text about other mount namespaces that still have what was *mounted*, "" if none has."""
    holders = list(elsewhere(mounted))
    if not holders:
        return ""
    stays = "its files stay in the cache" if mounted.is_kernel_mount else "its daemon runs"
    those = _by(holders).removeprefix(" by")
    return f"other mount namespaces still have it, those of{those}: {stays} until they end"


def elsewhere(mounted: mountpoints.Mounted) -> Iterator[str]:
    """Yield `name (pid 12)` of one visible process in each other mount namespace that has *mounted*.

    unshare(1), containers and services copy all mounts, and an unmount here takes nothing from a private copy.
    """
    seen = {os.readlink("/proc/self/ns/mnt")}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
            if namespace in seen:
                continue
            seen.add(namespace)
            found = mountpoints.mounts(pid)
        except OSError:
            continue  # another user's process, or gone by now
        if any((each.device, each.source) == (mounted.device, mounted.source) for each in found):
            yield f"{_name(pid)} (pid {pid})"


def _leave(point: str) -> None:
    """Change to / if the working directory is in the mount at *point*: otherwise this process keeps it busy."""
    here = os.readlink("/proc/self/cwd")
    if here == point or here.startswith(f"{point}/"):
        os.chdir("/")


def _kill_daemon(device: str) -> None:
    """Kill the daemon of the FUSE connection *device*. Without the fuse control file system, only this ends it.

    The daemon is found by its descriptor (fdinfo of /dev/fuse, since Linux 6.14). It is killed through a pidfd, so that
    no other process is hit that has got its id meanwhile.
    """
    connection = f"fuse_connection:\t{device.partition(':')[2]}\n"
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            process = os.pidfd_open(int(pid))
            try:
                fds = [fd for fd in os.listdir(f"/proc/{pid}/fd") if os.readlink(f"/proc/{pid}/fd/{fd}") == DEVICE]
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


def _links(pid: str) -> Iterator[tuple[str, str]]:
    """Yield what a process holds. Links are read and never followed: following one could wait for a hanging daemon."""
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
