"""The deadline of the request that a serving thread answers. Used by session.py, serving_threads.py and adapter.py.

Thread rule: one thread serves under it; any thread may cancel it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from regfs.process.waiting.deadline import Deadline

_INTERRUPT_POLL_S = 0.1


class RequestDeadline(Deadline):
    """The deadline of a serving thread, renewed for each request: a new object would cost as much as an answer.

    It calls *on_wait* when the request begins to wait, and ends when the kernel interrupts the request.
    """

    __slots__ = ("_is_interrupted", "_on_wait", "_timeout_s", "has_waited", "path")

    def __init__(
        self, timeout_s: float, on_wait: Callable[[RequestDeadline], None], is_interrupted: Callable[[], int]
    ) -> None:
        """*is_interrupted* returns whether the kernel has interrupted the request of this thread."""
        super().__init__(timeout_s, is_users=True)
        self.has_waited = False
        self.path: object = b""
        self._timeout_s = timeout_s
        self._on_wait = on_wait
        self._is_interrupted = is_interrupted

    def renew(self, path: object) -> None:
        """Begin another request, for *path*; None for a request by handle."""
        self.path = path
        self.end_s = time.monotonic() + self._timeout_s
        self.cancelled = False
        self.has_waited = False

    def remaining_s(self, at_most_s: float) -> float:
        if not self.has_waited:
            self.has_waited = True
            self._on_wait(self)
        return super().remaining_s(at_most_s)

    def _pause(self, seconds: float) -> None:
        # libfuse 2 reports an interrupt only to the thread that serves the request, and only on a call.
        super()._pause(min(seconds, _INTERRUPT_POLL_S))
        if self._is_interrupted():
            self.cancelled = True
