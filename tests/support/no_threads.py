"""A process that can start no further thread, as at the limit of pids.max or ulimit -u."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_MORE_THAN_THERE_IS = 1 << 46


@contextmanager
def no_threads() -> Iterator[None]:
    """Let every start of a thread in this process fail: its stack would be larger than the address space.

    The limits themselves do not bind root, and most tests run as root.
    """
    before = threading.stack_size(_MORE_THAN_THERE_IS)
    try:
        yield
    finally:
        threading.stack_size(before)
