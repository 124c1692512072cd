"""The process that takes a mount over from a daemon that has ended, or is about to.

    python -c "… main()" CONNECTION STATE CONTROL POINT     as the holder starts it (holder_process.py has the protocol)

It reads the options from the state, loads everything and opens the cache, while the other daemon may still serve; says
"ready" and waits for "go". It reads the rest of the state last, when no other process writes to it any more.
"""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import NoReturn

from regfs.daemon.serve import FAILED
from regfs.daemon.takeover.mount_description import parse_description
from regfs.daemon.takeover.resume import resume
from regfs.errors import RegfsError
from regfs.mount.kernel.kept.state_file import StateFile

log = logging.getLogger(__name__)


def main() -> NoReturn:
    """Take over the mount that the arguments name, and serve it until its end."""
    gc.disable()  # collecting takes a twentieth of a start; Serving turns it on again
    connection, state_descriptor, control = map(int, sys.argv[1:4])
    for descriptor in (connection, state_descriptor, control):
        os.set_inheritable(descriptor, False)
    with suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as name:
        name.write("regfs")
    code = FAILED
    try:
        state = StateFile(state_descriptor)
        try:
            code = _take_over(state, connection, socket.socket(fileno=control), os.environ)
        except RegfsError as error:
            log.error("the mount is not taken over: %s", error)  # noqa: TRY400 (no bug: the message says all)
            state.fail(str(error))
        except Exception as error:
            log.exception("a bug keeps the mount from being taken over")
            state.fail(f"a bug: {error!r}; the log has the details")
    finally:
        os._exit(code)


def _take_over(state: StateFile, connection: int, control: socket.socket, environment: Mapping[str, str]) -> int:
    """Serve the mount of *state*, and return the exit code.

    *connection* is that of /dev/fuse, *control* a socket to the holder. Raises RegfsError where that is not possible.
    """
    description = parse_description(state.description)
    report = _LogReport()
    resume(
        replace(description.config, foreground=False), description.mount, state, connection,
        environment=environment, report=report, control=control,
    )  # fmt: skip
    return report.code


class _LogReport:
    """Reports the start to the log: no user waits for it."""

    def __init__(self) -> None:
        self.code = 0

    def doing(self, what: str) -> None:
        del what

    def ready(self, message: str) -> None:
        del message

    def failed(self, code: int, message: str) -> None:
        self.code = code
        log.error("%s", message)
