"""One mount through libfuse 2: its start, its threads and its end. KernelSession's twin for wherever that cannot run.

Used by serve.py. libfuse's own loop would make threads that Python meets for the first time in each callback (a new
thread state for every request, threading.local lost), so the loop is written here, over libfuse's functions to receive
and process one request.

One thread at a time receives, and goes on doing so while it can answer from memory or disk: handing requests around
between threads costs more than it brings under Python's lock (look-ups 62 us with one thread, 120 us with three). A
request that begins to wait passes the turn to another thread, so that a slow registry holds up only who waits for it.

What the path API of libfuse 2 cannot do, and the README says: one timeout holds for all names and attributes; look-ups
in one directory wait for each other in the kernel; a process keeps to the image that it is in only while it has a file
of it open (see paths.py), or works, is rooted or has mounts in it (see tree/inside.py).

Thread rule: `serve` in any one thread, `stop` and `unmount` in any other.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from regfs.errors import MountFailure, OutOfThreads
from regfs.mount import mountpoint as mountpoints
from regfs.mount.busy_poll import BusyPoll
from regfs.mount.fusepy.operations import Adapter, ErrorCallback, RequestDeadline, TreeOperations, libfuse
from regfs.mount.kernel.mount import MountOptions, helper_complaint
from regfs.process.threads import start_thread
from regfs.waiting.deadline import under

if TYPE_CHECKING:
    from regfs.telemetry.stats import Stats
    from regfs.tree.tree import Tree

log = logging.getLogger(__name__)

_INTERRUPT_SIGNAL = signal.SIGRTMIN + 3
_MOST_THREADS = 256
_MOST_IDLE = 4
# A signal does not end the sleep of a Python thread: who receives looks by itself whether the session is over.
_LOOK_AT_END_MS = 1000
_WAKE_EVERY_S = 0.05


class FusepySession:
    """One mount of *tree*. *errors* hears of each failure; *timeout_s* is how long a request may wait."""

    def __init__(
        self,
        tree: Tree,
        stats: Stats,
        *,
        errors: ErrorCallback,
        timeout_s: float = 300.0,
        valid_s: float = 1.0,
    ) -> None:
        """*valid_s* is how long the kernel may trust any name and its attributes."""
        self._timeout_s = timeout_s
        self._valid_s = valid_s
        self._turns = _Turns()
        self._waiting: set[RequestDeadline] = set()
        self._operations = TreeOperations(tree)
        self._adapter = Adapter(self._operations, stats, errors=errors, end=self._waiting.discard)
        self._table = self._adapter.table()
        self._mountpoint = ""
        self._device = ""
        self._handle: int | None = None
        self._lookout: BusyPoll | None = None
        self._point = ctypes.c_void_p()

    def mount(self, mountpoint: str, options: MountOptions) -> None:
        """Mount on *mountpoint*. Whoever looks into it waits until `serve` answers. Raises MountFailure."""
        mountpoints.check(mountpoint)
        self._mountpoint = mountpoints.resolved(mountpoint)
        words = [b"regfs", b"-f", b"-o", os.fsencode(",".join(_words(options, self._valid_s)))]
        words.append(os.fsencode(self._mountpoint))
        arguments = (ctypes.c_char_p * len(words))(*words)
        multithreaded = ctypes.c_int()
        for name in ("fuse_setup", "fuse_get_session", "fuse_session_next_chan"):
            getattr(libfuse, name).restype = ctypes.c_void_p
        libfuse.fuse_chan_bufsize.restype = ctypes.c_size_t
        with _captured_stderr() as complaint:
            self._handle = libfuse.fuse_setup(
                len(words), arguments, ctypes.byref(self._table), ctypes.c_size_t(ctypes.sizeof(self._table)),
                ctypes.byref(self._point), ctypes.byref(multithreaded), None,
            )  # fmt: skip
        if not self._handle:
            raise MountFailure(helper_complaint(complaint[0] or "libfuse does not say why it cannot mount", mountpoint))
        mounted = mountpoints.topmost(self._mountpoint)
        self._device = mounted.device if mounted is not None else ""

    @property
    def device(self) -> str:
        """The "major:minor" of the mount; empty before it is made."""
        return self._device

    def serve(self, on_ready: Callable[[], None] | None = None) -> None:
        """Answer requests until the mount is gone; then close all that was open.

        *on_ready* is called when the kernel has accepted the session: from then on paths answer.
        """
        handle = ctypes.c_void_p(self._handle)
        self._operations.on_ready = on_ready
        try:
            self._turns.run(lambda: self._channel(handle), at_end=self._cancel_waiting)
        finally:
            if self._lookout is not None:
                self._lookout.close()
            libfuse.fuse_teardown(handle, self._point)
            for opened in self._operations.files.take_all():
                opened.file.close()

    def unmount(self, *, lazily: bool = False) -> None:
        """Unmount; `serve` returns once the last user is gone. Raises MountFailure, where it is busy for example."""
        mountpoints.unmount(self._mountpoint, lazily=lazily)

    def refresh(self) -> None:
        """Look up again whatever may have changed; the kernel asks for it as soon as *valid_s* is over."""
        self._operations.paths.expire()

    def stop(self) -> None:
        """End the session: unmount, out of sight at once where it is busy; users that stay get ENOTCONN."""
        self._cancel_waiting()
        try:
            self.unmount()
            return
        except MountFailure as failure:
            log.info("%s", failure)
        if not (self._device and mountpoints.abort(self._device, self._mountpoint)):
            # The control file system is not mounted, and we may not do it by umount2 either: the connection ends when
            # its descriptor is closed, at the end of `serve`.
            libfuse.fuse_session_exit(ctypes.c_void_p(libfuse.fuse_get_session(ctypes.c_void_p(self._handle))))
            self._turns.end()
        mounted = mountpoints.topmost(self._mountpoint)
        if mounted is not None and mounted.device == self._device:
            self.unmount(lazily=True)

    def _channel(self, handle: ctypes.c_void_p) -> tuple[_Channel, RequestDeadline]:
        channel = _Channel(handle, self._lookout)
        self._lookout = channel.lookout
        return channel, RequestDeadline(self._timeout_s, self._on_wait)

    def _on_wait(self, deadline: RequestDeadline) -> None:
        self._waiting.add(deadline)
        self._turns.pass_on()

    def _cancel_waiting(self) -> None:
        for deadline in list(self._waiting):
            deadline.cancel()


class _Channel:
    """One thread's way to the kernel: a buffer, and libfuse's functions to receive a request and to process it.

    *lookout* is that of the other threads, if there are any: one of them at a time waits for requests.
    """

    def __init__(self, handle: ctypes.c_void_p, lookout: BusyPoll | None) -> None:
        self._session = ctypes.c_void_p(libfuse.fuse_get_session(handle))
        self._channel = ctypes.c_void_p(libfuse.fuse_session_next_chan(self._session, None))
        self._size = libfuse.fuse_chan_bufsize(self._channel)
        self._buffer = ctypes.create_string_buffer(self._size)
        self.lookout = lookout or BusyPoll(libfuse.fuse_chan_fd(self._channel), sleep_ms=_LOOK_AT_END_MS)

    def receive(self) -> int:
        """Wait for a request and return its size; 0 when the mount is gone."""
        while True:
            channel = ctypes.c_void_p(self._channel.value)
            got: int = libfuse.fuse_chan_recv(ctypes.byref(channel), self._buffer, ctypes.c_size_t(self._size))
            if got > 0:
                self.lookout.found()
                return got
            if got == -errno.EAGAIN and not libfuse.fuse_session_exited(self._session):
                self.lookout.wait()
                continue
            if got not in (-errno.EINTR, -errno.EAGAIN) or libfuse.fuse_session_exited(self._session):
                return 0

    def process(self, size: int) -> None:
        """Let libfuse call back for the request in the buffer."""
        libfuse.fuse_session_process(self._session, self._buffer, ctypes.c_size_t(size), self._channel)


_Open = Callable[[], tuple[_Channel, RequestDeadline]]


class _Turns:
    """Threads that serve one after the other: who has the turn receives, until a request of his begins to wait."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._lock = threading.Lock()
        self._mine = threading.local()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._holder = 0
        self._ended = threading.Event()
        self._open: _Open | None = None

    def run(self, open_channel: _Open, *, at_end: Callable[[], None]) -> None:
        """Serve in this thread and as many more as are needed, until the mount is gone and all have come back."""
        self._open = open_channel
        self._serve()
        at_end()
        while True:
            with self._lock:
                thread = next(iter(self._threads), None)
            if thread is None:
                return
            thread.join()

    def pass_on(self) -> None:
        """Let another thread receive: the request of this one is about to wait.

        Raises OutOfThreads where there is no other and none can be started; this one then goes on receiving.
        """
        if not getattr(self._mine, "has_turn", False):
            return
        with self._lock:
            if not self._idle and not self._ended.is_set() and len(self._threads) < _MOST_THREADS:
                try:
                    # Under the lock: a thread is in the set before it takes itself out.
                    self._threads.add(start_thread(self._serve_more, name="regfs-fusepy"))
                except OutOfThreads:
                    if not self._threads - {threading.current_thread()}:
                        raise
        self._mine.has_turn = False
        self._turn.release()

    def end(self) -> None:
        """Take who receives out of his read(2), again and again until it has come about; the session must be exited."""
        while not self._ended.wait(_WAKE_EVERY_S):
            try:
                signal.pthread_kill(self._holder, _INTERRUPT_SIGNAL)
            except ProcessLookupError:
                return

    def _serve_more(self) -> None:
        try:
            self._serve()
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _serve(self) -> None:
        assert self._open is not None
        channel, deadline = self._open()
        with under(deadline):
            while self._wait_for_turn():
                while self._mine.has_turn:
                    size = channel.receive()
                    if not size:
                        self._ended.set()
                        self._turn.release()
                        return
                    channel.process(size)

    def _wait_for_turn(self) -> bool:
        """Return True with the turn; False when the mount is gone, or enough threads are waiting without this one."""
        with self._lock:
            is_spare = self._idle >= _MOST_IDLE and threading.current_thread() in self._threads
            if self._ended.is_set() or is_spare:
                return False
            self._idle += 1
        self._turn.acquire()
        with self._lock:
            self._idle -= 1
        if self._ended.is_set():
            self._turn.release()
            return False
        self._mine.has_turn = True
        self._holder = threading.get_ident()
        return True


def _words(options: MountOptions, valid_s: float) -> list[str]:
    source = options.source.replace("\\", "\\\\").replace(",", "\\,")
    words = ["ro", "suid" if options.allow_suid else "nosuid", "dev" if options.allow_dev else "nodev"]
    words += ["noexec"] if options.noexec else []
    words += ["allow_other"] if options.allow_other else []
    words += ["default_permissions"] if options.checks_permissions else []
    words += [f"max_read={options.max_read}"] if options.max_read else []
    words += [f"fsname={source}", "subtype=regfs", "nonempty", "use_ino"]
    words += ["intr", f"intr_signal={_INTERRUPT_SIGNAL}"]
    return words + [f"{name}_timeout={valid_s:g}" for name in ("entry", "attr", "negative")]


@contextmanager
def _captured_stderr() -> Iterator[list[str]]:
    """Collect what C code and the programs it starts write to stderr; it is in the yielded list after the block."""
    said: list[str] = []
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            said += ["; ".join(filter(None, file.read().decode(errors="replace").splitlines()))]
