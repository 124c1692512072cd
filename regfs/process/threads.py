"""Starting a thread or a process where the system may refuse one: pids.max of a control group, ulimit -u, memory.

Python raises a bare RuntimeError then, which would count as a bug. Here it becomes an OutOfThreads: the waiting request
is answered, and the next attempt may succeed. Used by every package that starts threads. Any thread.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable

from regfs.errors import OutOfThreads

_REMEDY = "the limit of threads and processes is reached (pids.max of the service, ulimit -u) or memory is short"


def start_thread(target: Callable[..., object], *arguments: object, name: str) -> threading.Thread:
    """Start a daemon thread that runs *target* and return it. Raises OutOfThreads, with nothing started."""
    thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:
        raise OutOfThreads(f"no thread could be started for {name}: {_REMEDY}") from error
    return thread


def no_process(error: OSError, program: str) -> OutOfThreads | None:
    """Return *error* of fork(2) for *program* as an OutOfThreads; None where the error is another one."""
    if error.errno not in (errno.EAGAIN, errno.ENOMEM):
        return None
    return OutOfThreads(f"no process could be started for {program}: {_REMEDY}")
