"""The threads of a mount through libfuse 2: one at a time receives a request, and each answers what it received.

Under Python's lock, several threads that receive are slower than one (look-ups 62 us with one thread, 120 us with
three). So the thread that has the turn goes on receiving while it can answer from memory or disk. When its request
begins to wait, or when the disk of the cache hangs below it (hang_watch.py), another thread gets the turn.

Used by session.py and hang_watch.py. Thread rule: start() and join() in the thread that serves the session, pass_on()
in the threads started here, the rest in any.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import signal
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from regfs.errors import OutOfThreads
from regfs.mount.busy_poll import BusyPoll
from regfs.mount.cpu_latency import CpuLatencyLimit
from regfs.mount.fusepy.libfuse import libfuse
from regfs.mount.fusepy.own_threads import OwnThreads
from regfs.mount.fusepy.request_deadline import RequestDeadline
from regfs.mount.kernel import abi
from regfs.mount.kernel.abi import Opcode
from regfs.process.threads import start_thread
from regfs.process.waiting.deadline import under

log = logging.getLogger(__name__)

INTERRUPT_SIGNAL = signal.SIGRTMIN + 3
_MOST_THREADS = 256
# While the disk hangs: those that hang in it, those that wait for another thread's work (own_threads.py), and some.
_MOST_WHILE_IT_HANGS = 2 * _MOST_THREADS
_MOST_IDLE = 4
# A signal does not end poll(2) in a Python thread: the one that receives checks for the end of the session by itself.
_LOOK_AT_END_MS = 1000
_WAKE_EVERY_S = 0.05
_OPCODE_AND_UNIQUE = struct.Struct("=4xIQ")
_HEADER_SIZE = abi.IN_HEADER.size
_WITHOUT_ANSWER = (Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT)


class Channel:
    """The channel of one thread to the kernel: a buffer, and libfuse's functions to receive and process a request.

    All threads share one *poll*: one of them at a time waits for requests.
    """

    def __init__(self, handle: ctypes.c_void_p, poll: BusyPoll | None, *, low_latency: bool) -> None:
        self._session = ctypes.c_void_p(libfuse.fuse_get_session(handle))
        self._channel = ctypes.c_void_p(libfuse.fuse_session_next_chan(self._session, None))
        self._size = libfuse.fuse_chan_bufsize(self._channel)
        self._buffer = ctypes.create_string_buffer(self._size)
        self.descriptor: int = libfuse.fuse_chan_fd(self._channel)
        self.poll = poll or BusyPoll(
            self.descriptor, sleep_ms=_LOOK_AT_END_MS, latency_limit=CpuLatencyLimit() if low_latency else None
        )

    def receive(self) -> int:
        """Wait for a request and return its size; 0 when the mount is gone."""
        while True:
            channel = ctypes.c_void_p(self._channel.value)
            got: int = libfuse.fuse_chan_recv(ctypes.byref(channel), self._buffer, ctypes.c_size_t(self._size))
            if got > 0:
                self.poll.found()
                return got
            if got == -errno.EAGAIN and not libfuse.fuse_session_exited(self._session):
                self.poll.wait()
                continue
            if got not in (-errno.EINTR, -errno.EAGAIN) or libfuse.fuse_session_exited(self._session):
                return 0

    def process(self, size: int) -> None:
        """Let libfuse call back for the request in the buffer."""
        libfuse.fuse_session_process(self._session, self._buffer, ctypes.c_size_t(size), self._channel)

    def request(self) -> tuple[int, int]:
        """Return the opcode and the unique number of the request in the buffer."""
        opcode, unique = _OPCODE_AND_UNIQUE.unpack_from(self._buffer)
        return opcode, unique

    def interrupted(self) -> int:
        """Return the unique number of the request that the INTERRUPT in the buffer is for."""
        unique: int = abi.INTERRUPT_IN.unpack_from(self._buffer, _HEADER_SIZE)[0]
        return unique


class ServingThread:
    """One thread that serves: its channel, its deadline, and the request that it answers."""

    __slots__ = ("_answered", "_hanging", "channel", "deadline", "doing", "has_turn", "ident")

    def __init__(self, channel: Channel, deadline: RequestDeadline) -> None:
        self.channel = channel
        self.deadline = deadline
        self.ident = threading.get_ident()
        self.has_turn = False
        self.doing: object | None = None
        """A new object for each request that is being answered; None in between."""
        self._hanging: object = None
        self._answered: object = None

    @property
    def hangs(self) -> bool:
        """Whether the request that is being answered was found to hang."""
        return self._hanging is not None and self._hanging is self.doing

    def note_hang(self, doing: object) -> None:
        """Note that the request marked *doing* hangs."""
        self._hanging = doing

    def answer(self, number: int) -> str:
        """Answer the request, which hangs, past libfuse; return its name for messages, '' if it ended by itself.

        The kernel refuses libfuse's own answer when it comes, and libfuse undoes it.
        """
        doing = self.doing
        opcode, unique = self.channel.request()
        # The buffer is filled again only after `doing` has changed.
        if doing is None or self.doing is not doing or self._answered is doing or opcode in _WITHOUT_ANSWER:
            return ""
        self._answered = doing
        with suppress(OSError):  # answered just now, or the mount is gone
            os.write(self.channel.descriptor, abi.pack_error(unique, number))
        path = self.deadline.path
        return f"{abi.name_of(opcode).lower()} {os.fsdecode(path) if isinstance(path, bytes) else ''}".strip()


_Open = Callable[[], tuple[Channel, RequestDeadline]]


class ServingThreads:
    """Threads that take turns: the one with the turn receives, until its request begins to wait."""

    def __init__(self, own_threads: OwnThreads) -> None:
        """*own_threads* knows whether the disk hangs."""
        self.ended = threading.Event()
        """Set when the mount is gone."""
        self._own_threads = own_threads
        self._turn = threading.Lock()
        self._lock = threading.Lock()
        self._mine = threading.local()
        self._threads: set[threading.Thread] = set()
        self._serving: set[ServingThread] = set()
        self._idle = 0
        self._open: _Open | None = None

    def start(self, open_channel: _Open) -> None:
        """Serve in a thread, and in as many more as are needed, until the mount is gone. Raises OutOfThreads."""
        self._open = open_channel
        with self._lock:
            self._add_thread()

    def join(self, grace_s: float) -> bool:
        """Wait for at most *grace_s* until all threads have ended; return False if some have not."""
        end = time.monotonic() + grace_s
        while True:
            with self._lock:
                thread = next(iter(self._threads), None)
            if thread is None:
                return True
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive():
                return False

    def all(self) -> list[ServingThread]:
        """Return the threads that serve."""
        with self._lock:
            return list(self._serving)

    def pass_on(self) -> None:
        """Give the turn to another thread, since the request of this one is about to wait.

        Raises OutOfThreads if there is no other and none can be started; this one then goes on receiving.
        """
        serving: ServingThread | None = getattr(self._mine, "serving", None)
        if serving is not None and serving.has_turn:
            self.take_turn(serving)

    def take_turn(self, serving: ServingThread) -> None:
        """Give the turn to another thread than *serving*. Raises OutOfThreads as pass_on() does."""
        with self._lock:
            if serving.has_turn:
                self._ensure_another(serving)
                serving.has_turn = False
                self._turn.release()

    def ensure_receiver(self) -> None:
        """Start a thread if all others hang or wait. Raises OutOfThreads."""
        with self._lock:
            if not self._idle and not any(serving.has_turn for serving in self._serving):
                self._ensure_another(None)

    def end(self) -> None:
        """Wake the thread that receives until it ends, after fuse_session_exit()."""
        while not self.ended.wait(_WAKE_EVERY_S):
            for serving in self.all():
                if serving.has_turn:
                    with suppress(ProcessLookupError):
                        signal.pthread_kill(serving.ident, INTERRUPT_SIGNAL)

    def _ensure_another(self, me: ServingThread | None) -> None:
        most = _MOST_WHILE_IT_HANGS if self._own_threads.is_needed else _MOST_THREADS
        if self._idle or self.ended.is_set() or len(self._threads) >= most:
            return
        try:
            self._add_thread()
        except OutOfThreads:
            if all(serving is me or serving.hangs for serving in self._serving):
                raise

    def _add_thread(self) -> None:
        # Under the lock: a thread is in the set before it takes itself out.
        self._threads.add(start_thread(self._run, name="regfs-fusepy"))

    def _run(self) -> None:
        assert self._open is not None
        channel, deadline = self._open()
        serving = self._mine.serving = ServingThread(channel, deadline)
        with self._lock:
            self._serving.add(serving)
        try:
            with under(deadline):
                self._serve(serving)
        except BaseException:
            # A bug. End the session: this thread may be the only one, and a mount that answers nothing is worse.
            log.exception("a thread that serves has ended")
            self.ended.set()
        finally:
            self._let_go(serving)
            with self._lock:
                self._serving.discard(serving)
                self._threads.discard(threading.current_thread())

    def _serve(self, serving: ServingThread) -> None:
        channel = serving.channel
        while self._wait_for_turn(serving):
            while serving.has_turn:
                size = channel.receive()
                if not size:
                    self.ended.set()
                    self._let_go(serving)
                    return
                if self._own_threads.is_needed and self._is_done_carefully(serving):
                    continue
                serving.doing = object()
                channel.process(size)
                serving.doing = None

    def _is_done_carefully(self, serving: ServingThread) -> bool:
        """Return whether the request is done without libfuse, which may block this thread in all others."""
        opcode, _ = serving.channel.request()
        if opcode not in _WITHOUT_ANSWER:
            return False
        if opcode == Opcode.INTERRUPT:
            target = serving.channel.interrupted()
            for other in self.all():
                if other.hangs and other.channel.request()[1] == target:
                    other.answer(errno.EINTR)
                    return True
        # To forget a node whose path is in use, and to interrupt a thread, libfuse waits until that request has ended.
        with suppress(OutOfThreads):
            self.take_turn(serving)
        return False

    def _let_go(self, serving: ServingThread) -> None:
        with self._lock:
            if serving.has_turn:
                serving.has_turn = False
                self._turn.release()

    def _wait_for_turn(self, serving: ServingThread) -> bool:
        """Return True with the turn, False if the mount is gone or enough other threads wait for it."""
        with self._lock:
            if self.ended.is_set() or self._idle >= _MOST_IDLE:
                return False
            self._idle += 1
        self._turn.acquire()
        with self._lock:
            self._idle -= 1
            serving.has_turn = True
        if self.ended.is_set():
            self._let_go(serving)
            return False
        return True
