"""The terminal: results on stdout, all else on stderr, one line each. The only module that prints. Any thread."""

from __future__ import annotations

import sys


def tell(text: str) -> None:
    """Print the result *text* on stdout. Raises BrokenPipeError where its reader has gone."""
    print(text, flush=True)


def warn(message: str) -> None:
    """Print *message* on stderr, as regfs's own words.

    A terminal that was closed is no reason to end a verb that goes on without it.
    """
    try:
        print(f"regfs: {message}", file=sys.stderr, flush=True)
    except OSError:
        pass
