"""The root directory of the program: the image's files below a writable overlay, with /proc, /dev and volumes.

Made in process 1, in its new mount namespace:

    tmpfs on /tmp        hides the machine's; has the directories lower, root, upper and work
      lower              the image's files: an EROFS mount that the supervisor has made, or FUSE, which it serves
      root               overlay of lower and upper: becomes the root by pivot_root(2), which removes all other mounts

Files of the machine (devices, volumes, resolv.conf) are opened before pivot_root and attached after it, so that their
paths are resolved in the machine, and those of the image in the image. Source: mount_api.py, overlayfs.rst.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from regfs.errors import MountFailure
from regfs.export.container.plan import Volume
from regfs.export.overlay import insist_on_unused, overlay_options, prepare_upper
from regfs.mount import mount_api
from regfs.mount.device import open_device
from regfs.mount.mount_api import NO_DEVICES, NO_EXEC, NO_SUID, READ_ONLY, Refused

_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
          "ptmx": "pts/ptmx"}  # fmt: skip
_OF_NETWORK = ("/etc/resolv.conf", "/etc/hosts")
# Files of /proc that let root harm the machine or learn about it, where no user namespace is made.
_READ_ONLY_IN_PROC = ("sys", "irq", "bus", "fs", "sysrq-trigger", "acpi", "asound", "scsi")
_HIDDEN_IN_PROC = ("kcore", "keys", "timer_list", "latency_stats", "sched_debug")
_BASES = ("/tmp", "/run", "/mnt", "/var")  # noqa: S108 (nothing is written there: a file system is mounted on it)
_TERMINAL_GROUP = 5  # Debian's, Fedora's and Alpine's "tty"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """The settings of process 1 that do not depend on the image. *keep* is where changes go, None for memory.

    *is_root*: root of the machine runs it, so that /proc has to be guarded. *size*: rows and columns of the terminal.
    """

    volumes: tuple[Volume, ...] = ()
    keep: Path | None = None
    has_network: bool = True
    has_input: bool = False
    has_terminal: bool = False
    size: tuple[int, int] = (0, 0)
    is_root: bool = True
    allow_suid: bool = False
    allow_dev: bool = False


class RootDirectory:
    """The root directory while it is made: __init__(), then attach_lower() or serve_lower(), then enter()."""

    def __init__(self, sandbox: Sandbox) -> None:
        """Open the files of the machine. Raises MountFailure."""
        self._sandbox = sandbox
        mount_api.keep_mounts_private()
        # The machine's own nodes where others cannot be made: their owner is not mapped there.
        self._devices = {} if sandbox.is_root else {name: _tree(f"/dev/{name}") for name in _DEVICES}
        self._volumes = [(volume, _tree(volume.host)) for volume in sandbox.volumes]
        self._of_network = [(path, _tree(path)) for path in _OF_NETWORK if sandbox.has_network and os.path.exists(path)]
        self._proc = _new_proc()
        self._keep = None if sandbox.keep is None else os.open(sandbox.keep, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._base = next(path for path in (*_BASES, "/") if os.path.isdir(path))
        _place(_new("tmpfs", mode="0700"), self._base)
        for name in ("lower", "root"):
            os.mkdir(f"{self._base}/{name}")

    def attach_lower(self, mount: int) -> None:
        """Use the mount *mount* as the image's files."""
        _place(mount, f"{self._base}/lower")

    def serve_lower(self) -> int:
        """Mount a FUSE file system for the image's files; return the descriptor of the connection, to be served."""
        connection = open_device()
        words = {"source": "regfs", "fd": str(connection), "rootmode": f"{stat.S_IFDIR:o}", "user_id": "0",
                 "group_id": "0", "allow_other": None, "default_permissions": None}  # fmt: skip
        attributes = NO_SUID * (not self._sandbox.allow_suid) | NO_DEVICES * (not self._sandbox.allow_dev) | READ_ONLY
        _place(mount_api.make_mount("fuse", words.items(), attributes=attributes), f"{self._base}/lower")
        return connection

    def enter(self) -> None:
        """Make the overlay the root directory of this process, and attach /proc, /dev and the volumes."""
        upper = Path(self._base) if self._keep is None else Path(f"/proc/self/fd/{self._keep}")
        lower = Path(self._base, "lower")
        prepare_upper(upper, lower)
        if self._keep is not None:
            insist_on_unused(upper, shown=f"--keep {self._sandbox.keep}")
        attributes = NO_SUID * (not self._sandbox.allow_suid) | NO_DEVICES * (not self._sandbox.allow_dev)
        options = overlay_options(f"{lower}", upper, is_root=self._sandbox.is_root)
        try:
            overlay = mount_api.make_mount("overlay", options, attributes=attributes)
        except Refused as error:
            raise MountFailure(_no_overlay(error, self._sandbox)) from error
        root = f"{self._base}/root"
        _place(overlay, root)
        mount_api.change_root(root)
        self._fill()

    def _fill(self) -> None:
        _directory("/proc", 0o555)
        _place(self._proc, "/proc")
        self._fill_dev()
        if self._sandbox.is_root:
            _guard_proc()
        _directory("/tmp", 0o1777)  # noqa: S108 (the image's)
        for path, tree in self._of_network:
            mount_api.make_read_only(tree)
            _attach(tree, path, is_directory=False)
        for volume, tree in self._volumes:
            if volume.is_read_only:
                mount_api.make_read_only(tree)
            _attach(tree, volume.image, is_directory=stat.S_ISDIR(os.stat(tree).st_mode))

    def _fill_dev(self) -> None:
        _directory("/dev", 0o755)
        _place(_new("tmpfs", attributes=NO_SUID | NO_EXEC, mode="0755", size="64k"), "/dev")
        for name, tree in self._devices.items():
            _attach(tree, f"/dev/{name}", is_directory=False)
        for name in _DEVICES.keys() - self._devices.keys():
            os.mknod(f"/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(*_DEVICES[name]))
            os.chmod(f"/dev/{name}", 0o666)  # noqa: S103 (as on any machine)
        for name, target in _LINKS.items():
            os.symlink(target, f"/dev/{name}")
        for name in ("pts", "shm", "mqueue"):
            os.mkdir(f"/dev/{name}")
        _place(_new_terminals(), "/dev/pts")
        _place(_new("tmpfs", attributes=NO_SUID | NO_DEVICES | NO_EXEC, mode="1777"), "/dev/shm")  # noqa: S108
        with suppress(OSError):  # a kernel without POSIX message queues
            _place(_new("mqueue", attributes=NO_SUID | NO_DEVICES | NO_EXEC), "/dev/mqueue")


def _place(mount: int, path: str) -> None:
    """Attach *mount* to *path*, and close it."""
    try:
        mount_api.attach(mount, path)
    finally:
        os.close(mount)


def _new(kind: str, *, attributes: int = NO_SUID | NO_DEVICES, **options: str) -> int:
    return mount_api.make_mount(kind, [("source", kind), *options.items()], attributes=attributes)


def _new_proc() -> int:
    try:
        return _new("proc", attributes=NO_SUID | NO_DEVICES | NO_EXEC)
    except Refused as error:
        raise MountFailure(
            f"/proc cannot be mounted: {error.strerror}; a container that hides parts of its own /proc forbids it: "
            "docker run --security-opt systempaths=unconfined, podman run --security-opt unmask=ALL"
        ) from error


def _new_terminals() -> int:
    attributes = NO_SUID | NO_EXEC
    options = {"ptmxmode": "0666", "mode": "0620"}
    try:
        return _new("devpts", attributes=attributes, gid=str(_TERMINAL_GROUP), **options)
    except Refused:  # the group has no place in this user namespace
        return _new("devpts", attributes=attributes, **options)


def _tree(path: str) -> int:
    try:
        return mount_api.open_tree(path)
    except Refused as error:
        raise MountFailure(f"{path}: {error.strerror}") from error


def _directory(path: str, mode: int) -> None:
    """Make *path* where the image lacks it."""
    if not os.path.isdir(path):
        os.makedirs(path, exist_ok=True)
        os.chmod(path, mode)


def _attach(tree: int, path: str, *, is_directory: bool) -> None:
    """Attach *tree* to *path* of the image, which is made where it is missing. Symbolic links are followed."""
    path = os.path.realpath(path)
    try:
        os.makedirs(path if is_directory else os.path.dirname(path), exist_ok=True)
        if not is_directory and not os.path.lexists(path):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        _place(tree, path)
    except OSError as error:
        raise MountFailure(f"nothing can be put at {path} of the image: {error.strerror}") from error


def _guard_proc() -> None:
    """Hide and protect the machine's files of /proc from a program that runs as root of the machine."""
    for name in _READ_ONLY_IN_PROC:
        if os.path.exists(f"/proc/{name}"):
            tree = mount_api.open_tree(f"/proc/{name}")
            mount_api.make_read_only(tree)
            _place(tree, f"/proc/{name}")
    for name in _HIDDEN_IN_PROC:
        if os.path.exists(f"/proc/{name}"):
            _place(mount_api.open_tree("/dev/null"), f"/proc/{name}")


def _no_overlay(error: Refused, sandbox: Sandbox) -> str:
    if error.errno == errno.ENODEV:
        return "this kernel has no overlay file system (CONFIG_OVERLAY_FS; modprobe overlay)"
    if error.errno == errno.EPERM and not sandbox.is_root:
        return f"the kernel lets an ordinary user make no overlay (Linux 5.11 or newer does): {error.strerror}"
    if error.errno in (errno.EINVAL, errno.EREMOTE, errno.ELOOP) and sandbox.keep is not None:
        return (
            f"no overlay with its changes in {sandbox.keep}: {error.strerror}; --keep needs a disk that can hold them"
        )
    return f"no overlay over the image: {error.strerror}"
