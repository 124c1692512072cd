"""One mount through libfuse 2, from its start to its end. It has the methods of KernelSession.

Used by daemon/session.py. The threads of libfuse's own loop are unknown to Python: each callback would get a new thread
state and lose threading.local. So the loop is written here (serving_threads.py), over libfuse's functions that receive
and process one request.

    serve()       in the caller's thread: starts the threads below, watches them (hang_watch.py), waits for the end
    regfs-fusepy  one at a time receives, and answers by itself (serving_threads.py)
    regfs-disk    only while the disk of the cache hangs: what may need it (own_threads.py)

What the path API of libfuse 2 cannot do, and the README says: one timeout holds for all names and attributes; look-ups
in one directory wait for each other in the kernel; a process keeps to the image that it is in only while it has a file
of it open (see paths.py), or works, is rooted or has mounts in it (see tree/tags_in_use.py).

Thread rule: `serve` in any one thread, `stop` and `unmount` in any other.
"""

from __future__ import annotations

import ctypes
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from regfs.errors import MountFailure, OutOfThreads
from regfs.mount import mountpoint as mountpoints
from regfs.mount.busy_poll import BusyPoll
from regfs.mount.fusepy.adapter import Adapter, ErrorCallback
from regfs.mount.fusepy.hang_watch import HangWatch
from regfs.mount.fusepy.libfuse import libfuse
from regfs.mount.fusepy.operations import TreeOperations
from regfs.mount.fusepy.own_threads import OwnThreads
from regfs.mount.fusepy.request_deadline import RequestDeadline
from regfs.mount.fusepy.serving_threads import INTERRUPT_SIGNAL, Channel, ServingThreads
from regfs.mount.options import MountOptions, helper_complaint
from regfs.process.threads import start_thread

if TYPE_CHECKING:
    from regfs.mount.filesystem import FileSystem
    from regfs.telemetry.stats import Stats

log = logging.getLogger(__name__)

# How long to wait in the end for threads that hang in the disk of the cache.
_END_GRACE_S = 5.0


class FusepySession:
    """One mount of *tree*. *errors* is called for each failure; *timeout_s* is how long a request may wait."""

    def __init__(
        self,
        tree: FileSystem,
        stats: Stats,
        *,
        errors: ErrorCallback,
        timeout_s: float = 300.0,
        valid_s: float = 1.0,
        low_latency: bool = False,
    ) -> None:
        """*valid_s* is how long the kernel may trust any name and its attributes."""
        self._timeout_s = timeout_s
        self._valid_s = valid_s
        self._low_latency = low_latency
        self._own_threads = OwnThreads(timeout_s=timeout_s)
        self._threads = ServingThreads(self._own_threads)
        self._watch = HangWatch(self._threads, self._own_threads, timeout_s=timeout_s, errors=errors)
        self._waiting: set[RequestDeadline] = set()
        self._operations = TreeOperations(tree)
        self._adapter = Adapter(
            self._operations, stats, errors=errors, end=self._waiting.discard, own_threads=self._own_threads
        )
        self._table = self._adapter.table()
        self._mountpoint = ""
        self._device = ""
        self._handle: int | None = None
        self._descriptor = -1
        self._poll: BusyPoll | None = None
        self._point = ctypes.c_void_p()

    def mount(self, mountpoint: str, options: MountOptions) -> None:
        """Mount on *mountpoint*. Requests wait until `serve` answers them. Raises MountFailure."""
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

    @property
    def is_answering(self) -> bool:
        """Whether a thread is left that receives requests: hang_watch.py sees to that until the mount is gone."""
        return not self._threads.ended.is_set()

    def serve(self, on_ready: Callable[[], None] | None = None) -> None:
        """Answer requests until the mount is gone; then close all that was open.

        *on_ready* is called, in a thread that serves, when the kernel has accepted the session: from then on paths
        answer. Raises OutOfThreads. Threads that hang in the disk of the cache are left behind.
        """
        handle = ctypes.c_void_p(self._handle)
        self._operations.on_ready = on_ready
        self._threads.start(lambda: self._channel(handle))
        self._watch.watch()
        self._cancel_waiting()
        self._close(handle, are_all_back=self._threads.join(_END_GRACE_S))

    def unmount(self, *, lazily: bool = False) -> None:
        """Unmount; `serve` returns once no process uses the mount. Raises MountFailure, if it is busy for example."""
        mountpoints.unmount(self._mountpoint, lazily=lazily)

    def refresh(self) -> None:
        """Look up again all names that may have changed; the kernel asks for them when *valid_s* is over."""
        self._operations.paths.expire()

    def stop(self) -> None:
        """End the session: unmount; if the mount is busy, detach it, and processes inside get ENOTCONN."""
        self._cancel_waiting()
        try:
            self.unmount()
            return
        except MountFailure as failure:
            log.info("%s", failure)
        if not (self._device and mountpoints.abort(self._device, self._mountpoint)):
            # The FUSE control file system is not mounted, and umount2 is not permitted: the connection ends when its
            # descriptor is closed, at the end of `serve`.
            libfuse.fuse_session_exit(ctypes.c_void_p(libfuse.fuse_get_session(ctypes.c_void_p(self._handle))))
            self._threads.end()
        mounted = mountpoints.topmost(self._mountpoint)
        if mounted is not None and mounted.device == self._device:
            self.unmount(lazily=True)

    def _close(self, handle: ctypes.c_void_p, *, are_all_back: bool) -> None:
        if self._poll is not None:
            self._poll.close()
        if are_all_back:
            libfuse.fuse_teardown(handle, self._point)
        elif self._descriptor >= 0:
            # A thread that still comes back needs what libfuse would free, and writes its answer to this number.
            with open(os.devnull, "r+b", buffering=0) as nothing:
                os.dup2(nothing.fileno(), self._descriptor, inheritable=False)
        # To close a file may need the disk, too.
        try:
            start_thread(self._close_files, name="regfs-closing").join(_END_GRACE_S)
        except OutOfThreads:
            self._close_files()

    def _close_files(self) -> None:
        for opened in self._operations.files.take_all():
            opened.file.close()

    def _channel(self, handle: ctypes.c_void_p) -> tuple[Channel, RequestDeadline]:
        channel = Channel(handle, self._poll, low_latency=self._low_latency)
        self._poll, self._descriptor = channel.poll, channel.descriptor
        return channel, RequestDeadline(self._timeout_s, self._on_wait, libfuse.fuse_interrupted)

    def _on_wait(self, deadline: RequestDeadline) -> None:
        self._waiting.add(deadline)
        self._threads.pass_on()

    def _cancel_waiting(self) -> None:
        for deadline in list(self._waiting):
            deadline.cancel()


def _words(options: MountOptions, valid_s: float) -> list[str]:
    # hard_remove: libfuse would otherwise rename a file that is open in place of unlinking it.
    words = [options.helper_words(), "nonempty", "use_ino", "hard_remove", "intr", f"intr_signal={INTERRUPT_SIGNAL}"]
    return words + [f"{name}_timeout={valid_s:g}" for name in ("entry", "attr", "negative")]


@contextmanager
def _captured_stderr() -> Iterator[list[str]]:
    """Yield a list that collects what C code and its child processes write to stderr during the block."""
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
