"""Requests that wait: a pool answers each under a deadline, also one that is interrupted or hangs.

    hand_over()      a request that must wait (for the registry, for a layer) is answered by a thread of the pool
    interrupt()      the kernel's INTERRUPT: EINTR at once
    end_stuck()      a request that waits for nothing known and has taken longer than its deadline: ETIMEDOUT. The
                     cache's disk hangs then (a dead NFS server, a broken device). Its thread cannot be ended; it stays
                     in the kernel until the disk answers, and its answer is dropped then.

The thread that takes a request out of `_waiting` answers it, so that each is answered once. Used by session.py and
loop_watch.py. Thread rule: any thread.
"""

from __future__ import annotations

import errno
import os
import time
from typing import Protocol

from regfs.errors import OutOfThreads, RegfsError, WorkStalled
from regfs.mount.kernel.abi import Opcode, name_of
from regfs.mount.kernel.kept.pending import NoPending
from regfs.mount.kernel.requests import Method
from regfs.mount.kernel.thread_pool import ThreadPool
from regfs.process.waiting.deadline import Deadline, under


class Answers(Protocol):
    """Where answers and failures go: KernelSession."""

    def answer(self, opcode: int, unique: int, node: int, body: bytes) -> None: ...

    def answer_error(self, unique: int, number: int) -> None: ...

    def errno_of(self, error: Exception, opcode: int, node: int, body: bytes) -> int: ...

    def tell(self, what: str, error: RegfsError) -> None: ...

    def drop(self, opcode: int, node: int, answer: bytes) -> None: ...


class _Waiting:
    """A request in the pool."""

    __slots__ = ("body", "deadline", "node", "opcode", "slot")

    def __init__(self, opcode: int, node: int, body: bytes, deadline: Deadline, slot: int) -> None:
        self.opcode = opcode
        self.slot = slot
        self.node = node
        self.body = body
        self.deadline = deadline


class WaitingRequests:
    """The requests that wait, each for *timeout_s* seconds; at most *most* of them have a thread at once."""

    def __init__(self, answers: Answers, *, timeout_s: float, most: int, pending: NoPending | None = None) -> None:
        """*pending* keeps them for the next daemon of the mount."""
        self._answers = answers
        self._pending = pending or NoPending()
        self._timeout_s = timeout_s
        self._pool = ThreadPool(most=most)
        self._waiting: dict[int, _Waiting] = {}

    def __contains__(self, unique: int) -> bool:
        return unique in self._waiting

    def __len__(self) -> int:
        """Return how many requests wait."""
        return len(self._waiting)

    @property
    def threads(self) -> int:
        """How many threads there are."""
        return self._pool.running

    def hand_over(
        self, method: Method, opcode: int, unique: int, node: int, body: bytes, slot: int = 0, age_s: float = 0.0
    ) -> None:
        """Answer the request with *method* in a thread of the pool.

        *slot*: where an earlier daemon has kept it; *age_s*: how long it waits already.
        """
        slot = slot or self._pending.keep(opcode, unique, node, body)
        deadline = Deadline(self._timeout_s - age_s, is_users=True)
        request = self._waiting[unique] = _Waiting(opcode, node, body, deadline, slot)
        try:
            self._pool.submit(lambda: self._answer_in_pool(method, unique, request))
        except OutOfThreads as error:
            del self._waiting[unique]
            self._answers.answer_error(unique, self._answers.errno_of(error, opcode, node, body))
            self._pending.done(slot)

    def interrupt(self, unique: int) -> bool:
        """Answer the request with EINTR; return False if it is answered already."""
        request = self._waiting.pop(unique, None)
        if request is None:
            return False
        request.deadline.cancel()
        self._answers.answer_error(unique, errno.EINTR)
        self._pending.done(request.slot)
        return True

    def cancel(self) -> None:
        """Let all requests end with EINTR. Takes no lock, so that a signal handler may call it."""
        for request in list(self._waiting.values()):
            request.deadline.cancel()

    def end_stuck(self) -> None:
        """Answer the requests that the disk has held up for longer than the deadline."""
        begun_before = time.monotonic() - self._timeout_s
        for unique, request in list(self._waiting.items()):
            active_since = request.deadline.active_since
            if active_since is None or active_since > begun_before or self._waiting.pop(unique, None) is None:
                continue
            request.deadline.cancel()
            self.answer_stuck(unique, request.opcode, request.node, request.body)
            self._pending.done(request.slot)

    def answer_stuck(self, unique: int, opcode: int, node: int, body: bytes) -> None:
        """Answer a request that the disk holds up with ETIMEDOUT, and report that."""
        # The answer goes first, and the report has the node's number: to log, or to read its path, may need the disk.
        self._answers.answer_error(unique, errno.ETIMEDOUT)
        name = f", name {os.fsdecode(body[:-1])!r}" if opcode == Opcode.LOOKUP else ""
        stalled = WorkStalled(f"the disk of the cache has not answered for {self._timeout_s:g} s")
        self._answers.tell(f"{name_of(opcode)} of node {node:#x}{name}", stalled)

    def _answer_in_pool(self, method: Method, unique: int, request: _Waiting) -> None:
        answer, number = b"", 0
        try:
            with under(request.deadline):
                answer = method(request.node, request.body) or b""
        except Exception as error:
            number = self._answers.errno_of(error, request.opcode, request.node, request.body)
        if self._waiting.pop(unique, None) is None:
            if not number:
                self._answers.drop(request.opcode, request.node, answer)
            return
        if number:
            self._answers.answer_error(unique, number)
        else:
            self._answers.answer(request.opcode, unique, request.node, answer)
        self._pending.done(request.slot)
