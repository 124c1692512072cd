"""Options of a mount, as both drivers take them: the flags and words for mount(2) and for fusermount3.

Used by daemon/session.py, which makes them from a Config, and by both drivers. Any thread.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from regfs.mount import mountpoint as mountpoints

# include/uapi/linux/mount.h
_MS_RDONLY = 1
_MS_NOSUID = 2
_MS_NODEV = 4
_MS_NOEXEC = 8
_MS_NOATIME = 1024
_APPARMOR_PROFILE = "/etc/apparmor.d/fusermount3"


@dataclass(frozen=True, slots=True)
class MountOptions:
    """How to mount. *source* is what mount(8) shows as the device, the default registry.

    Files are read-only in any case: the daemon answers EROFS. With *read_only* the kernel does, before it asks, so that
    access(2) says so to root as well, and rm in `.regfs/cache/` evicts nothing. Without it, each READ, READLINK or
    READDIR costs a GETATTR where attributes are wanted again: the kernel expects a new access time (Linux,
    fuse_invalidate_atime).
    """

    source: str = "regfs"
    allow_other: bool = False
    allow_suid: bool = False
    allow_dev: bool = False
    noexec: bool = False
    read_only: bool = False
    default_permissions: bool = False

    @property
    def checks_permissions(self) -> bool:
        """Whether the kernel checks modes: always with allow_other, or others could read what only root may."""
        return self.default_permissions or self.allow_other

    @property
    def flags(self) -> int:
        """Return the flags of mount(2)."""
        flags = _MS_NOATIME | (_MS_RDONLY if self.read_only else 0)
        flags |= 0 if self.allow_suid else _MS_NOSUID
        flags |= 0 if self.allow_dev else _MS_NODEV
        return flags | (_MS_NOEXEC if self.noexec else 0)

    def kernel_words(self, descriptor: int) -> str:
        """Return the option string of mount(2)."""
        words = [f"fd={descriptor}", f"rootmode={stat.S_IFDIR:o}", f"user_id={os.getuid()}", f"group_id={os.getgid()}"]
        return ",".join(words + self._common_words())

    def helper_words(self) -> str:
        """Return the option string of fusermount3, and of libfuse: words that every version takes (new: no noatime)."""
        words = ["ro" if self.read_only else "rw"]
        words += ["suid" if self.allow_suid else "nosuid", "dev" if self.allow_dev else "nodev"]
        words += ["noexec"] if self.noexec else []
        source = self.source.replace("\\", "\\\\").replace(",", "\\,")
        return ",".join([*words, f"fsname={source}", "subtype=regfs", *self._common_words()])

    def _common_words(self) -> list[str]:
        words = ["allow_other"] if self.allow_other else []
        return words + (["default_permissions"] if self.checks_permissions else [])


def helper_complaint(complaint: str, mountpoint: str) -> str:
    """Return the message of the helper, with the remedy where one is known."""
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
