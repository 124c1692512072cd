"""Where the log goes: syslog in the background, stderr in the foreground, or a file that the user names.

Without syslog (in containers) it goes to a file in the cache directory, of at most two MiB; the older half is dropped.
After the file was renamed a new one is opened, so that logrotate needs no signal. A message that comes too often is
counted instead, so that a log never fills a disk. Used by serve.py and the command line. Thread rule: logging's own.
"""

from __future__ import annotations

import fcntl
import logging
import logging.handlers
import os
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from regfs.errors import MountFailure
from regfs.model.userinfo import without_userinfo

_SYSLOG = "/dev/log"
_OWN_FILE = "regfs.log"
_OWN_LIMIT = 1 << 20  # bytes, of each of the two halves
_OFTEN = 20
_WINDOW_S = 60.0
_FILE_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_JOURNAL_LEVELS = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class Sparse(logging.Filter):
    """Lets 20 messages of one kind (one line of the source) through in a minute, and says how many it dropped."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether *record* is to be written."""
        kind = (record.pathname, record.lineno)
        now = time.monotonic()
        with self._lock:
            since, times = self._seen.get(kind, (now, 0))
            if now - since > _WINDOW_S:
                if times > _OFTEN:
                    record.msg = f"{record.msg} [and {times - _OFTEN} more of these in the last minutes]"
                since, times = now, 0
            self._seen[kind] = (since, times + 1)
            return times < _OFTEN


class PlainFormatter(logging.Formatter):
    """Hides passwords that users typed with a reference."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of *record*."""
        return without_userinfo(super().format(record))


class JournalFormatter(PlainFormatter):
    """Puts the priority before each line, as systemd's journal reads it. Source: sd-daemon(3)."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of *record*."""
        prefix = f"<{_JOURNAL_LEVELS.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


class EncodableFormatter(PlainFormatter):
    """Escapes what UTF-8 cannot encode, such as bytes of a path: the handler for syslog would drop the message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of *record*."""
        return super().format(record).encode("utf-8", "backslashreplace").decode()


class LogPlace(NamedTuple):
    """Where the log goes, and its name for users. `own` is a file that regfs has chosen."""

    kind: Literal["stderr", "syslog", "file", "own"]
    name: str


def log_place(file: Path | None, *, cache: Path, foreground: bool) -> LogPlace:
    """Return where the log goes: to *file* if the user named one."""
    if file is not None:
        return LogPlace("file", str(file))
    if foreground:
        return LogPlace("stderr", "the lines above")
    if os.path.exists(_SYSLOG):
        return LogPlace("syslog", "syslog (journalctl -t regfs)")
    return LogPlace("own", str(cache / _OWN_FILE))


def start_logging(level: int, place: LogPlace, *, environment: Mapping[str, str]) -> str | None:
    """Let the root logger write to *place*; return a note about the place if the user does not expect it.

    Raises MountFailure where the file that the user named cannot be written.
    """
    handler, note = _handler(place, environment)
    if level > logging.DEBUG:
        handler.addFilter(Sparse())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    # urllib3 logs whole URLs, and the query of a signed URL is a secret.
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)
    logging.raiseExceptions = False  # a full disk must not become an answer to the kernel
    return note


def name_of_log(place: LogPlace) -> str:
    """Return how `status` and daemon.json name the log that start_logging() began at *place*; "none" without a log."""
    if place.kind == "own" and not any(isinstance(each, BoundedFileHandler) for each in logging.getLogger().handlers):
        return "none"
    return "stderr" if place.kind == "stderr" else place.name


def _handler(place: LogPlace, environment: Mapping[str, str]) -> tuple[logging.Handler, str | None]:
    if place.kind == "own":
        return _own_file_handler(Path(place.name))
    if place.kind == "file":
        return _file_handler(Path(place.name)), None
    if place.kind == "stderr":
        terminal = logging.StreamHandler(sys.stderr)
        is_journal = _is_journal(environment)
        terminal.setFormatter(JournalFormatter("%(message)s") if is_journal else PlainFormatter(_FILE_FORMAT))
        return terminal, None
    # The handler connects again by itself when syslog was restarted.
    syslog = logging.handlers.SysLogHandler(_SYSLOG, facility="daemon")
    syslog.ident = f"regfs[{os.getpid()}]: "
    syslog.setFormatter(EncodableFormatter("%(name)s: %(message)s"))
    return syslog, None


def _own_file_handler(file: Path) -> tuple[logging.Handler, str | None]:
    """Return a handler for *file*, and a note the first time. The mount goes on if the file cannot be written."""
    try:
        is_new = not file.exists()
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handler = BoundedFileHandler(file)
    except OSError:
        return logging.NullHandler(), "there is no syslog here: --log-file FILE keeps a log"
    handler.setFormatter(PlainFormatter(_FILE_FORMAT))
    return handler, f"there is no syslog here: the log is in {file}" if is_new else None


class LostFileHandler(logging.handlers.WatchedFileHandler):
    """Appends to a file. While its directory is gone, records are lost and the thread that logs goes on."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write *record*. WatchedFileHandler.emit() would raise where the file cannot be opened again."""
        try:
            super().emit(record)
        except OSError:
            self.stream = None


class BoundedFileHandler(LostFileHandler):
    """Appends to a file to which other daemons append too; a full one is renamed to FILE.1.

    A daemon that finds the file renamed opens the new one, as after logrotate.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(file, encoding="utf-8", errors="backslashreplace")

    def emit(self, record: logging.LogRecord) -> None:
        """Write *record*, to a new file where the present one is full."""
        with suppress(OSError):  # a full disk, or another daemon that renames it just now
            self._make_room()
        super().emit(record)

    def _make_room(self) -> None:
        self.reopenIfNeeded()
        fd = self.stream.fileno() if self.stream is not None else -1
        if os.fstat(fd).st_size < _OWN_LIMIT:
            return
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.stat(self.baseFilename), os.fstat(fd)):
            os.replace(self.baseFilename, f"{self.baseFilename}.1")
        self.reopenIfNeeded()


def _file_handler(file: Path) -> logging.Handler:
    try:
        handler = LostFileHandler(file, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise MountFailure(
            f"the log file {file} cannot be written: {error.strerror}; choose another with --log-file"
        ) from None
    handler.setFormatter(PlainFormatter(_FILE_FORMAT))
    return handler


def _is_journal(environment: Mapping[str, str]) -> bool:
    """Tell whether stderr leads to systemd's journal. Source: systemd.exec(5), JOURNAL_STREAM."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
