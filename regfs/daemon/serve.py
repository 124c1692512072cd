"""The daemon: builds the app, adds a session, mounts, and serves until a signal or an unmount ends it.

Used by cli/mount_command.py, in a child process (launch.py) or in the foreground; Serving and holding_of() also by
takeover/resume.py, for a mount that another daemon has served before. The main thread waits for signals. The threads of
the session start here, after the fork, because threads do not survive one. Nothing here asks a registry, prints or
exits.

    SIGTERM SIGINT   unmount; while the mount is in use, detach it and serve until it is free. The second one: end now
    SIGHUP           ask for tags and listings again when they are next needed. Changed files of credentials and hosts,
                     and a renamed log file, need no signal
    SIGUSR1          write counters and the stacks of all threads to the log
    SIGUSR2          switch the debug log on or off
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from regfs.app.composition import App
from regfs.app.config import Config
from regfs.app.upkeep import clean_up, keep_limits, scrub
from regfs.daemon.launch import Report
from regfs.daemon.logs import LogPlace, log_place, name_of_log, start_logging
from regfs.daemon.process_settings import set_up_process
from regfs.daemon.self_description import SelfDescription
from regfs.daemon.service_notices import ServiceNotices
from regfs.daemon.session import Session, build_session, driver_of, mount_options
from regfs.errors import InvalidOption, MountFailure, OutOfThreads, RegfsError
from regfs.model.names import ONE_IMAGE
from regfs.model.units import in_units
from regfs.mount.mountpoint import on_one_line
from regfs.process.clocks import Sleep
from regfs.process.threads import start_thread

if TYPE_CHECKING:
    from regfs.daemon.takeover.daemon_side import Holding
    from regfs.daemon.takeover.systemd_fd_store import StoredHolding
    from regfs.mount.kernel.kept.state_file import StateFile

log = logging.getLogger(__name__)

FAILED = 1
USAGE = 2
# Seconds from the mount until work that can wait starts, so that it does not slow down the first requests.
_LATER_S = 2.0
# Seconds without use after which an open table is closed.
_UNUSED_S = 300.0
# Seconds of suspend after which names that the kernel knows may be older than they should be.
_SUSPENDED_S = 1.0
# Seconds that a busy disk may take at the end to write what was fetched last.
_CLOSING_S = 30.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def serve(config: Config, point: str, *, environment: Mapping[str, str], report: Report) -> None:
    """Mount on *point* and serve until the end; *report* gets the result of the start."""
    set_up_process(driver_of(config))
    events = Events()
    place = log_place(config.log_file, cache=config.cache_dir, foreground=config.foreground)
    try:
        note = start_logging(logging.DEBUG if config.debug else config.log_level, place, environment=environment)
    except MountFailure as failure:  # there is no log to write it to
        report.failed(FAILED, str(failure))
        return
    try:
        report.doing("opening the cache" if config.image is None else f"looking up {config.image}")
        state = _new_state(config, environment)
        app, session, described = build_session(
            config, point, environment=environment, log_name=name_of_log(place), state=state
        )
        report.doing(f"mounting on {point}")
        session.mount(point, mount_options(config))
        holding = holding_of(config, session, state, place, environment=environment)
    except RegfsError as error:
        log.error("%s", error)  # noqa: TRY400 (no bug: the message says all)
        report.failed(USAGE if isinstance(error, InvalidOption) else FAILED, str(error))
        return
    # That the cache cannot be used is a warning, which -q does not silence.
    notes = [text for text in (app.note, None if config.is_quiet else note) if text]
    first = "" if config.is_quiet else f"{config.source.removeprefix(ONE_IMAGE)} is mounted at {on_one_line(point)}"
    message = "\n".join([first, *(f"note: {text}" for text in notes)])
    Serving(session, app, described, events, environment, holding).run(lambda: report.ready(message), report)


def _new_state(config: Config, environment: Mapping[str, str]) -> StateFile | None:
    """Return the memory for the state that outlives this daemon; None where the mount must or will end with it."""
    if not config.restart or driver_of(config) != "kernel":
        return None
    from regfs.daemon.takeover import daemon_side, systemd_fd_store

    return daemon_side.new_state() if not config.foreground or systemd_fd_store.has_store(environment) else None


def holding_of(
    config: Config,
    session: Session,
    state: StateFile | None,
    place: LogPlace,
    *,
    environment: Mapping[str, str],
    control: socket.socket | None = None,
    is_stored: bool = False,
) -> Holding | StoredHolding | None:
    """Return the Holding by which the mount of *session* outlives this daemon; None without *state*.

    *control*: a socket to the holder that has started this process. *is_stored*: the service manager has the mount.
    """
    if state is None:
        return None
    from regfs.daemon.takeover.daemon_side import Holding
    from regfs.daemon.takeover.mount_description import MountDescription, description_as_text
    from regfs.daemon.takeover.systemd_fd_store import StoredHolding
    from regfs.mount.kernel.session import KernelSession

    assert isinstance(session, KernelSession)
    description = description_as_text(MountDescription(config, session.own_mount))
    if config.foreground:
        return StoredHolding(session, state, description=description, environment=environment, is_stored=is_stored)
    log_file = place.name if place.kind in ("file", "own") else ""
    return Holding(session, state, description=description, log_file=log_file, control=control)


class Events:
    """Signals, and the end of the session, as events that the main thread waits for.

    The kernel may deliver a signal to any thread, but Python runs handlers in the main thread only, when that wakes up.
    So C code writes the number of the signal into a pipe at once (set_wakeup_fd), and the main thread reads the pipe.
    """

    END = 0
    HAND_OVER = 255

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, _heard)

    def end(self) -> None:
        """Let `wait` return END."""
        os.write(self._write, bytes([self.END]))

    def hand_over(self) -> None:
        """Let `wait` return HAND_OVER."""
        os.write(self._write, bytes([self.HAND_OVER]))

    def wait(self) -> int:
        """Return the next signal's number, END or HAND_OVER."""
        return os.read(self._read, 1)[0]


