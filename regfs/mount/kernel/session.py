"""regfs's own session on /dev/fuse: mount, negotiate, read requests, answer them, notify. No libfuse.

One thread reads requests. It answers from memory and disk under NON_BLOCKING, so that it never waits for the network.
A request that would have to wait raises WouldBlock; then a thread of the pool answers it, under a deadline and where
INTERRUPT finds it. Hundreds of readers that wait for a dead registry cost other requests nothing.

    serve()            in the caller's thread: starts the threads below, waits for the end
    regfs-requests     reads and answers (loop.py); another takes its place if the cache's disk hangs below it
                       (loop_watch.py)
    regfs-waiting      as many as requests wait (waiting_requests.py)
    regfs-notices      tells the kernel which names have expired (notifications.py)

An answer that the kernel refuses, or that comes too late, is undone.

One process with one reading thread is the fastest. Four clients that look up 50,000 names, two busy cores, best of
three: 21 us a look-up. A second thread on a cloned descriptor (FUSE_DEV_IOC_CLONE): 26 us, since the two threads pass
Python's lock to and fro. A second process: 26 us, since the clients need the other core. With more cores it may pay,
but then all processes would have to share what is open.

Daemons call `mount`, fork if they want to, then `serve`; no thread is started before. Source: the kernel's
Documentation/filesystems/fuse/, and include/uapi/linux/fuse.h for the bytes (abi.py).
"""

from __future__ import annotations

import errno
import logging
import os
import struct
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from regfs.errors import MountFailure, OutOfThreads, RegfsError, WouldBlock
from regfs.mount import mountpoint as mountpoints
from regfs.mount.kernel import abi
from regfs.mount.kernel.abi import Opcode
from regfs.mount.kernel.answers import Answers
from regfs.mount.kernel.failures import ErrorCallback, Failures, log_failure
from regfs.mount.kernel.kept.pending import Left
from regfs.mount.kernel.kept.state_file import StateFile
from regfs.mount.kernel.loop import RequestLoop
from regfs.mount.kernel.loop_watch import LoopWatch
from regfs.mount.kernel.mount import mount
from regfs.mount.kernel.negotiation import READ_AHEAD, negotiate
from regfs.mount.kernel.notifications import Notifications
from regfs.mount.kernel.prefetch import DirectoryPrefetch, FilePrefetch
from regfs.mount.kernel.requests import Requests
from regfs.mount.kernel.state import SessionState
from regfs.mount.kernel.unanswered_requests import answer_left
from regfs.mount.kernel.waiting_requests import WaitingRequests
from regfs.mount.options import MountOptions
from regfs.process.threads import start_thread
from regfs.process.waiting.deadline import NON_BLOCKING, under
from regfs.telemetry.stats import Stats

if TYPE_CHECKING:
    from regfs.mount.filesystem import FileSystem

log = logging.getLogger(__name__)

_END_GRACE_S = 5.0
_LOOK_S = 0.02
_ANSWERED_BY_NOTHING = (Opcode.FORGET, Opcode.BATCH_FORGET)


