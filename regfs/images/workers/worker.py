"""Worker: a process that does one piece of heavy work, reports progress, and is killed if it makes none.

    stdin    its input, if it has any (shared_pipe.py)
    stdout   lines of JSON (own_process.py): {"effort": 3, "received": 1, …} now and then; at last {"done": true, …}, or
             {"error": "BadLayer", "message": "…"}

Bytes, entries and CPU time are progress. A worker without progress for *stall_s* seconds, while it has something to do,
is killed: it may be stopped, or its disk hangs. A worker that does not end then (it hangs in the kernel) is left
behind, up to a limited number of workers.

Used by workers/ingest.py and workers/merge.py. Thread rule: a worker belongs to the thread that started it, and ends
before that thread does: the kernel treats the end of that thread as the end of the parent (own_process.py).
"""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from regfs.errors import CacheFailure, OutOfThreads, WorkerKilled, WorkStalled
from regfs.images.workers.forked_process import ForkedProcess, forked
from regfs.images.workers.own_process import error_of, process_environment
from regfs.images.workers.shared_pipe import PipeWriter
from regfs.process.threads import no_process, start_thread

log = logging.getLogger(__name__)

Told = Mapping[str, Any]
_Process = subprocess.Popen[bytes] | ForkedProcess

_LOOK_S = 1.0
_END_S = 10.0
_KILL_S = 5.0
_MOST_LEFT_BEHIND = 8
_READ = 1 << 16

_lock = threading.Lock()
_left_behind: list[_Process] = []


def twice_if_killed(work: Callable[[], None], note: Callable[[str], None]) -> None:
    """Call *work*, which runs a worker. If a signal killed the worker, call *note*, and *work* once more.

    When memory runs out, the kernel kills the process that takes most of it.
    """
    try:
        work()
    except WorkerKilled as killed:
        note(f"{killed}; it is done once more. Is there enough memory?")
        work()


class Worker:
    """A running worker. *what* names its work in messages; made by started()."""

    def __init__(
        self,
        process: _Process,
        what: str,
        *,
        pipe: PipeWriter | None,
        stall_s: float,
        on_told: Callable[[Told], None],
    ) -> None:
        self._process = process
        self._input = pipe
        self._what = what
        self._stall_s = stall_s
        self._on_told = on_told
        self._last: Told | None = None
        self._moved_s = time.monotonic()
        self._busy_since_s: float | None = None if pipe is not None else self._moved_s
        self._is_stalled = False
        self._thread = start_thread(self._read, name="worker's reader")

    @property
    def was_killed(self) -> bool:
        """Whether the worker was killed and could not clean up."""
        return self._process.returncode is None or self._process.returncode < 0

    def feed(self, chunk: bytes) -> None:
        """Write *chunk* to the worker's input. Raises BrokenPipeError if it has ended; verdict() raises the reason."""
        assert self._input is not None
        self._busy_since_s = time.monotonic()
        view = memoryview(chunk)
        while view:
            view = view[self._input.write(view, _LOOK_S) :]
            if view and self._is_stalled:  # it may hang in the kernel with its end still open
                raise BrokenPipeError
        self._busy_since_s = None  # a worker that waits for input does not stall

    def verdict(self) -> Told:
        """End the worker's input, wait for its result and return it; raise the error that it reports."""
        self._busy_since_s = time.monotonic()
        if self._input is not None:
            self._input.end()
        self._thread.join()
        last: Told = self._last or {}
        if last.get("done"):
            return last
        if "error" in last:
            raise error_of(last)
        if self._is_stalled:
            raise WorkStalled(f"{self._what}: its worker made no progress for {self._stall_s:g} s and was ended")
        code = self._process.wait()
        if code < 0:
            raise WorkerKilled(f"{self._what}: its worker was killed (signal {-code})")
        assert self._process.stderr is not None
        complaint = self._process.stderr.read().decode(errors="replace").strip()
        raise RuntimeError(f"{self._what}: its worker failed: {complaint[-2000:]}")

    def end(self) -> None:
        """End the worker, by SIGKILL if needed."""
        process = self._process
        if self._input is not None:
            self._input.close()
        if not _ends(process, 0.0 if self._is_stalled else _END_S):
            process.kill()
            if not _ends(process, _KILL_S):
                log.error("%s: process %d does not end: the disk of the cache hangs", self._what, process.pid)
                with _lock:
                    _left_behind.append(process)
        self._thread.join(_KILL_S)  # its input, closed here
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        rest = b""
        look_s = min(_LOOK_S, self._stall_s / 4)
        while not self._is_stalled:
            if not poll.poll(look_s * 1000):
                self._end_if_stalled()
                continue
            read = os.read(fd, _READ)
            if not read:
                return
            *lines, rest = (rest + read).split(b"\n")
            for line in lines:
                self._take(json.loads(line))
            if self._is_over:
                return  # no thread needs to wait for the end of the process
            self._end_if_stalled()

    @property
    def _is_over(self) -> bool:
        return self._last is not None and (bool(self._last.get("done")) or "error" in self._last)

    def _take(self, told: Told) -> None:
        if self._is_over:
            return  # the thread that reports was late
        if told != self._last:
            self._last = told
            self._moved_s = time.monotonic()
            self._on_told(told)

    def _end_if_stalled(self) -> None:
        busy_since_s = self._busy_since_s
        if busy_since_s is None or time.monotonic() - max(busy_since_s, self._moved_s) <= self._stall_s:
            return
        log.warning("%s: its worker, process %d, stands still and is ended", self._what, self._process.pid)
        self._is_stalled = True
        self._process.kill()


