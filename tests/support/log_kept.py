"""What a verb makes of the log of its process is undone, where a test runs the verb in its own process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def log_kept() -> Iterator[None]:
    """Put handlers and levels back at the end of the block."""
    root, urllib3 = logging.getLogger(), logging.getLogger("urllib3")
    handlers, levels, raises = root.handlers[:], (root.level, urllib3.level), logging.raiseExceptions
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(levels[0])
        urllib3.setLevel(levels[1])
        logging.raiseExceptions = raises
