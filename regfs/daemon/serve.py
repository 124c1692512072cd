"""The daemon: builds the rooms, mounts, serves until it is told to stop or somebody unmounts, and cleans up.

Used by cli/, in a child process (launch.py) or in the foreground. The main thread waits for signals; the session has
threads of its own, begun here, after the fork. Nothing here asks a registry, prints or exits.

    SIGTERM SIGINT   unmount; where somebody is inside, out of sight, and serve him until he leaves. Twice: end now
    SIGHUP           tags and listings are asked for anew when they are next wanted. Files of credentials, hosts and
                     logs are looked at again by themselves
    SIGUSR1          counters and the stacks of all threads to the log
    SIGUSR2          the debug log on and off
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
from pathlib import Path
from typing import Protocol

from regfs import app as building
from regfs.app import App
from regfs.config import Config
from regfs.daemon import self_description
from regfs.daemon.launch import Report
from regfs.daemon.logs import LogPlace, log_place, name_of_log, start_logging
from regfs.daemon.process_settings import set_up_process
from regfs.daemon.self_description import SelfDescription
from regfs.errors import InvalidOption, MountFailure, OutOfThreads, RegfsError
from regfs.model.platform import host_platform
from regfs.mount.in_use import directories_in_use
from regfs.mount.mountpoint import on_one_line
from regfs.mount.options import MountOptions
from regfs.process.threads import start_thread

log = logging.getLogger(__name__)

FAILED = 1
USAGE = 2
# libfuse 2 has one timeout for all names, and a tag's is added to it: short, but long enough that a program which
# starts in an image does not have each directory of its path looked up again and again.
_FUSEPY_VALID_S = 1.0
# What can wait comes after the first questions, which nothing shall slow down.
_LATER_S = 2.0
# What was not used for so long is closed.
_UNUSED_S = 300.0
# What a busy disk may need in the end to write what was fetched last.
_CLOSING_S = 30.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Session(Protocol):
    """What both drivers offer: see kernel/session.py."""

    @property
    def device(self) -> str: ...

    def mount(self, mountpoint: str, options: MountOptions) -> None: ...

    def serve(self, on_ready: Callable[[], None] | None = None) -> None: ...

    def unmount(self, *, lazily: bool = False) -> None: ...

    def refresh(self) -> None: ...

    def stop(self) -> None: ...


def serve(config: Config, point: str, *, environment: Mapping[str, str], report: Report) -> None:
    """Mount on *point* and serve until the end; *report* hears how the start went."""
    set_up_process(_driver(config))
    events = _Events()
    place = log_place(config.log_file, cache=config.cache_dir, foreground=config.foreground)
    try:
        note = start_logging(logging.DEBUG if config.debug else config.log_level, place, environment=environment)
    except MountFailure as failure:  # there is no log to tell it to
        report.failed(FAILED, str(failure))
        return
    try:
        report.doing("building")
        rooms = building.build(config, environment, mountpoint=Path(point))
        described = describe(config, rooms, place)
        session = make_session(config, rooms, described)
        report.doing(f"mounting on {point}")
        session.mount(point, mount_options(config))
    except RegfsError as error:
        log.error("%s", error)  # noqa: TRY400 (the user's or the system's doing: the words say all)
        report.failed(USAGE if isinstance(error, InvalidOption) else FAILED, str(error))
        return
    # That the cache cannot be used is a warning, which -q does not silence.
    notes = [text for text in (rooms.note, None if config.is_quiet else note) if text]
    first = "" if config.is_quiet else f"{config.source} is mounted at {on_one_line(point)}"
    message = "\n".join([first, *(f"note: {text}" for text in notes)])
    _Serving(config, session, rooms, described, events, environment).run(lambda: report.ready(message), report)


def _driver(config: Config) -> str:
    if config.driver == "auto":
        return "kernel" if sys.platform == "linux" else "fusepy"
    return config.driver


def describe(config: Config, rooms: App, place: LogPlace) -> SelfDescription:
    """Return what this daemon says of itself."""
    driver = _driver(config)
    return SelfDescription(
        driver=driver,
        names_valid_s=min(config.tag_ttl_s, _FUSEPY_VALID_S) if driver == "fusepy" else 0.0,
        platform=str(config.platform or host_platform()),
        log=name_of_log(place),
        cache=rooms.cache,
        standing=rooms.layers.budget.standing,
    )


def make_session(config: Config, rooms: App, described: SelfDescription) -> Session:
    """Return a session of the driver that *described* names. Raises MountFailure where it cannot run here."""
    session: Session
    texts = {self_description.FILE: described.text}
    tree = rooms.tree(config, texts, lambda: directories_in_use(session.device, overlays=described.driver == "fusepy"))
    if described.driver == "kernel":
        from regfs.mount.kernel.session import KernelSession

        session = KernelSession(
            tree,
            rooms.stats,
            errors=rooms.journal.record,
            timeout_s=config.timeout_s,
            passthrough=config.passthrough,
            low_latency=config.low_latency,
        )
        return session
    from regfs.mount.fusepy.session import FusepySession

    session = FusepySession(
        tree,
        rooms.stats,
        errors=rooms.journal.record,
        timeout_s=config.timeout_s,
        valid_s=described.names_valid_s,
        low_latency=config.low_latency,
    )
    return session


def mount_options(config: Config) -> MountOptions:
    """Return how to mount. Raises InvalidOption where only root may ask for it."""
    for asked, word in ((config.allow_suid, "allow_suid"), (config.allow_dev, "allow_dev")):
        if asked and os.geteuid() != 0:
            raise InvalidOption(f"{word}: only root may mount so")
    return MountOptions(
        source=config.source,
        allow_other=config.allow_other,
        allow_suid=config.allow_suid,
        allow_dev=config.allow_dev,
        noexec="noexec" in config.kernel_words,
        default_permissions=config.default_permissions,
    )


class _Events:
    """Signals, and the end of the session, for the main thread to wait for.

    The kernel gives a signal to any thread, and Python runs its handler in the main thread alone, whenever that wakes
    up. So C code writes the signal's number into a pipe at once (set_wakeup_fd), and the main thread reads the pipe.
    """

    END = 0

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, _heard)

    def end(self) -> None:
        """Let `wait` return END."""
        os.write(self._write, bytes([self.END]))

    def wait(self) -> int:
        """Return the next signal's number, or END."""
        return os.read(self._read, 1)[0]


