"""A daemon as the holder of its mount sees it: its process, and the socket to it.

Used by holder_process.py, which loads it when it starts; so it imports nothing of regfs. One thread.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import struct
import time

_U64, _I32 = struct.Struct("<Q"), struct.Struct("<i")
# PIDFD_GET_INFO with a struct pidfd_info of 64 bytes, PIDFD_INFO_EXIT and the field exit_code. Source: linux/pidfd.h.
_GET_INFO, _INFO_SIZE, _INFO_EXIT, _EXIT_CODE_AT = 0xC040FF0B, 64, 1 << 3, 60
# The word after the name in /proc/PID/stat that is the status of a zombie. Source: proc(5).
_EXIT_CODE_WORD = 49
# Seconds until its parent has most likely reaped a process: it is asked again after each.
_REAPED_S = (0.0, 0.005, 0.02)


class HeldDaemon:
    """One daemon, or the process that becomes one. *is_child*: of this process."""

    def __init__(self, pid: int, control: socket.socket, *, is_child: bool) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.control = control
        self.is_child = is_child
        self.is_ready = False
        self.since = time.monotonic()

    def tell(self, word: bytes) -> None:
        try:
            self.control.send(word, socket.MSG_DONTWAIT)
        except OSError:
            pass  # it has ended, or hangs; either is noticed

    def kill(self) -> None:
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def bury(self) -> str:
        """Close the descriptors of a daemon that has ended, and return how it ended. A child is reaped."""
        self.control.close()
        if self.is_child:
            code: int | None = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        else:
            code = self._told_exit_code()
        os.close(self.pidfd)
        if code is None:
            return "has ended"
        if code >= 0:
            return f"has ended with exit code {code}"
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"

    def _told_exit_code(self) -> int | None:
        """Return how a process of another parent ended; None where that is not told: reaped, and before Linux 6.15."""
        for wait_s in _REAPED_S:
            select.select([], [], [], wait_s)  # as time.sleep(), which fails where a preloaded library fakes clocks
            status = self._status_of_zombie()
            if status is None:
                status = self._status_of_reaped()
            if status is not None:
                return os.waitstatus_to_exitcode(status)
        return None

    def _status_of_zombie(self) -> int | None:
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as file:
                words = file.read().rpartition(b")")[2].split()
        except OSError:
            return None
        return int(words[_EXIT_CODE_WORD]) if words[0] == b"Z" and len(words) > _EXIT_CODE_WORD else None

    def _status_of_reaped(self) -> int | None:
        told = bytearray(_U64.pack(_INFO_EXIT).ljust(_INFO_SIZE, b"\0"))
        try:
            fcntl.ioctl(self.pidfd, _GET_INFO, told)
        except OSError:
            return None
        if not _U64.unpack_from(told)[0] & _INFO_EXIT:
            return None
        status: int = _I32.unpack_from(told, _EXIT_CODE_AT)[0]
        return status
