"""Serves a mount that another daemon has served before. Used by successor.py and, under systemd, the command line.

Everything is loaded and the cache opened first, while the other daemon may still serve. What the kernel has open and
knows is read last, when no other process writes to the state any more.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping
from functools import partial

from regfs.app.config import Config
from regfs.daemon.launch import Report
from regfs.daemon.logs import log_place, name_of_log, start_logging
from regfs.daemon.process_settings import set_up_process
from regfs.daemon.serve import FAILED, Events, Serving, holding_of
from regfs.daemon.session import build_session, driver_of, mount_options
from regfs.daemon.takeover.mount_description import parse_description
from regfs.daemon.takeover.systemd_fd_store import stored
from regfs.errors import MountFailure, RegfsError
from regfs.mount.kernel.kept.state_file import StateFile
from regfs.mount.kernel.session import KernelSession
from regfs.mount.mountpoint import OwnMount, on_one_line

log = logging.getLogger(__name__)


def resume(
    config: Config,
    mount: OwnMount,
    state: StateFile,
    connection: int,
    *,
    environment: Mapping[str, str],
    report: Report,
    control: socket.socket | None = None,
) -> None:
    """Serve *mount* as *config* says until its end; *connection* is that of /dev/fuse.

    *control* is a socket to the holder where that has started this process: the holder says when the other daemon has
    ended. Raises RegfsError where the mount cannot be taken over.
    """
    set_up_process("kernel")
    events = Events()
    place = log_place(config.log_file, cache=config.cache_dir, foreground=config.foreground)
    start_logging(logging.DEBUG if config.debug else config.log_level, place, environment=environment)
    app, session, described = build_session(
        config, mount.path, environment=environment, log_name=name_of_log(place), state=state,
        on_ready=partial(_await_turn, control),
    )  # fmt: skip
    assert isinstance(session, KernelSession)
    checks_permissions = mount_options(config).checks_permissions
    session.take_over(connection, mount, checks_permissions=checks_permissions)
    holding = holding_of(config, session, state, place, environment=environment, control=control, is_stored=True)
    log.info("%s is taken over: the daemon before %s", mount.path, state.last_end or "has ended")
    said = "" if config.is_quiet else f"{on_one_line(mount.path)} is taken over from a daemon that has ended"
    Serving(session, app, described, events, environment, holding).run(lambda: report.ready(said), report)


def resume_stored(config: Config, point: str, *, environment: Mapping[str, str], report: Report) -> bool:
    """Serve the mount on *point* that the service manager has kept since the last daemon; return whether there is one.

    One that was unmounted meanwhile is forgotten. Call it before anything looks at *point*: a look-up there would wait
    for this process.
    """
    kept = stored(environment) if driver_of(config) == "kernel" else None
    if kept is None:
        return False
    try:
        mount = parse_description(kept.state.description).mount
        if mount.path != point:
            raise MountFailure(f"the mount that the service manager has kept is that on {mount.path}, not {point}")
        if not mount.is_there():
            log.info("the mount on %s was unmounted meanwhile: a new one is made", mount.path)
            kept.end(environment)
            return False
        kept.state.count_restart()
        resume(config, mount, kept.state, kept.connection, environment=environment, report=report)
    except RegfsError as error:
        log.error("the mount is not taken over: %s", error)  # noqa: TRY400 (no bug: the message says all)
        kept.state.end()  # the next start makes a new mount
        report.failed(FAILED, str(error))
    return True


def _await_turn(control: socket.socket | None) -> None:
    """Tell the holder that all is loaded, and wait for its "go": the other daemon has ended then.

    Raises MountFailure if the holder ends before.
    """
    if control is None:
        return
    control.send(b"ready")
    if control.recv(4096) != b"go":
        raise MountFailure("the holder of the mount has ended")
