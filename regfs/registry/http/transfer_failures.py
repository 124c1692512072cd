"""How often one transfer may break off and go on. Used by blobs.py. Thread rule: belongs to one transfer.

Source: containers/image, body_reader.go (when a resumed transfer has made progress).
"""

from __future__ import annotations

import time

from regfs.errors import RegfsError
from regfs.process.waiting import deadline
from regfs.registry.http.ranges import WrongBody
from regfs.registry.http.retry_policy import RetryPolicy

_PROGRESS_BYTES = 1024 * 1024
_PROGRESS_S = 60.0


class TransferFailures:
    """Counts the failures of one transfer; progress resets the count."""

    def __init__(self, retry: RetryPolicy) -> None:
        self._retry = retry
        self._count = 0
        self._wrong_bodies = 0
        self._offset = 0
        self._last = time.monotonic()

    def wait_s(self, error: RegfsError, offset: int) -> float:
        """Return how long to wait before going on at *offset*; raises *error* if there were too many failures."""
        now = time.monotonic()
        received = offset - self._offset
        if received >= _PROGRESS_BYTES or (self._count and received and now - self._last >= _PROGRESS_S):
            self._count = 0
        self._offset, self._last = offset, now
        self._count += 1
        self._wrong_bodies += isinstance(error, WrongBody)
        deadline.current().remaining_s(0.0)
        if self._count >= self._retry.attempts or self._wrong_bodies > 1:
            raise error
        return self._retry.wait_s(self._count)
