"""Makes each RegfsError an OSError too: FileNotFoundError, PermissionError, TimeoutError, or another one.

Programs can catch OSError, or a class of regfs.errors. Each error that the library raises is both, with the errno that
the same failure has in a mount. Any thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from regfs.errors import RegfsError
from regfs.mount.errnos import errno_of
from regfs.process.waiting.deadline import Deadline, under


def as_os_error(error: RegfsError) -> RegfsError:
    """Return *error* as an OSError too, with the same message and cause; its class is derived from that of *error*."""
    if isinstance(error, OSError):
        return error
    number = errno_of(error)
    made = _both(type(error), type(OSError(number, "")))(str(error))
    made.errno = number  # type: ignore[attr-defined]
    return made


@contextmanager
def asking(timeout_s: float | None) -> Iterator[None]:
    """Run the block with a deadline, and raise its RegfsErrors as OSErrors too.

    The deadline ends a wait after *timeout_s* seconds without progress.
    """
    try:
        with under(Deadline(timeout_s)):
            yield
    except RegfsError as error:
        # `from None` would hide the cause, and `from error` would name the error as its own cause.
        raise as_os_error(error).with_traceback(error.__traceback__) from error.__cause__


_KINDS: dict[tuple[type[RegfsError], type[OSError]], type[RegfsError]] = {}


def _both(kind: type[RegfsError], of_python: type[OSError]) -> type[RegfsError]:
    """Return the class derived from *kind* and *of_python*, made once; there are as many as classes in errors.py."""
    made = _KINDS.get((kind, of_python))
    if made is None:
        body = {"__module__": kind.__module__, "__doc__": kind.__doc__}
        made = _KINDS.setdefault((kind, of_python), type(kind.__name__, (kind, of_python), body))
    return made
