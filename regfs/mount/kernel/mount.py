"""Mounting without libfuse: /dev/fuse and mount(2), or the helper program for ordinary users.

Used by kernel/session.py. mount(2) is tried first whatever the user is: in a user namespace it works without being
root, and so without any helper (user_namespaces(7), FUSE since Linux 4.18). Descriptors are close-on-exec: a child
that inherits one keeps a dead mount hanging. Blocks on no network. Any thread.
"""

from __future__ import annotations

import array
import ctypes
import errno
import os
import socket
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from regfs.errors import MountFailure
from regfs.mount import mountpoint as mountpoints

DEVICE = "/dev/fuse"
_MS_RDONLY = 1
_MS_NOSUID = 2
_MS_NODEV = 4
_MS_NOEXEC = 8
_MS_NOATIME = 1024
_MSG_CMSG_CLOEXEC = 0x40000000
_APPARMOR_PROFILE = "/etc/apparmor.d/fusermount3"


@dataclass(frozen=True, slots=True)
class MountOptions:
    """How to mount. Always read-only; *source* is what mount(8) shows as the device, the default registry."""

    source: str = "regfs"
    allow_other: bool = False
    allow_suid: bool = False
    allow_dev: bool = False
    noexec: bool = False
    default_permissions: bool = False
    max_read: int = 0

    @property
    def checks_permissions(self) -> bool:
        """Whether the kernel checks modes: always when others may come in, or they could read what is root's alone."""
        return self.default_permissions or self.allow_other

    @property
    def flags(self) -> int:
        """Return the flags of mount(2). Read-only on the superblock also keeps reads from invalidating the atime."""
        flags = _MS_RDONLY | _MS_NOATIME
        flags |= 0 if self.allow_suid else _MS_NOSUID
        flags |= 0 if self.allow_dev else _MS_NODEV
        return flags | (_MS_NOEXEC if self.noexec else 0)

    def kernel_words(self, descriptor: int) -> str:
        """Return the option string of mount(2)."""
        words = [f"fd={descriptor}", f"rootmode={stat.S_IFDIR:o}", f"user_id={os.getuid()}", f"group_id={os.getgid()}"]
        return ",".join(words + self._common_words())

    def helper_words(self) -> str:
        """Return the option string of fusermount3: only words that every version takes (new ones refuse noatime)."""
        words = ["ro", "suid" if self.allow_suid else "nosuid", "dev" if self.allow_dev else "nodev"]
        words += ["noexec"] if self.noexec else []
        source = self.source.replace("\\", "\\\\").replace(",", "\\,")
        return ",".join([*words, f"fsname={source}", "subtype=regfs", *self._common_words()])

    def _common_words(self) -> list[str]:
        words = ["allow_other"] if self.allow_other else []
        words += ["default_permissions"] if self.checks_permissions else []
        return words + ([f"max_read={self.max_read}"] if self.max_read else [])


def mount(mountpoint: str, options: MountOptions) -> int:
    """Mount on *mountpoint* and return the descriptor on which the kernel will ask. Raises MountFailure."""
    descriptor = _open_device()
    try:
        number = _mount2(mountpoint, options, descriptor)
    except BaseException:  # whatever it is, a descriptor that nobody serves must not stay open
        os.close(descriptor)
        raise
    if number == 0:
        return descriptor
    os.close(descriptor)
    if number != errno.EPERM:
        raise MountFailure(f"cannot mount on {mountpoint}: {os.strerror(number)}")
    return _mount_with_helper(mountpoint, options)


def _open_device() -> int:
    try:
        return os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise MountFailure(
            f"{DEVICE} is missing: modprobe fuse; in a container: --device {DEVICE} --cap-add SYS_ADMIN "
            "[--security-opt apparmor=unconfined]"
        ) from None
    except PermissionError:
        found = os.stat(DEVICE)
        raise MountFailure(
            f"{DEVICE} may not be opened (mode {stat.S_IMODE(found.st_mode):04o}, owner {found.st_uid}): "
            f"chmod 666 {DEVICE}, or run as root"
        ) from None
    except OSError as error:
        raise MountFailure(f"{DEVICE}: {error.strerror}; is the fuse module loaded? modprobe fuse") from error


def _mount2(mountpoint: str, options: MountOptions, descriptor: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    source, words = os.fsencode(options.source), options.kernel_words(descriptor).encode()
    done = libc.mount(source, os.fsencode(mountpoint), b"fuse.regfs", ctypes.c_ulong(options.flags), words)
    return 0 if done == 0 else ctypes.get_errno()


def _mount_with_helper(mountpoint: str, options: MountOptions) -> int:
    """Let fusermount3 mount; it sends the descriptor back over the socket that _FUSE_COMMFD names."""
    program = mountpoints.helper("to mount")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        try:
            done = subprocess.run(
                [program, "-o", options.helper_words(), "--", mountpoint],
                env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=mountpoints.HELPER_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise MountFailure(
                f"{program} did not mount {mountpoint} in {mountpoints.HELPER_TIMEOUT_S:.0f} s"
            ) from None
        if done.returncode != 0:
            raise MountFailure(helper_complaint(done.stderr.strip() or f"{program} failed", mountpoint))
        theirs.close()
        return _receive_descriptor(ours, program)


def _receive_descriptor(connection: socket.socket, program: str) -> int:
    size = array.array("i").itemsize
    _, messages, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(size), _MSG_CMSG_CLOEXEC)
    for level, kind, content in messages:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            return array.array("i", content[:size])[0]
    raise MountFailure(f"{program} mounted, but sent no descriptor")


def helper_complaint(complaint: str, mountpoint: str) -> str:
    """Return what the helper said with the remedy, where one is known."""
    if "user_allow_other" in complaint:
        return f"{complaint}; add the line user_allow_other to /etc/fuse.conf, or mount as root"
    if "mount failed: Permission denied" in complaint and Path(_APPARMOR_PROFILE).exists():
        return (
            f"{complaint}; Ubuntu's AppArmor profile lets fusermount3 mount only below $HOME, /mnt, /media, /tmp and "
            "/run/user: choose a directory there, or add to /etc/apparmor.d/local/fusermount3: mount "
            "fstype=@{fuse_types} options=(nosuid,nodev) options in (ro,rw,noatime,dirsync,nodiratime,noexec,sync) "
            f"-> {mountpoint}, and umount {mountpoint},"
        )
    if "mount failed: Operation not permitted" in complaint:
        return f"{complaint}; {mountpoints.CONTAINER_REMEDY}"
    return complaint
