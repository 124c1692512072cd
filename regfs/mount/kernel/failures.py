"""Answers and reports requests that fail. Used by session.py. Any thread."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from regfs.errors import Interrupted, RegfsError
from regfs.mount.errnos import errno_of, is_failure
from regfs.mount.kernel import abi
from regfs.mount.kernel.abi import Opcode
from regfs.mount.kernel.requests import Refused
from regfs.telemetry.stats import Stats

if TYPE_CHECKING:
    from regfs.mount.filesystem import FileSystem

log = logging.getLogger(__name__)

ErrorCallback = Callable[[str, RegfsError], None]


def log_failure(what: str, error: RegfsError) -> None:
    """Log *error*: the default for sessions without a journal of errors."""
    log.warning("%s: %s", what, error)


class Failures:
    """Reports the failures of requests about *tree*; *errors* is called once for each."""

    def __init__(self, tree: FileSystem, stats: Stats, errors: ErrorCallback) -> None:
        self._tree = tree
        self._stats = stats
        self.tell = errors

    def errno_of(self, error: Exception, opcode: int, node: int, body: bytes) -> int:
        """Return the errno for *error*, after reporting a failure, or logging and counting a bug."""
        if isinstance(error, Refused):
            return error.errno
        if isinstance(error, Interrupted):
            return errno.EINTR
        if isinstance(error, RegfsError):
            if is_failure(error):
                self.tell(self.what(opcode, node, body), error)
            return errno_of(error)
        self._stats.count("bugs")
        log.error("%s", self.what(opcode, node, body), exc_info=error)
        return errno.EIO

    def what(self, opcode: int, node: int, body: bytes) -> str:
        """Return what the request asks for, for messages: `LOOKUP /library/debian/latest`."""
        name = self._tree.name_of(node)
        if opcode in (Opcode.LOOKUP, Opcode.UNLINK):
            name = f"{name.rstrip('/')}/{os.fsdecode(body[:-1])}"
        return f"{abi.name_of(opcode)} {name}"

    def note_bug(self, opcode: int, node: int) -> None:
        """Count and log the error that is being handled."""
        self._stats.count("bugs")
        what = f"{abi.name_of(opcode)} of node {node:#x}" if opcode else "prefetching"
        log.exception("%s", what)
