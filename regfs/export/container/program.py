"""The program's own process: user, groups, capabilities, environment, working directory, exec.

Users are looked up in the image's own /etc/passwd and /etc/group, read as text: the C library would load modules from
the image. Used by first_process.py, after it has entered the image's root. Source: passwd(5), group(5).
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

from regfs.errors import MountFailure
from regfs.export.container.channel import Channel
from regfs.export.container.plan import Plan
from regfs.process import syscalls
from regfs.process.regular_files import read_regular_file

NOT_EXECUTABLE, NOT_FOUND = 126, 127
"""Exit statuses for a program that cannot be started: a shell's and docker's."""
_FILE_MAX = 1 << 22
# chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, sys_chroot, setfcap: podman's.
_CAPABILITIES = frozenset([0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 31])
_MOST_CAPABILITIES = 64
_ID_MAX = (1 << 32) - 2


class User(NamedTuple):
    """The user and groups of the program."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"


class _Failure(Exception):
    """The program cannot be started: what to say, and the exit status."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def find_user(text: str, *, passwd: str, group: str) -> User:
    """Return the user for `NAME`, `UID`, `NAME:GROUP` and so on, by the contents of the image's two files.

    Empty means root. A number that the files lack is allowed, as docker has it. Raises MountFailure otherwise.
    """
    name, _, group_name = text.partition(":")
    name = name or "0"
    lines = [fields for fields in _lines(passwd, 7) if fields[2].isdigit() and fields[3].isdigit()]
    known = next((f for f in lines if f[0] == name), None) or next((f for f in lines if f[2] == name), None)
    if known is not None:
        user = User(int(known[2]), int(known[3]), home=known[5] or "/")
    elif name.isascii() and name.isdigit():
        user = User(int(name), 0)
    else:
        raise MountFailure(f"the image's /etc/passwd has no user {name!r}; a number always works: -u 1000")
    if group_name:
        return user._replace(gid=_group_id(group_name, group))
    of_user = known[0] if known is not None else ""
    groups = tuple(int(f[2]) for f in _lines(group, 4) if f[2].isdigit() and of_user and of_user in f[3].split(","))
    return user._replace(groups=groups)


def _group_id(name: str, group: str) -> int:
    known = next((int(f[2]) for f in _lines(group, 4) if f[0] == name and f[2].isdigit()), None)
    if known is not None:
        return known
    if name.isascii() and name.isdigit():
        return int(name)
    raise MountFailure(f"the image's /etc/group has no group {name!r}; a number always works")


def _lines(text: str, fields: int) -> Iterator[list[str]]:
    for line in text.splitlines():
        found = line.split(":")
        if len(found) >= fields:
            yield found


def user_of_image(plan: Plan, channel: Channel) -> User:
    """Return the user of *plan*. Root replaces the image's own user, with a note, where that has no id here."""
    user = find_user(plan.user, passwd=_read("/etc/passwd"), group=_read("/etc/group"))
    if max(user.uid, user.gid) > _ID_MAX:
        raise MountFailure(f"-u {plan.user}: the largest user or group id is {_ID_MAX}")
    missing = None
    if not _is_mapped("uid", user.uid):
        missing = f"uid {user.uid}"
    elif not _is_mapped("gid", user.gid):
        missing = f"gid {user.gid}"
    if missing is None:
        return user._replace(groups=tuple(gid for gid in user.groups if _is_mapped("gid", gid)))
    reason = f"{missing} does not exist in your user namespace"
    remedy = "newuidmap (apt install uidmap) and a range in /etc/subuid and /etc/subgid give it one"
    if plan.is_user_asked:
        raise MountFailure(f"-u {plan.user}: {reason}; {remedy}")
    channel.send(
        "note", text=f"{plan.image} wants to run as {plan.user}; it runs as its root, because {reason}; {remedy}"
    )
    return find_user("0", passwd=_read("/etc/passwd"), group="")


def _is_mapped(kind: str, number: int) -> bool:
    for line in Path(f"/proc/self/{kind}_map").read_text().splitlines():
        first, _, count = map(int, line.split())
        if first <= number < first + count:
            return True
    return False


def _read(path: str) -> str:
    try:
        return read_regular_file(Path(path), _FILE_MAX).decode(errors="surrogateescape")
    except OSError:
        return ""


def become(
    plan: Plan, user: User, channel: Channel, *, terminal: int | None, has_input: bool, keep_setid: bool
) -> NoReturn:
    """Turn this process, a child of process 1, into the program; a failure is sent over *channel*."""
    code = NOT_EXECUTABLE
    try:
        os.setsid()
        _set_streams(terminal, has_input=has_input)
        _set_privileges(user, keep_setid=keep_setid)
        _enter_directory(plan.directory)
        env = {"HOME": user.home, **plan.env}
        _reset_signals()
        _execute(plan, env)
    except _Failure as failure:
        channel.send("error", text=str(failure))
        code = failure.code
    except BaseException as error:
        channel.send("error", text=f"{plan.argv[0]} cannot be started: {error}")
    os._exit(code)


def _set_streams(terminal: int | None, *, has_input: bool) -> None:
    if terminal is not None:
        import fcntl
        import termios

        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        for standard in (0, 1, 2):
            os.dup2(terminal, standard)
    elif not has_input:
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(null, 0)


def _set_privileges(user: User, *, keep_setid: bool) -> None:
    for number in range(_MOST_CAPABILITIES):
        if number not in _CAPABILITIES and not syscalls.drop_capability(number):
            break
    if _may_set_groups():
        os.setgroups(user.groups)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    if not keep_setid:
        syscalls.forbid_new_privileges()


def _may_set_groups() -> bool:
    try:
        return Path("/proc/self/setgroups").read_text().strip() == "allow"
    except OSError:
        return True  # a kernel before user namespaces


def _enter_directory(path: str) -> None:
    try:
        os.chdir(path)
    except OSError as error:
        raise _Failure(f"the working directory {path}: {error.strerror}", NOT_EXECUTABLE) from error


def _reset_signals() -> None:
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            try:
                signal.signal(number, signal.SIG_DFL)
            except (OSError, ValueError):
                continue  # the C library's own
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _execute(plan: Plan, env: dict[str, str]) -> NoReturn:
    program = plan.argv[0]
    try:
        os.execvpe(program, plan.argv, env)  # noqa: S606 (that is what it is for)
    except OSError as error:
        raise _Failure(*_why_not(program, error, plan, env)) from error


def _why_not(program: str, error: OSError, plan: Plan, env: dict[str, str]) -> tuple[str, int]:
    """Return message and exit status for a program that exec(2) refuses."""
    path = env.get("PATH", "")
    if error.errno == errno.ENOEXEC:
        if plan.image_platform != plan.machine_platform:
            return (
                f"{program}: exec format error: the image is for {plan.image_platform}, this machine is "
                f"{plan.machine_platform}; --platform chooses another image of an index, where there is one",
                NOT_EXECUTABLE,
            )
        return f"{program}: exec format error: neither a program for this machine nor a script with #!", NOT_EXECUTABLE
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        if "/" not in program:
            return (
                f"{plan.image} has no {program} in its PATH ({path}); regfs shell {plan.image} looks into it",
                NOT_FOUND,
            )
        if os.path.lexists(program):
            return f"{program} is there, but not what it needs to start: its #! line or its dynamic loader", NOT_FOUND
        return f"{plan.image} has no {program}", NOT_FOUND
    return f"{program} cannot be executed: {error.strerror}", NOT_EXECUTABLE
