"""How the time that a function takes grows with the size of its input."""

from __future__ import annotations

import time
from collections.abc import Callable

# A linear function takes 16 times as long for 16 times the input, a quadratic one 256 times as long. The bound lies
# between the two with room for a machine that stands still.
_TIMES = 16
_BOUND = 64


def assert_linear(work: Callable[[int], object], size: int) -> None:
    """Assert that *work* takes time in proportion to the size that it is called with. *size* is the smaller one."""
    small_s = max(_least_s(work, size), 1e-5)
    large_s = _least_s(work, size * _TIMES)
    assert large_s < _BOUND * small_s, f"{_TIMES} times the input took {large_s / small_s:.0f} times as long"


def _least_s(work: Callable[[int], object], size: int) -> float:
    """Return the least time of five calls: the others were disturbed."""
    return min(_time_s(work, size) for _ in range(5))


def _time_s(work: Callable[[int], object], size: int) -> float:
    start_s = time.perf_counter()
    work(size)
    return time.perf_counter() - start_s
