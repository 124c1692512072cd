"""The exit codes of the verbs: one for each kind of error. mount.regfs has those of mount(8), see main.py.

A command that a signal ends has 128 plus its number. Pure; any thread.
"""

from __future__ import annotations

from regfs.errors import (
    AccessDenied,
    BadContent,
    InvalidName,
    InvalidOption,
    NotFound,
    OutOfThreads,
    RateLimited,
    RegfsError,
    RegistryTimeout,
    RegistryUnavailable,
    TooLarge,
    Unsupported,
)

FAILED, USAGE, BAD_CONTENT = 1, 2, 6
MEANINGS = {
    0: "done",
    1: "failed",
    2: "wrong usage",
    3: "not found",
    4: "denied",
    5: "try later",
    6: "bad content",
    7: "not supported",
}
"""What each exit code means, for the manual page."""
_CODES: tuple[tuple[type[RegfsError], int], ...] = (
    (InvalidOption, USAGE),
    (InvalidName, USAGE),
    (NotFound, 3),
    (AccessDenied, 4),
    (OutOfThreads, 5),
    (RateLimited, 5),
    (RegistryTimeout, 5),
    (RegistryUnavailable, 5),
    (BadContent, BAD_CONTENT),
    (Unsupported, 7),
    (TooLarge, 7),
)


def exit_code(error: RegfsError) -> int:
    """Return the exit code of a verb that failed with *error*."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)
