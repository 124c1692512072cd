"""Mounts with mapped owners, as systemd-nspawn --private-users and podman make them. Source: mount_setattr(2)."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

_OPEN_TREE, _MOUNT_SETATTR = 428, 442  # the same on all architectures
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, 0o2000000
_MOUNT_ATTR_IDMAP = 0x100000


class _Attributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


def mapped_clone(path: Path, first: int) -> int:
    """Return a descriptor of a mount of *path* that shows owner N as *first* + N. Raises OSError, EINVAL for one."""
    libc = ctypes.CDLL(None, use_errno=True)
    tree = libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(path), _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC)
    _check(tree)
    namespace = _user_namespace(first)
    try:
        wanted = _Attributes(_MOUNT_ATTR_IDMAP, 0, 0, namespace)
        size = ctypes.c_size_t(ctypes.sizeof(wanted))
        _check(libc.syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, ctypes.byref(wanted), size))
    except OSError:
        os.close(tree)
        raise
    finally:
        os.close(namespace)
    return int(tree)


def _user_namespace(first: int) -> int:
    """Return a descriptor of a new user namespace whose ids 0 to 65535 are *first* and the following outside."""
    command = ["unshare", "--user", "sh", "-c", "echo; read -r _"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for kind in ("uid", "gid"):
            Path(f"/proc/{process.pid}/{kind}_map").write_text(f"0 {first} 65536")
        return os.open(f"/proc/{process.pid}/ns/user", os.O_RDONLY)


def _check(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
