"""Starting a thread or a process where the system may refuse one: pids.max of a control group, ulimit -u, memory.

Python tells it by a bare RuntimeError, which would be taken for a bug; here it is an OutOfThreads, whose waiters get an
answer, and the next attempt may succeed. Used by every package that waits in threads of its own. Any thread.
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
    """Return the OutOfThreads that *error* of fork(2) is for *program*; None where it says something else."""
    if error.errno not in (errno.EAGAIN, errno.ENOMEM):
        return None
    return OutOfThreads(f"no process could be started for {program}: {_REMEDY}")