class KernelSession:
    """One mount of *tree*. *errors* is called once for each failure; *timeout_s* is how long a request may wait."""

    def __init__(
        self,
        tree: FileSystem,
        stats: Stats,
        *,
        errors: ErrorCallback = log_failure,
        timeout_s: float = 300.0,
        passthrough: bool = True,
        low_latency: bool = False,
        most_waiting: int = 512,
        kept: StateFile | None = None,
    ) -> None:
        """With *kept* another daemon can take the mount over."""
        self._tree = tree
        self._stats = stats
        self._failures = Failures(tree, stats, errors)
        self.errno_of, self.tell = self._failures.errno_of, self._failures.tell
        self._timeout_s = timeout_s
        self._passthrough = passthrough
        self._low_latency = low_latency
        self._checks_permissions = False
        self._notifications = Notifications()
        self._kept = kept
        self._state = SessionState(tree, self._notifications, kept)
        self._directory_prefetch = DirectoryPrefetch(tree)
        self._file_prefetch = FilePrefetch(tree, self._state.page_cache)
        self._methods = Requests(
            tree, self._state, directory_prefetch=self._directory_prefetch, file_prefetch=self._file_prefetch
        ).methods
        self._requests_that_wait = Requests(tree, self._state)
        self._answers = Answers(self._state, stats, undo=self._requests_that_wait.undo)
        self.answer, self.answer_error, self.drop = self._answers.answer, self._answers.answer_error, self._answers.drop
        self._waiting = WaitingRequests(self, timeout_s=timeout_s, most=most_waiting, pending=self._state.pending)
        self._loops = LoopWatch(self._waiting, timeout_s=timeout_s)
        self._own: mountpoints.OwnMount | None = None
        self._left: list[Left] = []
        self._settled = threading.Event()
        self._ended = threading.Event()
        self._failure: MountFailure | None = None

    # The life of a session

    def mount(self, mountpoint: str, options: MountOptions) -> None:
        """Mount on *mountpoint*. Requests wait until `serve` answers them. Raises MountFailure."""
        mountpoints.check(mountpoint)
        path = mountpoints.resolved(mountpoint)
        self.adopt(mount(path, options), checks_permissions=options.checks_permissions)
        self._own = mountpoints.OwnMount.at(path)

    @property
    def device(self) -> str:
        """The "major:minor" of the mount; empty before it is made."""
        return "" if self._own is None else self._own.device

    @property
    def is_answering(self) -> bool:
        """Whether a thread is left that reads requests, whatever hangs."""
        return self._loops.is_answering

    @property
    def own_mount(self) -> mountpoints.OwnMount:
        """The mount that this session has made or taken over."""
        assert self._own is not None
        return self._own

    def adopt(self, descriptor: int, *, checks_permissions: bool = False) -> None:
        """Take *descriptor*, a new connection on /dev/fuse, to `serve` it: this session closes it in the end."""
        os.set_inheritable(descriptor, False)
        self._answers.descriptor = descriptor
        self._checks_permissions = checks_permissions

    @property
    def connection(self) -> int:
        """The descriptor of the connection; -1 before it is made, and after its end."""
        return self._answers.descriptor

    def take_over(self, descriptor: int, mount: mountpoints.OwnMount, *, checks_permissions: bool = False) -> None:
        """Take *descriptor*, the connection of *mount*, which an earlier daemon has served until now.

        The tree must know the nodes of the earlier daemon already.
        """
        self.adopt(descriptor, checks_permissions=checks_permissions)
        self._own = mount
        self._state.restore()
        flags = None if self._kept is None else self._kept.init_flags
        if flags is not None:
            self._settle(flags)

    def drain(self, within_s: float) -> int:
        """Wait until no request waits for a registry, *within_s* seconds at most; return how many still do."""
        end = time.monotonic() + within_s
        while (left := len(self._waiting)) and time.monotonic() < end and not self._ended.wait(_LOOK_S):
            pass
        return left

    def serve(self, on_ready: Callable[[], None] | None = None) -> None:
        """Answer requests until the mount is gone or `stop` is called; then close all that was open.

        *on_ready* is called in this thread when the kernel has accepted the session: from then on paths answer.
        Raises MountFailure where kernel and regfs cannot agree on a protocol, and OutOfThreads.
        """
        self._notifications.connect(self._answers.descriptor)
        loop = RequestLoop(
            self._answers.descriptor,
            answer=self.answer_or_hand_over,
            prefetch=self._prefetch,
            bug=self._failures.note_bug,
            pending=self._state.pending,
            low_latency=self._low_latency,
        )
        self._left = self._state.pending.left()
        self._loops.start(loop, self._read_requests)
        self._settled.wait()
        if self._failure is None and not self._ended.is_set():
            mountpoints.set_read_ahead(self.device, READ_AHEAD)
            if on_ready is not None:
                on_ready()
        self._loops.watch(self._ended)
        if self._kept is not None:
            self._kept.end()
        self._notifications.close()
        self._waiting.cancel()
        self._state.close()
        # A thread that comes back from the network later must not write to another file with this number.
        descriptor, self._answers.descriptor = self._answers.descriptor, -1
        os.close(descriptor)
        if self._failure is not None:
            raise self._failure

    def unmount(self, *, lazily: bool = False) -> None:
        """Unmount; `serve` returns once no process uses the mount. Raises MountFailure, if it is busy for example.

        If this mount was detached and another one is on the same path since, the other one stays.
        """
        if self._own is not None:
            self._own.unmount(lazily=lazily)

    def stop(self) -> None:
        """End the session: unmount; if the mount is busy, detach it, and processes inside get ENOTCONN.

        Returns before `serve` does. No error if nothing is mounted any more. Takes no lock of the session, so that a
        signal handler may call it in the thread that serves; any other thread may too.
        """
        self._waiting.cancel()
        try:
            self.unmount()
        except MountFailure as error:
            log.info("%s", error)
            try:
                start_thread(self._stop_by_force, name="regfs-stop")
            except OutOfThreads:
                self._stop_by_force()

    def refresh(self) -> None:
        """Make the kernel look up again, soon, all names that may have changed. Never blocks.

        Processes below such a name stay there. Kernels before 6.2 could only drop names at once, together with working
        directories below them; on those, names hold until their time is over.
        """
        if self._notifications.expires_entries:
            self._notifications.expire_entries(self._tree.changing_entries)

    def _stop_by_force(self) -> None:
        """End a session whose mount is busy: abort its connection, or, if that is impossible, stop serving it."""
        aborted = self._own is not None and self._own.abort()
        try:
            self.unmount(lazily=True)
        except MountFailure as error:
            log.info("%s", error)
        if aborted:
            self._ended.wait(_END_GRACE_S)
        self._end()

    def _end(self) -> None:
        self._ended.set()
        self._settled.set()

    # Requests

    def _read_requests(self, loop: RequestLoop) -> None:
        with under(NON_BLOCKING):
            left, self._left = self._left, []
            answer_left(left, self._state, self, timeout_s=self._timeout_s)
            ended = loop.run()
        if ended:
            self._end()

    def _prefetch(self) -> bool:
        """Prefetch something while no request is there; return whether there was something to prefetch."""
        if self._loops.is_stuck:
            return False  # this thread may hang in the cache's disk, too
        try:
            return self._directory_prefetch.step() or self._file_prefetch.step()
        except RegfsError as error:
            log.debug("prefetch failed: %s", error)  # the request for it meets and reports the failure
            return True

    def answer_or_hand_over(
        self, opcode: int, unique: int, node: int, body: bytes, slot: int = 0, age_s: float = 0.0
    ) -> bool:
        """Answer a request, or hand it over to the pool with *slot* and *age_s*; return whether it is answered."""
        method = self._methods.get(opcode)
        if method is None:
            self._answer_session(opcode, unique, body)
            return True
        try:
            if self._loops.is_stuck and opcode not in _ANSWERED_BY_NOTHING:
                raise WouldBlock("a thread hangs in the cache's disk, and this one may hang there, too")
            answer = method(node, body)
        except WouldBlock:
            self._stats.count("mount.waits")
            self._waiting.hand_over(self._requests_that_wait.methods[opcode], opcode, unique, node, body, slot, age_s)
            return False
        except Exception as error:
            self.answer_error(unique, self.errno_of(error, opcode, node, body))
        else:
            if answer is not None:
                self.answer(opcode, unique, node, answer)
        return True

    def _answer_session(self, opcode: int, unique: int, body: bytes) -> None:
        """Answer a request about the session and not the tree; ENOSYS to an unknown one."""
        try:
            if opcode == Opcode.INTERRUPT:
                self._interrupt(abi.INTERRUPT_IN.unpack_from(body)[0])
            elif opcode == Opcode.INIT:
                self._negotiate(unique, abi.parse_init(body))
            elif opcode == Opcode.DESTROY:
                self.answer_error(unique, 0)
            else:
                self.answer_error(unique, errno.ENOSYS)
        except struct.error:
            log.exception("a malformed %s", abi.name_of(opcode))
            self.answer_error(unique, errno.EIO)

    def _interrupt(self, target: int) -> None:
        """Answer the request *target* with EINTR at once, unless it is answered already."""
        if self._waiting.interrupt(target):
            self._stats.count("mount.interrupts")

    def _negotiate(self, unique: int, offer: abi.Offer) -> None:
        """Answer INIT; a kernel of a later major version then sends another INIT with this daemon's version."""
        try:
            negotiated = negotiate(offer, passthrough=self._passthrough, checks_permissions=self._checks_permissions)
        except MountFailure as error:
            self._failure = error
            self.answer_error(unique, errno.EPROTO)
            self._end()
            return
        if negotiated.is_final and self._kept is not None:
            self._kept.settle(negotiated.flags)
        self.answer(Opcode.INIT, unique, 0, negotiated.answer)
        if negotiated.is_final:
            log.info("FUSE %d.%d, flags %#x of %#x", offer.major, offer.minor, negotiated.flags, offer.flags)
            self._settle(negotiated.flags)

    def _settle(self, flags: int) -> None:
        """Set the session up as INIT has settled."""
        self._notifications.expires_entries = bool(flags & abi.HAS_EXPIRE_ONLY)
        if flags & abi.PASSTHROUGH:
            self._state.open_nodes.allow_passthrough(self._answers.descriptor)
        self._settled.set()
