"""Variants of one fault, tried at the same time.

Thread rule: any thread; *check* runs in a thread of its own for each variant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

T = TypeVar("T")


def all_at_once(check: Callable[[str, T], None], variants: Mapping[str, T]) -> None:
    """Call *check* with the name and the value of each of *variants*, at the same time: most of them wait.

    Mount before: two threads at once would find that nothing is mounted yet.
    """

    def named(name: str, value: T) -> BaseException | None:
        try:
            check(name, value)
        except (Exception, pytest.fail.Exception) as error:
            error.add_note(f"variant: {name}")
            return error
        return None

    with ThreadPoolExecutor(len(variants)) as pool:
        failures = [error for error in pool.map(named, variants, variants.values()) if error is not None]
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise BaseExceptionGroup(f"{len(failures)} of {len(variants)} variants", failures)