def _heard(number: int, frame: object) -> None:
    """Do nothing: C code writes to the pipe only for signals that have a handler."""


class Serving:
    """One session from its start to its end."""

    def __init__(
        self,
        session: Session,
        app: App,
        described: SelfDescription,
        events: Events,
        environment: Mapping[str, str],
        holding: Holding | StoredHolding | None = None,
    ) -> None:
        self._session = session
        self._holding = holding
        self._app = app
        self._described = described
        self._events = events
        self._environment = environment
        self._notices = ServiceNotices(environment)
        self._failure: MountFailure | OutOfThreads | None = None
        self._stops = 0
        self._ended = threading.Event()

    def run(self, on_ready: Callable[[], None], report: Report) -> None:
        """Serve until the session ends; signals are handled here."""
        try:
            start_thread(self._serve, on_ready, name="regfs-session")
        except OutOfThreads as failure:
            self._failure = failure
            self._stop_now()
        while (event := self._events.wait()) != Events.END:
            self._handle(event)
        self._ended.set()
        self._notices.stopping()
        if self._failure is not None:
            report.failed(FAILED, str(self._failure))
        self._close_app()
        log.info("unmounted, the end")

    def _close_app(self) -> None:
        """Close the app, within a time limit: a hanging disk of the cache must not keep this process alive."""
        try:
            closing = start_thread(self._app.close, name="regfs-closing")
        except OutOfThreads:
            self._app.close()
            return
        closing.join(_CLOSING_S)
        if closing.is_alive():
            log.warning(
                "the disk of the cache has not answered for %g s: what was fetched last is not kept", _CLOSING_S
            )

    def _serve(self, on_ready: Callable[[], None]) -> None:
        try:
            self._session.serve(lambda: self._started(on_ready))
        except (MountFailure, OutOfThreads) as failure:
            log.error("%s", failure)  # noqa: TRY400 (the message says all)
            self._failure = failure
        except BaseException:
            # A bug. Leave the dead mount in place: an empty directory would look like deleted files to rsync.
            log.exception("a bug has ended the session")
            self._failure = MountFailure("a bug has ended the session; the log has the details")
        finally:
            self._events.end()

    def _started(self, on_ready: Callable[[], None]) -> None:
        on_ready()
        self._notices.ready()
        if self._holding is not None:
            self._holding.start(self._events.hand_over)
        self._notices.watch(self._ended, status=self._status, answers=lambda: self._session.is_answering)
        later = threading.Timer(_LATER_S, self._do_later)
        later.name, later.daemon = "regfs-later", True
        try:
            later.start()
        except RuntimeError as error:
            log.warning("the cache is not tidied up: %s", error)  # the next mount does it

    def _do_later(self) -> None:
        gc.enable()  # cli/mount_command.py turned it off for the start
        self._app.load_client()
        from regfs.daemon.all_modules import load_all
        from regfs.daemon.registry_reachability import failure_to_reach

        load_all()
        clean_up(self._app)

        failure = failure_to_reach(self._app.config, self._environment)
        if failure is not None:
            self._app.journal.record("the default registry", failure)
        try:
            start_thread(lambda: scrub(self._app, self._ended), name="regfs-scrub")
        except OutOfThreads as shortage:
            log.warning("the cache is not checked for rot: %s", shortage)
        sleep = Sleep()
        while not self._ended.wait(_UNUSED_S):
            if sleep.passed_s() > _SUSPENDED_S:
                log.info("the machine was suspended: the kernel looks names up again")
                self._session.refresh()  # its own clock has stood still
            self._app.layers.tables.close_unused()
            keep_limits(self._app)

    def _handle(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            if self._holding is not None:
                self._holding.stop()
            self._stops += 1
            self._notices.stopping()
            # In a thread: umount(2) may wait for an answer of this daemon, and a second signal must get through.
            target = self._stop if self._stops == 1 else self._stop_now
            try:
                start_thread(target, name="regfs-stop")
            except OutOfThreads:
                target()
        elif number == Events.HAND_OVER:
            if self._holding is not None and not self._stops:
                self._hand_over(self._holding)
        elif number == signal.SIGHUP:
            self._refresh()
        elif number == signal.SIGUSR1:
            self._log_state()
        elif number == signal.SIGUSR2:
            root = logging.getLogger()
            root.setLevel(logging.INFO if root.level == logging.DEBUG else logging.DEBUG)
            log.info("log level %s", logging.getLevelName(root.level))

    @staticmethod
    def _hand_over(holding: Holding | StoredHolding) -> None:
        try:  # in a thread: signals must get through
            start_thread(holding.hand_over, name="regfs-hand-over")
        except OutOfThreads:
            holding.hand_over()

    def _refresh(self) -> None:
        self._described.refreshes_begun += 1
        self._notices.reloading()
        self._app.repositories.refresh()
        self._session.refresh()
        self._described.refreshes_done += 1
        self._notices.ready()
        log.info("tags and listings will be asked for again")

    def _stop(self) -> None:
        try:
            self._session.unmount()
        except MountFailure as failure:
            log.info("%s; detached, and served until it is no longer in use", failure)
            try:
                self._session.unmount(lazily=True)
            except MountFailure as second:
                log.warning("%s", second)
                self._session.stop()

    def _stop_now(self) -> None:
        try:
            self._session.stop()
        finally:
            self._events.end()

    def _status(self) -> str:
        """Return what the daemon does now, in one line."""
        under_way = self._app.layer_cache.under_way()
        received = sum(each.progress.received for each in under_way)
        wanted = sum(each.blob.descriptor.size for each in under_way)
        fetching = f"; {len(under_way)} layers on their way, {in_units(received)} of {in_units(wanted)}"
        exceeded = self._app.layers.budget.exceeded
        shows = self._app.config.source.removeprefix(ONE_IMAGE)
        return f"serving {shows}{fetching if under_way else ''}{f'; {exceeded}' if exceeded else ''}"

    def _log_state(self) -> None:
        log.info("counters: %s", ", ".join(f"{name} {value:g}" for name, value in self._app.stats.snapshot().items()))
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for ident, frame in sys._current_frames().items():
            log.info("thread %s:\n%s", names.get(ident, ident), "".join(traceback.format_stack(frame)))
