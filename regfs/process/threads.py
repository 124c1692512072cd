"""Starting a thread or a process where the system may refuse one: pids.max of a control group, ulimit -u, memory.

Python raises a bare RuntimeError then, which would count as a bug. Here it becomes an OutOfThreads: the waiting request
is answered, and the next attempt may succeed. Used by every package that starts threads. Any thread.
"""

from __future__ import annotations

import errno
import os
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


class ReusedThreads:
    """Threads for short jobs: one that has ended its job waits *idle_s* for the next, which is begun in half the time.

    Rule: any thread; the lock is held for moments.
    """

    def __init__(self, idle_s: float = 0.05) -> None:
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._idle: list[_Thread] = []
        self._process = os.getpid()

    def start(self, job: Callable[[], object], *, name: str) -> None:
        """Run *job*, which raises nothing, in a thread with *name*. Raises OutOfThreads, with nothing begun."""
        with self._lock:
            if os.getpid() != self._process:  # threads do not survive fork(2)
                self._process, self._idle = os.getpid(), []
            idle = self._idle.pop() if self._idle else None
        if idle is None:
            start_thread(self._run, _Thread(job), name=name)
        else:
            idle.job = job
            if idle.thread is not None:
                idle.thread.name = name
            idle.wake.release()

    def _run(self, own: _Thread) -> None:
        own.thread = threading.current_thread()
        while True:
            # Taken out: what a job holds is in use, and must be free as soon as it has ended.
            job, own.job = own.job, _do_nothing
            job()
            del job
            own.thread.name = "regfs-idle"
            with self._lock:
                self._idle.append(own)
            if not own.wake.acquire(timeout=self._idle_s):
                with self._lock:
                    if own in self._idle:
                        self._idle.remove(own)
                        return
                own.wake.acquire()


class _Thread:
    """One of those threads, and its next job."""

    __slots__ = ("job", "thread", "wake")

    def __init__(self, job: Callable[[], object]) -> None:
        self.job = job
        self.thread: threading.Thread | None = None
        self.wake = threading.Lock()
        self.wake.acquire()


def _do_nothing() -> None:
    pass


def no_process(error: OSError, program: str) -> OutOfThreads | None:
    """Return *error* of fork(2) for *program* as an OutOfThreads; None where the error is another one."""
    if error.errno not in (errno.EAGAIN, errno.ENOMEM):
        return None
    return OutOfThreads(f"no process could be started for {program}: {_REMEDY}")
