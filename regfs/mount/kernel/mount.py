"""Mounting without libfuse: /dev/fuse and mount(2), or fusermount3 for ordinary users.

Used by session.py. mount(2) is tried first, for ordinary users too: in a user namespace it works without root and
without fusermount3 (user_namespaces(7), FUSE since Linux 4.18). Descriptors are close-on-exec: if a child inherited one
a dead mount would hang. Never waits for the network. Any thread.
"""

from __future__ import annotations

import array
import ctypes
import errno
import os
import socket
import subprocess

from regfs.errors import MountFailure
from regfs.mount import mountpoint as mountpoints
from regfs.mount.device import open_device
from regfs.mount.options import MountOptions, helper_complaint

_MSG_CMSG_CLOEXEC = 0x40000000


def mount(mountpoint: str, options: MountOptions) -> int:
    """Mount on *mountpoint* and return the descriptor of the connection. Raises MountFailure."""
    descriptor = open_device()
    try:
        number = _mount2(mountpoint, options, descriptor)
    except BaseException:  # a descriptor that is not served must not stay open: the mount would hang
        os.close(descriptor)
        raise
    if number == 0:
        return descriptor
    os.close(descriptor)
    if number != errno.EPERM:
        raise MountFailure(f"cannot mount on {mountpoint}: {os.strerror(number)}")
    return _mount_with_helper(mountpoint, options)


def _mount2(mountpoint: str, options: MountOptions, descriptor: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    source, words = os.fsencode(options.source), options.kernel_words(descriptor).encode()
    kind = mountpoints.FILE_SYSTEM_TYPE.encode()
    done = libc.mount(source, os.fsencode(mountpoint), kind, ctypes.c_ulong(options.flags), words)
    return 0 if done == 0 else ctypes.get_errno()


def _mount_with_helper(mountpoint: str, options: MountOptions) -> int:
    """Mount with fusermount3, which sends the descriptor over the socket that _FUSE_COMMFD names."""
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