def _heard(number: int, frame: object) -> None:
    """Do nothing: that there is a handler is what makes C code write to the pipe."""


class _Serving:
    """One session from its start to its end."""

    def __init__(
        self,
        config: Config,
        session: Session,
        rooms: App,
        described: SelfDescription,
        events: _Events,
        environment: Mapping[str, str],
    ) -> None:
        self._config = config
        self._session = session
        self._rooms = rooms
        self._described = described
        self._events = events
        self._environment = environment
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
        while (event := self._events.wait()) != _Events.END:
            self._handle(event)
        self._ended.set()
        self._notify("STOPPING=1")
        if self._failure is not None:
            report.failed(FAILED, str(self._failure))
        self._close_rooms()
        log.info("unmounted, the end")

    def _close_rooms(self) -> None:
        """Close what is open; a disk of the cache that hangs may not keep this process alive."""
        try:
            closing = start_thread(self._rooms.close, name="regfs-closing")
        except OutOfThreads:
            self._rooms.close()
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
            log.error("%s", failure)  # noqa: TRY400 (the words say all)
            self._failure = failure
        except BaseException:
            # A bug: the mount is left as it is, dead, for an empty directory would look like deleted files.
            log.exception("the session ended by a bug")
            self._failure = MountFailure("the session ended by a bug; the log has the details")
        finally:
            self._events.end()

    def _started(self, on_ready: Callable[[], None]) -> None:
        on_ready()
        self._notify("READY=1")
        later = threading.Timer(_LATER_S, self._do_later)
        later.name, later.daemon = "regfs-later", True
        try:
            later.start()
        except RuntimeError as error:
            log.warning("the cache is not tidied up: %s", error)  # the next mount does it

    def _do_later(self) -> None:
        gc.enable()  # what the command line turned off for the start and the first answers
        self._rooms.load_client()
        building.clean_up(self._rooms)
        from regfs.daemon.reachability import failure_to_reach

        failure = failure_to_reach(self._config, self._environment)
        if failure is not None:
            self._rooms.journal.record("the default registry", failure)
        while not self._ended.wait(_UNUSED_S):
            self._rooms.layers.tables.close_unused()

    def _handle(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stops += 1
            self._notify("STOPPING=1")
            # In a thread: umount(2) may wait for an answer, and a second signal must be heard.
            target = self._stop if self._stops == 1 else self._stop_now
            try:
                start_thread(target, name="regfs-stop")
            except OutOfThreads:
                target()
        elif number == signal.SIGHUP:
            self._refresh()
        elif number == signal.SIGUSR1:
            self._log_state()
        elif number == signal.SIGUSR2:
            root = logging.getLogger()
            root.setLevel(logging.INFO if root.level == logging.DEBUG else logging.DEBUG)
            log.info("log level %s", logging.getLevelName(root.level))

    def _refresh(self) -> None:
        self._described.refreshes_begun += 1
        self._rooms.repositories.refresh()
        self._session.refresh()
        self._described.refreshes_done += 1
        log.info("tags and listings are asked for anew")

    def _stop(self) -> None:
        try:
            self._session.unmount()
        except MountFailure as failure:
            log.info("%s; detached, and served until nobody is inside any more", failure)
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

    def _log_state(self) -> None:
        log.info("counters: %s", ", ".join(f"{name} {value:g}" for name, value in self._rooms.stats.snapshot().items()))
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for ident, frame in sys._current_frames().items():
            log.info("thread %s:\n%s", names.get(ident, ident), "".join(traceback.format_stack(frame)))

    def _notify(self, text: str) -> None:
        """Tell systemd by a datagram to $NOTIFY_SOCKET; a leading @ is for an abstract name. Source: sd_notify(3)."""
        address = self._environment.get("NOTIFY_SOCKET", "")
        if not address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
                connection.sendto(text.encode(), "\0" + address[1:] if address[0] == "@" else address)
        except OSError as error:
            log.debug("systemd is not told: %s", error)
