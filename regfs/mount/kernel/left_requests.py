"""Answers the requests that an earlier daemon has read and may not have answered. Used by session.py.

Thread rule: the thread that reads requests, before it reads the first one.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from regfs.errors import BadHandle
from regfs.mount.kernel import abi
from regfs.mount.kernel.abi import Opcode
from regfs.mount.kernel.kept.pending import Left
from regfs.mount.kernel.state import SessionState

log = logging.getLogger(__name__)


class Answers(Protocol):
    """Where requests are answered: KernelSession."""

    def answer_or_hand_over(self, opcode: int, unique: int, node: int, body: bytes, slot: int) -> bool: ...

    def answer_error(self, unique: int, number: int) -> None: ...


def answer_left(left: Sequence[Left], state: SessionState, answers: Answers) -> None:
    """Have *left* answered; the kernel refuses what it has got an answer to before."""
    state.doubt({each.unique for each in left})
    for opcode, unique, node, body, slot, is_poison in left:
        is_answered = True
        if is_poison:
            log.error("daemons have ended during %s of node %#x: EIO", abi.name_of(opcode), node)
            answers.answer_error(unique, errno.EIO)
        elif opcode == Opcode.RELEASE:
            with suppress(BadHandle):  # the earlier daemon has closed it
                state.release(node, abi.RELEASE_IN.unpack_from(body)[0])
            answers.answer_error(unique, 0)
        else:
            is_answered = answers.answer_or_hand_over(opcode, unique, node, body, slot)
        if is_answered:
            state.pending.done(slot)
