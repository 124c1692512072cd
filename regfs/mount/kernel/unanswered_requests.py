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


# A request may be what ends them; fewer may be an accident.
_MOST_SHORT_LIVES = 8


class Answers(Protocol):
    """Where requests are answered: KernelSession."""

    def answer_or_hand_over(
        self, opcode: int, unique: int, node: int, body: bytes, slot: int, age_s: float
    ) -> bool: ...

    def answer_error(self, unique: int, number: int) -> None: ...


def answer_left(left: Sequence[Left], state: SessionState, answers: Answers, *, timeout_s: float) -> None:
    """Answer the requests *left*; the kernel refuses the second answer to a request.

    A request that has waited for *timeout_s* seconds, over all daemons, gets ETIMEDOUT. Once eight daemons in a row
    have ended at once all get EIO: one of these requests may be the reason.
    """
    state.doubt({each.unique for each in left})
    is_loop = state.kept is not None and state.kept.short_lives >= _MOST_SHORT_LIVES
    for opcode, unique, node, body, slot, age_s in left:
        is_answered = True
        if is_loop or age_s >= timeout_s:
            what = "daemons end at once" if is_loop else f"no daemon has answered in {timeout_s:g} s"
            log.error("%s: %s of node %#x is not answered again", what, abi.name_of(opcode), node)
            answers.answer_error(unique, errno.EIO if is_loop else errno.ETIMEDOUT)
        elif opcode == Opcode.RELEASE:
            with suppress(BadHandle):  # the earlier daemon has closed it
                state.release(node, abi.RELEASE_IN.unpack_from(body)[0])
            answers.answer_error(unique, 0)
        else:
            is_answered = answers.answer_or_hand_over(opcode, unique, node, body, slot, age_s)
        if is_answered:
            state.pending.done(slot)
