"""The process that takes a mount over from a daemon that has ended, or is about to.

    python -c "… main()" CONNECTION STATE CONTROL POINT     as the holder starts it (holder.py has the protocol)

It loads everything and opens the cache first, while the other daemon may still serve, says "ready" and waits for "go".
Only then it reads the state, which no other process writes any more.
"""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import NoReturn

import regfs.mount.kernel.session  # noqa: F401 (loaded now, not when requests wait)
from regfs.daemon.logs import log_place, name_of_log, start_logging
from regfs.daemon.process_settings import set_up_process
from regfs.daemon.serve import FAILED, Events, Serving, holding_of
from regfs.daemon.session import build_session, mount_options
from regfs.daemon.takeover.asked import Asked, parse_asked
from regfs.errors import MountFailure, RegfsError
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
    asked = _asked(state)
    config, mount = asked.config, asked.mount
    set_up_process("kernel")
    events = Events()
    place = log_place(config.log_file, cache=config.cache_dir, foreground=False)
    start_logging(logging.DEBUG if config.debug else config.log_level, place, environment=environment)
    app, session, described = build_session(
        config, mount.path, environment=environment, log_name=name_of_log(place), state=state,
        on_ready=lambda: _await_turn(control),
    )  # fmt: skip
    holding = holding_of(config, session, state, mount.path, place, control=control)
    assert holding is not None
    options = mount_options(config)
    holding.session.take_over(connection, mount, checks_permissions=options.checks_permissions)
    log.info("%s is taken over: the daemon before %s", mount.path, state.last_end)
    report = _LogReport()
    Serving(session, app, described, events, environment, holding).run(lambda: None, report)
    return report.code


def _asked(state: StateFile) -> Asked:
    try:
        return parse_asked(state.asked)
    except (ValueError, KeyError, TypeError) as error:
        raise MountFailure(f"this release does not know an option of the mount: {error!r}") from error


def _await_turn(control: socket.socket) -> None:
    """Say that all is loaded, and wait until the other daemon has ended. Raises MountFailure if it goes on."""
    control.send(b"ready")
    if control.recv(4096) != b"go":
        raise MountFailure("the holder of the mount has ended")


class _LogReport:
    """Reports how the end went to the log: no user waits for it."""

    def __init__(self) -> None:
        self.code = 0

    def doing(self, what: str) -> None:
        del what

    def ready(self, message: str) -> None:
        del message

    def failed(self, code: int, message: str) -> None:
        self.code = code
        log.error("%s", message)
