"""System calls that Python 3.11 has no names for: unshare, prctl, ioprio_set, fallocate; malloc_trim.

Any thread.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import threading
from contextlib import suppress

NEW_MOUNTS, NEW_HOST_NAME, NEW_IPC = 0x00020000, 0x04000000, 0x08000000
NEW_USERS, NEW_PROCESSES, NEW_NETWORK = 0x10000000, 0x20000000, 0x40000000
"""Flags of unshare(): CLONE_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID and _NEWNET of include/uapi/linux/sched.h."""
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30}
_IDLE_CLASS = 3
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 15, 24, 38

_M_MMAP_THRESHOLD = -3


def unshare(flags: int) -> None:
    """Move this process to new namespaces, its children for NEW_PROCESSES. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(ctypes.c_int(flags)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def die_with_parent() -> None:
    """Have this process killed when its parent ends, however it ends. A change of user ids cancels that."""
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def set_process_name(name: str) -> None:
    """Let ps(1) show the first 15 bytes of *name* for this thread."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def forbid_new_privileges() -> None:
    """Let no set-user-id bit or file capability give this process or its children anything (PR_SET_NO_NEW_PRIVS)."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def drop_capability(number: int) -> bool:
    """Drop a capability for this process and its children for ever; return whether the kernel knows that number."""
    try:
        _prctl(_PR_CAPBSET_DROP, number)
    except OSError:
        return False
    return True


def give_memory_back() -> None:
    """Return freed memory from the C library to the kernel, after work that has used much memory. Takes some 3 ms.

    Does nothing where the library is not glibc. Source: malloc_trim(3).
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))


def keep_big_blocks_apart() -> None:
    """Let the C library give blocks of memory from 256 KiB on pages of their own, which it frees at once.

    By itself it raises that bound to 32 MiB, and keeps what is freed: a process that holds 64 MiB in changing blocks
    grows to half a gigabyte. Does nothing where the library is not glibc. Source: mallopt(3), M_MMAP_THRESHOLD.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(ctypes.c_int(_M_MMAP_THRESHOLD), ctypes.c_int(1 << 18))


def be_idle() -> None:
    """Let the calling thread use the disk and the cores only when nothing else wants them, as far as the kernel can.

    Of the disk's schedulers bfq and mq-deadline heed that. Sources: ioprio_set(2), sched(7).
    """
    thread = threading.get_native_id()
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, 19)
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), 1, thread, _IDLE_CLASS << 13)


def punch_hole(fd: int, offset: int, size: int) -> None:
    """Free the blocks of a range of a file, which reads as zeros then; the file keeps its size. Raises OSError.

    Source: fallocate(2), FALLOC_FL_PUNCH_HOLE.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    place, length = ctypes.c_int64(offset), ctypes.c_int64(size)
    if libc.fallocate64(ctypes.c_int(fd), ctypes.c_int(_KEEP_SIZE | _PUNCH_HOLE), place, length) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
