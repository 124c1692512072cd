"""The loop that reads every request of the kernel and has it answered.

    a request is there     it is answered, or handed over to the pool (session.py)
    it closes something    its answer is postponed: no program waits for it, but the next request would. It stays in its
                           buffer until then
    no request is there    postponed requests are answered; then something is prefetched; then busy_poll.py waits

Used by session.py. Thread rule: run() in the thread that reads requests.
"""

from __future__ import annotations

import errno
import logging
import os
from collections import deque
from collections.abc import Callable

from regfs.mount.busy_poll import BusyPoll
from regfs.mount.cpu_latency import CpuLatencyLimit
from regfs.mount.kernel import abi
from regfs.mount.kernel.abi import Opcode
from regfs.mount.kernel.kept.pending import DONE_AT, NoPending

log = logging.getLogger(__name__)

Answer = Callable[[int, int, int, bytes], object]
"""Called with opcode, unique, node and body."""
_Request = tuple[int, int, int, bytes]

_TRY_AGAIN = (errno.EINTR, errno.ENOENT, errno.EAGAIN)
# A RELEASE that is answered at once costs the next OPEN a quarter of its time. Each postponed one takes a buffer.
_CLOSING = (int(Opcode.RELEASE), int(Opcode.RELEASEDIR))
_FORGETTING = (int(Opcode.FORGET), int(Opcode.BATCH_FORGET))
# What a postponed request would close counts as in use, and could not be evicted.
_UNLINK = int(Opcode.UNLINK)
_SPECIAL = frozenset({*_CLOSING, *_FORGETTING, _UNLINK})


class RequestLoop:
    """Reads the requests of the connection *descriptor*.

    *answer* answers one. *prefetch* does one piece of work that no request waits for, and returns whether there was
    one. After an exception of either *bug* is called, with the opcode (0 for *prefetch*) and the node, and the loop
    goes on. *low_latency* keeps idle cores awake during bursts of requests.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        answer: Answer,
        prefetch: Callable[[], bool],
        bug: Callable[[int, int], None],
        pending: NoPending,
        low_latency: bool = False,
    ) -> None:
        self._descriptor = descriptor
        self._pending = pending
        self._low_latency = low_latency
        self._answer = answer
        self._prefetch = prefetch
        self._bug = bug
        self._postponed: deque[tuple[_Request, memoryview]] = deque()
        self._free: list[memoryview] = []
        self.doing: _Request | object | None = None
        """The request that is being answered, or a new object for each piece of other work; None in between."""
        self.has_successor = False
        """Whether another thread reads requests: then run() returns as soon as it has done its present work."""

    def another(self) -> RequestLoop:
        """Return a loop to take the place of this one: run() it in another thread, and set `has_successor` here."""
        return RequestLoop(
            self._descriptor,
            answer=self._answer,
            prefetch=self._prefetch,
            bug=self._bug,
            pending=self._pending,
            low_latency=self._low_latency,
        )

    def run(self) -> bool:
        """Read requests and have them answered. Return True at the end of the connection, False for a successor."""
        self._free = self._pending.buffers()
        buffer = self._free.pop()
        buffers = [buffer]
        unpack, readv, descriptor = abi.IN_HEADER.unpack_from, os.readv, self._descriptor
        poll = BusyPoll(descriptor, latency_limit=CpuLatencyLimit() if self._low_latency else None)
        is_ready, found = poll.is_ready, poll.found
        while not self.has_successor:
            if not is_ready():
                if not self._work_while_idle():
                    poll.wait()
                continue
            try:
                size = readv(descriptor, buffers)
            except OSError as error:
                if error.errno in _TRY_AGAIN:
                    continue
                if error.errno not in abi.GONE:
                    log.exception("the connection cannot be read")
                break
            if size == 0:
                break
            found()
            if size < abi.IN_HEADER.size:
                log.error("a request of %d bytes", size)
                continue
            _, opcode, unique, node, _, _, _, _, _ = unpack(buffer)
            request = opcode, unique, node, bytes(buffer[40:size])
            if opcode in _SPECIAL:
                if opcode in _FORGETTING:
                    buffer[DONE_AT] = 1
                elif opcode == _UNLINK:
                    while self._postponed:
                        self._answer_postponed()
                elif self._free:
                    self._postponed.append((request, buffer))
                    buffer = buffers[0] = self._free.pop()
                    continue
            self._have_answered(request)
            buffer[DONE_AT] = 1
        poll.close()
        while self._postponed:
            self._answer_postponed()
        return not self.has_successor

    def _answer_postponed(self) -> None:
        request, buffer = self._postponed.popleft()
        self._have_answered(request)
        buffer[DONE_AT] = 1
        self._free.append(buffer)

    def _work_while_idle(self) -> bool:
        """Do one piece of work that no program waits for; return whether there was one."""
        if self._postponed:
            self._answer_postponed()
            return True
        self.doing = object()
        try:
            return self._prefetch()
        except Exception:  # a failed prefetch must not stop the request loop
            self._bug(0, 0)
            return True
        finally:
            self.doing = None

    def _have_answered(self, request: _Request) -> None:
        self.doing = request
        try:
            self._answer(*request)
        except Exception:  # one request must not stop the loop for all others
            self._bug(request[0], request[2])
        self.doing = None
