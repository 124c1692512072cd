"""The process that enters new namespaces, starts process 1 in them, and waits for it. Started by supervisor.py."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from regfs.errors import RegfsError
from regfs.export.container.channel import Channel
from regfs.export.container.first_process import run_first_process
from regfs.export.container.id_maps import IdMaps, write_single_map
from regfs.export.container.root_directory import Sandbox
from regfs.mount import mountpoint as mountpoints
from regfs.process import syscalls
from regfs.process.syscalls import NEW_HOST_NAME, NEW_IPC, NEW_MOUNTS, NEW_NETWORK, NEW_PROCESSES, NEW_USERS

FAILED = 125
"""The exit status where regfs fails, and not the program: docker's."""
_SYSCTLS = (
    # name, the value that forbids, what to set
    ("kernel/unprivileged_userns_clone", "0", "1"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ("user/max_user_namespaces", "0", "15000"),
)


@dataclass(frozen=True, slots=True)
class Namespaces:
    """The optional namespaces: users if *maps* is not None, and the network. The others are always new."""

    maps: IdMaps | None = None
    has_network: bool = True


def enter(namespaces: Namespaces, sandbox: Sandbox, channel: Channel) -> NoReturn:
    """Enter, start process 1, and exit with its status. Failures are sent over *channel*."""
    try:
        # Ctrl-C of the terminal reaches only the supervisor, which forwards it.
        os.setsid()
        syscalls.set_process_name("regfs-entered")
        _enter(namespaces, channel)
        syscalls.die_with_parent()
        first = os.fork()
        if first == 0:
            run_first_process(sandbox, channel)
        channel.close()
        _, status = os.waitpid(first, 0)
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else 128 - code)
    except (RegfsError, OSError) as error:
        channel.send("error", text=str(error))
    except BaseException as bug:
        channel.send("error", text=f"a bug of regfs: {bug!r}")
    os._exit(FAILED)


def _enter(namespaces: Namespaces, channel: Channel) -> None:
    uid, gid = os.geteuid(), os.getegid()
    flags = NEW_MOUNTS | NEW_HOST_NAME | NEW_IPC | NEW_PROCESSES
    flags |= 0 if namespaces.maps is None else NEW_USERS
    flags |= 0 if namespaces.has_network else NEW_NETWORK
    try:
        syscalls.unshare(flags)
    except OSError as error:
        raise RegfsError(_why_not(error, has_users=namespaces.maps is not None)) from error
    if namespaces.maps is None:
        return
    if namespaces.maps.is_single:
        write_single_map(uid, gid)
        return
    channel.send("unshared")
    if channel.receive().kind != "mapped":
        os._exit(FAILED)
    os.setgid(0)
    os.setuid(0)
    with suppress(OSError):
        os.setgroups([])


def _why_not(error: OSError, *, has_users: bool) -> str:
    """Return why no namespaces could be made, with the setting that forbids it where one is found."""
    if not has_users:
        return f"no new namespaces: {error.strerror}"
    for name, forbidding, allowing in _SYSCTLS:
        try:
            value = Path("/proc/sys", name).read_text().strip()
        except OSError:
            continue
        if value == forbidding:
            setting = name.replace("/", ".")
            return f"{setting} is {value}, so that ordinary users get no user namespace: sysctl -w {setting}={allowing}"
    if error.errno in (errno.EPERM, errno.EACCES):
        if mountpoints.topmost("/") is None:
            return "in a chroot the kernel allows no user namespace: run as root, or by systemd-nspawn -D DIR"
        return (
            "no user namespace may be made here (a seccomp filter or security module forbids it): run as root; in a "
            "container: --cap-add SYS_ADMIN --device /dev/fuse --security-opt seccomp=unconfined"
        )
    return f"no user namespace: {error.strerror}; the limits are in /proc/sys/user/"
