"""Notices to the service manager: ready, stopping, what the daemon does now, and that it still answers.

    READY=1      paths answer; MAINPID= is the process that serves: in the background, a child of the one started
    RELOADING=1  SIGHUP was heard; READY=1 follows when that is done (Type=notify-reload)
    STATUS=      what `systemctl status` shows in one line; sent again when it has changed
    WATCHDOG=1   each half of $WATCHDOG_USEC, as long as requests are answered (WatchdogSec= of the unit)
    STOPPING=1   a signal or an unmount ends the daemon

Each is a datagram to the socket that $NOTIFY_SOCKET names; a leading @ stands for an abstract name. Without that
variable nothing is sent and no thread runs. Sources: sd_notify(3), sd_watchdog_enabled(3).

Used by serve.py. Thread rule: any thread; watch() starts one of its own. Sending never waits.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping

from regfs.errors import OutOfThreads
from regfs.process.threads import start_thread

log = logging.getLogger(__name__)

_STATUS_EVERY_S = 10.0
_MOST_STATUS = 400


class ServiceNotices:
    """Tells the service manager that *environment* names, if there is one. Create it in the process that serves."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog_s = _watchdog_s(environment)
        self._status = ""

    def ready(self) -> None:
        """Tell that paths answer, and which process serves."""
        self._send("READY=1", f"MAINPID={os.getpid()}")

    def reloading(self) -> None:
        """Tell that a reload has begun: tags and listings will be asked for again."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Tell that the end has begun."""
        self._send("STOPPING=1")

    def watch(self, ended: threading.Event, *, status: Callable[[], str], answers: Callable[[], bool]) -> None:
        """Send *status* when it has changed, and WATCHDOG=1 as long as the mount *answers*, until *ended* is set."""
        if not self._address:
            return
        try:
            start_thread(lambda: self._watch(ended, status, answers), name="regfs-notices-to-service")
        except OutOfThreads as shortage:  # a watchdog then restarts a daemon that is short of threads
            log.warning("the service manager gets no further notices: %s", shortage)

    def _watch(self, ended: threading.Event, status: Callable[[], str], answers: Callable[[], bool]) -> None:
        pause_s = min(_STATUS_EVERY_S, self._watchdog_s / 2) if self._watchdog_s else _STATUS_EVERY_S
        is_told = False
        while True:
            self._tell_status(status)
            if self._watchdog_s:
                if answers():
                    self._send("WATCHDOG=1")
                    is_told = False
                elif not is_told:
                    is_told = True
                    log.error("requests are not answered: the watchdog of the service manager gets no sign of life")
            if ended.wait(pause_s):
                return

    def _tell_status(self, status: Callable[[], str]) -> None:
        text = " ".join(status().split())[:_MOST_STATUS]
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
                connection.setblocking(False)
                connection.sendto("\n".join(lines).encode(errors="replace"), self._address)
        except (OSError, ValueError) as error:  # a service manager that does not read its socket stops no mount
            log.debug("the service manager could not be notified: %s", error)


def _watchdog_s(environment: Mapping[str, str]) -> float:
    """Return within how many seconds the service manager wants to hear of this process; 0 where it does not.

    $WATCHDOG_PID names the process that was started: this one, or its parent where it went to the background.
    """
    microseconds, process = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not (microseconds.isascii() and microseconds.isdigit()):
        return 0.0
    if process and process not in (str(os.getpid()), str(os.getppid())):
        return 0.0
    return int(microseconds) / 1e6
