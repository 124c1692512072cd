"""Where the log goes: syslog in the background, stderr in the foreground, or a file that the user names.

Used by daemon.py and cli.py. A file is opened again when it was renamed (logrotate needs no signal). A message that
comes too often is counted instead: a log must not fill a disk. Thread rule: logging's own.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from regfs.errors import MountFailure

_SYSLOG = "/dev/log"
_OFTEN = 20
_WINDOW_S = 60.0
_FILE_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_JOURNAL_LEVELS = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class Sparse(logging.Filter):
    """Lets 20 messages of one kind (one line of the source) through in a minute, and tells how many it held back."""

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


class JournalFormatter(logging.Formatter):
    """Puts the priority before each line, as systemd's journal reads it. Source: sd-daemon(3)."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of *record*."""
        prefix = f"<{_JOURNAL_LEVELS.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


def start_logging(
    level: int, *, file: Path | None = None, foreground: bool, environment: Mapping[str, str]
) -> str | None:
    """Let the root logger write to *file*, stderr or syslog; return a note for the user where there is no syslog.

    Raises MountFailure where *file* cannot be written.
    """
    note = None
    handler: logging.Handler
    if file is not None:
        handler = _file_handler(file)
    elif foreground:
        handler = logging.StreamHandler(sys.stderr)
        is_journal = _is_journal(environment)
        handler.setFormatter(JournalFormatter("%(message)s") if is_journal else logging.Formatter(_FILE_FORMAT))
    else:
        if not os.path.exists(_SYSLOG):
            note = "there is no syslog here: --log-file FILE keeps a log; .regfs/errors shows what failed lately"
        # It connects whenever it has to, so that a syslog that is started later is found.
        syslog = logging.handlers.SysLogHandler(_SYSLOG, facility="daemon")
        syslog.ident = f"regfs[{os.getpid()}]: "
        syslog.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        handler = syslog
    if level > logging.DEBUG:
        handler.addFilter(Sparse())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    logging.raiseExceptions = False  # a full disk must not become an answer to the kernel
    return note


def log_name(file: Path | None, *, foreground: bool) -> str:
    """Return how to call the place where the log goes."""
    if file is not None:
        return str(file)
    return "the lines above" if foreground else "syslog (journalctl -t regfs)"


def _file_handler(file: Path) -> logging.Handler:
    try:
        handler = logging.handlers.WatchedFileHandler(file, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise MountFailure(f"the log file {file} cannot be written: {error.strerror}; --log-file") from None
    handler.setFormatter(logging.Formatter(_FILE_FORMAT))
    return handler


def _is_journal(environment: Mapping[str, str]) -> bool:
    """Tell whether stderr is the journal's. Source: systemd.exec(5), JOURNAL_STREAM."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
