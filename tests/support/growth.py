"""How the work of a function grows with the size of its input.

Work is the CPU time of the thread: what other processes do meanwhile does not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable

# A linear function works 16 times as much for 16 times the input, a quadratic one 256 times as much. The bound lies
# between the two.
_TIMES = 16
_BOUND = 64


def assert_linear(work: Callable[[int], object], size: int) -> None:
    """Assert that *work* takes CPU time in proportion to the size that it is called with. *size* is the smaller one."""
    small_s = max(_least_s(work, size), 1e-5)
    large_s = _least_s(work, size * _TIMES)
    assert large_s < _BOUND * small_s, f"{_TIMES} times the input took {large_s / small_s:.0f} times as long"


def _least_s(work: Callable[[int], object], size: int) -> float:
    """Return the least time of five calls: the others were disturbed."""
    return min(_time_s(work, size) for _ in range(5))


def _time_s(work: Callable[[int], object], size: int) -> float:
    start_s = time.thread_time()
    work(size)
    return time.thread_time() - start_s