@contextmanager
def started(
    module: str,
    argument: Mapping[str, object],
    *,
    what: str,
    has_input: bool,
    stall_s: float,
    on_told: Callable[[Told], None],
) -> Iterator[Worker]:
    """Run the worker `python -m module argument`, forked where possible; it has ended at the end of the block.

    *on_told* is called with each line that differs from the last one, in a thread that reads the worker's output.
    Raises CacheFailure if it cannot be started, WorkStalled if too many earlier ones hang in the kernel.
    """
    _reap()
    with ExitStack() as stack:
        try:
            pipe = stack.enter_context(closing(PipeWriter())) if has_input else None
            process = _start(module, argument, pipe)
        except OSError as error:
            shortage = no_process(error, what)
            raise shortage or CacheFailure(f"{what}: no process could be started: {error.strerror}") from error
        try:
            worker = Worker(process, what, pipe=pipe, stall_s=stall_s, on_told=on_told)
        except OutOfThreads:
            process.kill()
            process.communicate()
            raise
        stack.callback(worker.end)
        yield worker


def _start(module: str, argument: Mapping[str, object], pipe: PipeWriter | None) -> _Process:
    """Start the process, which reads from *pipe*. Raises OSError, WorkerKilled."""
    memory_fd = None if pipe is None else pipe.memory_fd
    with open(os.devnull, "rb") as nothing:
        stdin = nothing.fileno() if pipe is None else pipe.reader_end.fileno()
        try:
            process = forked(module, argument, stdin=stdin, memory_fd=memory_fd)
            return process or subprocess.Popen(
                [sys.executable, "-m", module, json.dumps({**argument, "memory": memory_fd})],
                stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, env=process_environment(),
                pass_fds=() if memory_fd is None else (memory_fd,),
                start_new_session=True,  # Ctrl-C is for the daemon; the process ends with its pipe
            )  # fmt: skip
        finally:
            if pipe is not None:
                pipe.leave_to_reader()


def _reap() -> None:
    """Reap processes that were left behind and have ended. Raises WorkStalled if too many have not."""
    with _lock:
        _left_behind[:] = [process for process in _left_behind if process.poll() is None]
        count = len(_left_behind)
    if count >= _MOST_LEFT_BEHIND:
        raise WorkStalled(f"{count} workers that were ended hang in the kernel: the disk of the cache does not answer")


def _ends(process: _Process, within_s: float) -> bool:
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        return False
    return True
