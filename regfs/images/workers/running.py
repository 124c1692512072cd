"""The workers that run now. A daemon that ends lets those go on that are stopped: else they would stay for good.

A worker finds out by the end of its input that its daemon has ended, and then removes what it has written. A stopped
one (by a debugger, say) finds out nothing, and keeps its memory, its lock and its files. Used by worker.py and by the
end of the daemon. Thread rule: any thread.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

_lock = threading.Lock()
_running: set[subprocess.Popen[bytes]] = set()


@contextmanager
def running(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Note that the worker *process* runs while the block does."""
    with _lock:
        _running.add(process)
    try:
        yield
    finally:
        with _lock:
            _running.discard(process)


def let_stopped_ones_go_on() -> None:
    """Let every worker that is stopped go on."""
    with _lock:
        for process in _running:
            with suppress(OSError):
                process.send_signal(signal.SIGCONT)
