"""The user namespace that `--idmap` names: a mount shows the owners of its files by that namespace's ids.

    1234                   that of the process 1234
    /proc/1234/ns/user     the one of that path
    0:100000:65536         a new one in which the ids from 0 on are the ids from 100000 on outside, 65536 of them

Used by `regfs mount --idmap`. One thread, whose process forks for a moment; blocks on the disk alone.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import stat
from contextlib import suppress

from regfs.errors import InvalidOption, MountFailure

_NEW_USERS = 0x10000000  # CLONE_NEWUSER of include/uapi/linux/sched.h
_GET_KIND = 0xB703  # NS_GET_NSTYPE of include/uapi/linux/nsfs.h
_MOST_IDS = (1 << 32) - 1


def open_user_namespace(text: str) -> int:
    """Return a descriptor of the user namespace that *text* names. Raises InvalidOption, MountFailure."""
    if ":" in text and not text.startswith("/"):
        return _made(*_parsed(text))
    path = f"/proc/{text}/ns/user" if text.isdecimal() else text
    if not path.startswith("/"):
        raise InvalidOption(f"--idmap {text}: give a process id, the path of a user namespace, or FIRST:OUTSIDE:COUNT")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise MountFailure(f"--idmap {text}: {path}: {error.strerror}") from error
    reason = _reason_against(fd)
    if reason:
        os.close(fd)
        raise InvalidOption(f"--idmap {text}: {reason}")
    return fd


def _reason_against(fd: int) -> str:
    """Return why a mount cannot have the user ids of *fd*, "" where it can."""
    try:
        is_user_namespace = fcntl.ioctl(fd, _GET_KIND) == _NEW_USERS
    except OSError:
        is_user_namespace = False
    if not is_user_namespace:
        kind = "a directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "no user namespace"
        return f"it is {kind}; a process has its user namespace at /proc/PID/ns/user"
    if os.fstat(fd).st_ino == os.stat("/proc/self/ns/user").st_ino:
        return "that is the user namespace of this process too, and its ids are those of the image"
    return ""


def _parsed(text: str) -> tuple[int, int, int]:
    """Return the first id, the id that it has outside, and how many there are."""
    numbers = [int(part) if part.isdecimal() and part.isascii() else -1 for part in text.split(":")]
    if len(numbers) != 3 or min(numbers) < 0 or numbers[2] == 0:
        raise InvalidOption(f"--idmap {text}: FIRST:OUTSIDE:COUNT are three numbers, as in 0:100000:65536")
    first, outside, count = numbers
    if max(first, outside) + count > _MOST_IDS:
        raise InvalidOption(f"--idmap {text}: the largest user id is {_MOST_IDS - 1}")
    return first, outside, count


def _made(first: int, outside: int, count: int) -> int:
    """Return a descriptor of a new user namespace; a child is in it until it has its map. Raises MountFailure."""
    ready, child_says = os.pipe()
    child_waits, end = os.pipe()
    child = os.fork()
    if child == 0:  # must not return: the parent's clean-up code must not run here
        with suppress(BaseException):
            os.close(end)
            libc = ctypes.CDLL(None, use_errno=True)
            failed = libc.unshare(ctypes.c_int(_NEW_USERS)) != 0
            os.write(child_says, bytes([ctypes.get_errno() if failed else 0]))
            os.read(child_waits, 1)
        os._exit(0)
    try:
        os.close(child_says)
        os.close(child_waits)
        answer = os.read(ready, 1)
        if answer != b"\0":
            reason = os.strerror(answer[0]) if answer else "its process has ended"
            raise MountFailure(f"a user namespace cannot be made: {reason}")
        try:
            for name in ("uid_map", "gid_map"):
                with open(f"/proc/{child}/{name}", "w") as file:
                    file.write(f"{first} {outside} {count}\n")
            return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise MountFailure(f"the ids {first}:{outside}:{count} cannot be mapped: {error.strerror}") from error
    finally:
        os.close(ready)
        os.close(end)
        os.waitpid(child, 0)
