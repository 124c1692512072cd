"""Answers to the kernel: written to /dev/fuse, and undone where the kernel refuses them or they come too late.

Used by session.py. Thread rule: any thread; each request has one answer.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable

from regfs.mount.kernel import abi
from regfs.mount.kernel.abi import Opcode
from regfs.mount.kernel.state import SessionState
from regfs.telemetry.stats import Stats

log = logging.getLogger(__name__)

_OPEN = int(Opcode.OPEN)  # a member of an enum takes longer to find, and each answer is compared with it
_ALREADY_INTERRUPTED = (errno.ENOENT, *abi.GONE)


class Answers:
    """Writes answers to *descriptor*, the connection of a session with *state*; *undo* takes one back."""

    def __init__(self, state: SessionState, stats: Stats, *, undo: Callable[[int, int, bytes], None]) -> None:
        self.descriptor = -1
        self._state = state
        self._stats = stats
        self._undo = undo

    def answer(self, opcode: int, unique: int, node: int, body: bytes) -> None:
        """Write an answer to the kernel; undo it if the kernel refuses it."""
        if opcode == _OPEN:
            self._state.opening(unique, node, body)
        try:
            if len(body) <= abi.PAGE_SIZE:
                os.write(self.descriptor, abi.OUT_HEADER.pack(16 + len(body), 0, unique) + body)
            else:
                os.writev(self.descriptor, (abi.OUT_HEADER.pack(16 + len(body), 0, unique), body))
        except OSError as error:
            self._undo(opcode, node, body)
            if error.errno not in _ALREADY_INTERRUPTED:
                self._stats.count("bugs")
                log.exception("the answer to %s was refused", abi.name_of(opcode))
                self.answer_error(unique, errno.EIO)
            return
        if opcode == _OPEN:
            self._state.answered(unique)

    def answer_error(self, unique: int, number: int) -> None:
        """Write an errno to the kernel."""
        try:
            os.write(self.descriptor, abi.pack_error(unique, number))
        except OSError as error:
            if error.errno not in _ALREADY_INTERRUPTED:
                log.exception("the answer with an errno was refused")
        else:
            self._state.answered(unique)

    def drop(self, opcode: int, node: int, answer: bytes) -> None:
        """Undo an answer that came too late."""
        self._undo(opcode, node, answer)
