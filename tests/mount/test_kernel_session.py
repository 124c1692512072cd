"""The kernel driver's session, asked by a test in the kernel's place: over a socket that keeps messages whole."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import random
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from regfs.errors import MountFailure, OutOfThreads, RegfsError
from regfs.model.node_id import ROOT
from regfs.mount.kernel import abi
from regfs.mount.kernel.abi import Opcode
from regfs.mount.kernel.notifications import Notifications
from regfs.mount.kernel.prefetch import FilePrefetch
from regfs.mount.kernel.requests import Requests
from regfs.mount.kernel.session import KernelSession
from regfs.mount.kernel.state import SessionState
from regfs.telemetry.stats import Stats
from regfs.tree.entry import ListedEntry
from tests.mount.memory_tree import BIG, MANY, MemoryFile, SuiteTree
from tests.support.no_threads import no_threads

TIMEOUT_S = 100.0
FOR_EVER = 1 << 62


class Kernel:
    """Asks a session as the kernel does."""

    def __init__(
        self,
        *,
        tree: SuiteTree | None = None,
        timeout_s: float = 300.0,
        checks_permissions: bool = False,
        passthrough: bool = True,
    ) -> None:
        self.tree = tree or SuiteTree()
        self.stats = Stats()
        self.failures: list[tuple[str, RegfsError]] = []
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self.socket = ours
        self.socket.settimeout(TIMEOUT_S)
        self.uniques = itertools.count(2, 2)
        self.session = KernelSession(
            self.tree,
            self.stats,
            errors=lambda what, error: self.failures.append((what, error)),
            timeout_s=timeout_s,
            passthrough=passthrough,
        )
        self.session.adopt(theirs.detach(), checks_permissions=checks_permissions)
        self.ready = threading.Event()
        self.mount_failure: MountFailure | None = None
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        try:
            self.session.serve(self.ready.set)
        except MountFailure as error:
            self.mount_failure = error

    def send(self, opcode: int, node: int = 0, body: bytes = b"") -> int:
        unique = next(self.uniques)
        self.socket.send(struct.pack("<IIQQIIIHH", 40 + len(body), opcode, unique, node, 0, 0, 0, 0, 0) + body)
        return unique

    def answer(self) -> tuple[int, int, bytes]:
        """Return (unique, errno, body) of the next answer; a notice has unique 0."""
        message = self.socket.recv(2 << 20)
        length, error, unique = struct.unpack("<IiQ", message[:16])
        assert length == len(message)
        return unique, -error, message[16:]

    def ask(self, opcode: int, node: int = 0, body: bytes = b"") -> bytes:
        """Return the body of the answer, after taking what notices come before it."""
        _, number, answer = self.ask_for_all(opcode, node, body)
        assert number == 0, os.strerror(number)
        return answer

    def error(self, opcode: int, node: int = 0, body: bytes = b"") -> int:
        return self.ask_for_all(opcode, node, body)[1]

    def ask_for_all(self, opcode: int, node: int, body: bytes) -> tuple[int, int, bytes]:
        sent = self.send(opcode, node, body)
        while (got := self.answer())[0] == 0:
            pass
        assert got[0] == sent
        return got

    def init(self, minor: int = 45, flags: int = (1 << 43) - 1) -> tuple[int, ...]:
        body = struct.pack("<IIIII", 7, minor, 131072, flags & 0xFFFFFFFF, flags >> 32) + bytes(44)
        return struct.unpack("<IIIIHHIIHHIIH22x", self.ask(Opcode.INIT, 0, body))

    def node(self, *names: bytes) -> int:
        node = ROOT
        for name in names:
            node = struct.unpack_from("<Q", self.ask(Opcode.LOOKUP, node, name + b"\0"))[0]
        return node

    def close(self) -> None:
        self.socket.close()
        self.thread.join(TIMEOUT_S)
        assert not self.thread.is_alive()


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    """A session that has been accepted already."""
    asking = Kernel()
    asking.init()
    yield asking
    asking.close()


@pytest.fixture
def new_kernel() -> Iterator[Kernel]:
    """A session before INIT."""
    asking = Kernel()
    yield asking
    asking.close()


def test_the_session_takes_what_the_kernel_offers_and_no_more(new_kernel: Kernel) -> None:
    major, minor, _, flags, *_, flags2, _, _ = new_kernel.init(minor=36, flags=abi.ASYNC_READ | abi.MAX_PAGES)
    assert (major, minor, flags, flags2) == (7, 36, abi.ASYNC_READ | abi.MAX_PAGES, 0)
    assert new_kernel.ready.wait(TIMEOUT_S)


@pytest.mark.parametrize(("checks_permissions", "offered"), [(True, True), (True, False), (False, True)])
def test_mapped_owners_are_asked_for_where_the_kernel_checks_permissions_and_offers_them(
    checks_permissions: bool, offered: bool
) -> None:
    kernel = Kernel(checks_permissions=checks_permissions)
    try:
        flags = (1 << 43) - 1
        *_, flags2, _, _ = kernel.init(flags=flags if offered else flags & ~abi.ALLOW_IDMAP)
        # Without default_permissions the kernel would refuse the whole mount.
        assert bool(flags2 & abi.ALLOW_IDMAP >> 32) == (checks_permissions and offered)
    finally:
        kernel.close()


@pytest.mark.parametrize("passthrough", [True, False])
def test_without_passthrough_no_level_of_stacking_is_taken(passthrough: bool) -> None:
    kernel = Kernel(passthrough=passthrough)
    try:
        *_, flags2, stack_depth, _ = kernel.init()
        assert (bool(flags2 & abi.PASSTHROUGH >> 32), stack_depth) == (passthrough, int(passthrough))
    finally:
        kernel.close()


def test_a_later_kernel_hears_the_version_that_is_known(new_kernel: Kernel) -> None:
    assert new_kernel.init(minor=99)[:2] == (7, abi.MINOR)


def test_a_kernel_of_another_major_version_asks_again(new_kernel: Kernel) -> None:
    body = new_kernel.ask(Opcode.INIT, 0, struct.pack("<IIII", 8, 0, 0, 0))
    assert struct.unpack_from("<II", body) == (7, abi.MINOR)
    assert not new_kernel.ready.is_set()
    assert new_kernel.init()[:2] == (7, 45)
    assert new_kernel.ready.wait(TIMEOUT_S)


def test_a_kernel_that_is_too_old_is_a_mount_failure(new_kernel: Kernel) -> None:
    body = struct.pack("<IIII", 7, 30, 131072, 0)
    assert new_kernel.error(Opcode.INIT, 0, body) == errno.EPROTO
    new_kernel.thread.join(TIMEOUT_S)
    assert "7.30" in str(new_kernel.mount_failure)


def test_an_unknown_request_is_not_implemented(kernel: Kernel) -> None:
    assert kernel.error(4000) == errno.ENOSYS
    assert kernel.error(Opcode.STATX, ROOT, bytes(24)) == errno.ENOSYS
    assert kernel.error(Opcode.FLUSH, ROOT, bytes(24)) == errno.ENOSYS


@pytest.mark.parametrize("opcode", sorted(abi.WRITING))
def test_every_writing_request_meets_a_read_only_file_system(kernel: Kernel, opcode: Opcode) -> None:
    assert kernel.error(opcode, ROOT, bytes(64)) == errno.EROFS


def test_opening_for_writing_meets_a_read_only_file_system(kernel: Kernel) -> None:
    node = kernel.node(b"stable", b"file")
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
        assert kernel.error(Opcode.OPEN, node, struct.pack("<II", flags, 0)) == errno.EROFS


def test_a_malformed_request_fails_alone(kernel: Kernel) -> None:
    assert kernel.error(Opcode.READ, ROOT, b"short") == errno.EIO
    assert kernel.error(Opcode.LOOKUP, ROOT, b"") == errno.EIO
    assert kernel.error(Opcode.GETXATTR, kernel.node(b"stable"), b"\0") == errno.EIO
    kernel.send(Opcode.INTERRUPT, 0, b"x")
    assert kernel.answer()[1] == errno.EIO
    kernel.socket.send(b"not even a header")
    assert kernel.node(b"stable")


def test_any_bytes_leave_the_session_alive(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    source = random.Random(7)
    opcodes = [opcode for opcode in Opcode if opcode not in (Opcode.INIT, Opcode.DESTROY)]
    caplog.set_level(logging.CRITICAL, "regfs.mount")
    for _ in range(2000):
        body = source.randbytes(source.choice((0, 1, 7, 8, 16, 24, 40, 63)))
        kernel.send(source.choice(opcodes), source.choice((0, ROOT, source.getrandbits(64))), body)
        unknown = kernel.send(source.getrandbits(16) + 100, ROOT, body)
        while kernel.answer()[0] != unknown:
            pass
    last = kernel.send(Opcode.LOOKUP, ROOT, b"stable\0")
    while (answer := kernel.answer())[0] != last:  # others may be answered later, by the threads that wait
        pass
    assert answer[1] == 0


def test_an_entry_below_a_digest_is_valid_for_ever_and_one_at_a_registry_is_not(kernel: Kernel) -> None:
    stable = kernel.node(b"stable")
    assert struct.unpack_from("<QQQ", kernel.ask(Opcode.LOOKUP, stable, b"file\0"))[2] == FOR_EVER
    assert struct.unpack_from("<QQQ", kernel.ask(Opcode.LOOKUP, ROOT, b"slow\0"))[2] == 60
    assert struct.unpack_from("<QQQ", kernel.ask(Opcode.LOOKUP, ROOT, b"moving\0"))[2] == 0


def test_a_missing_name_is_remembered_below_a_digest_alone(kernel: Kernel) -> None:
    assert struct.unpack_from("<QQQ", kernel.ask(Opcode.LOOKUP, kernel.node(b"stable"), b"none\0")) == (0, 0, FOR_EVER)
    assert kernel.error(Opcode.LOOKUP, ROOT, b"none\0") == errno.ENOENT


def test_forgetting_is_not_answered(kernel: Kernel) -> None:
    node = kernel.node(b"live")
    kernel.send(Opcode.FORGET, node, struct.pack("<Q", 1))
    kernel.send(Opcode.BATCH_FORGET, 0, struct.pack("<II", 2, 0) + struct.pack("<QQQQ", node, 2, 99, 1))
    assert kernel.ask(Opcode.STATFS, ROOT)
    assert kernel.tree.lookups[node] == -2


def test_an_interrupted_request_ends_at_once_and_its_late_answer_is_dropped(kernel: Kernel) -> None:
    slow = kernel.node(b"slow")
    waiting = kernel.send(Opcode.LOOKUP, slow, b"lookup-1\0")
    kernel.send(Opcode.INTERRUPT, 0, struct.pack("<Q", waiting))
    assert kernel.answer()[:2] == (waiting, errno.EINTR)
    kernel.tree.arrived.set()
    assert kernel.node(b"slow", b"lookup-2")
    assert kernel.failures == []


def test_an_interrupt_for_an_answered_request_changes_nothing(kernel: Kernel) -> None:
    kernel.send(Opcode.INTERRUPT, 0, struct.pack("<Q", 2))
    assert kernel.node(b"stable")


def test_a_request_that_must_wait_is_answered_where_no_thread_can_be_started(kernel: Kernel) -> None:
    slow = kernel.node(b"slow")
    with no_threads():
        # ENOMEM alone lets the kernel keep the name, and all mounts below it, when it looks it up once more.
        assert kernel.error(Opcode.LOOKUP, slow, b"lookup-1\0") == errno.ENOMEM
    [(what, error)] = kernel.failures
    assert what == f"LOOKUP {kernel.tree.name_of(slow)}/lookup-1"
    assert isinstance(error, OutOfThreads)
    kernel.tree.arrived.set()
    assert kernel.node(b"slow", b"lookup-1")
    kernel.send(Opcode.INTERRUPT, 0, struct.pack("<Q", 2))
    assert kernel.stats.value("mount.interrupts") == 0


def test_a_waiting_request_holds_up_no_other(kernel: Kernel) -> None:
    slow = kernel.node(b"slow")
    waiting = [kernel.send(Opcode.LOOKUP, slow, b"lookup-%d\0" % number) for number in range(50)]
    assert kernel.node(b"stable", b"file")
    kernel.tree.arrived.set()
    assert sorted(kernel.answer()[0] for _ in waiting) == waiting


def test_a_failure_is_told_once_with_what_was_asked(kernel: Kernel) -> None:
    directory = kernel.node(b"errors")
    assert kernel.error(Opcode.LOOKUP, directory, b"unavailable\0") == errno.EHOSTUNREACH
    assert kernel.error(Opcode.LOOKUP, directory, b"not-found\0") == errno.ENOENT
    [(what, error)] = kernel.failures
    assert what == f"LOOKUP {kernel.tree.name_of(directory)}/unavailable"
    assert "as asked" in str(error)


def test_a_bug_is_counted(kernel: Kernel) -> None:
    assert kernel.error(Opcode.LOOKUP, kernel.node(b"errors"), b"bug\0") == errno.EIO
    assert kernel.stats.value("bugs") == 1


def test_a_small_file_is_in_the_page_cache_before_it_is_open(kernel: Kernel) -> None:
    node = kernel.node(b"stable", b"file")
    sent = kernel.send(Opcode.OPEN, node, bytes(8))
    unique, code, body = kernel.answer()
    assert (unique, -code, body) == (0, abi.NOTIFY_STORE, struct.pack("<QQII", node, 0, 6, 0) + b"hello\n")
    assert kernel.answer()[0] == sent


def test_bytes_are_stored_only_for_the_first_who_opens_a_node(kernel: Kernel) -> None:
    """The kernel locks the pages for it, and a READ by another reader may hold that lock until we answer it."""
    node = kernel.node(b"stable", b"file")
    kernel.ask(Opcode.OPEN, node, bytes(8))
    sent = kernel.send(Opcode.OPEN, node, bytes(8))
    assert kernel.answer()[0] == sent


def test_every_open_is_without_flush(kernel: Kernel) -> None:
    for names in ((b"stable", b"file"), (b"live",), (b"stable", b"backed")):
        flags = struct.unpack("<QIi", kernel.ask(Opcode.OPEN, kernel.node(*names), bytes(8)))[1]
        assert flags & abi.FOPEN_NOFLUSH


def test_a_closed_handle_is_bad(kernel: Kernel) -> None:
    node = kernel.node(b"stable", b"big")
    handle = struct.unpack("<QIi", kernel.ask(Opcode.OPEN, node, bytes(8)))[0]
    assert kernel.ask(Opcode.READ, node, read_body(handle, 4096, 1000)) == BIG[4096:5096]
    kernel.ask(Opcode.RELEASE, node, struct.pack("<QIIQ", handle, 0, 0, 0))
    assert kernel.error(Opcode.READ, node, read_body(handle, 0, 10)) == errno.EBADF


@pytest.mark.parametrize(("opcode", "head"), [(Opcode.READDIR, 0), (Opcode.READDIRPLUS, 128)])
def test_a_directory_is_read_in_pieces_of_any_size(kernel: Kernel, opcode: Opcode, head: int) -> None:
    node = kernel.node(b"stable", b"many")
    handle = struct.unpack("<QIi", kernel.ask(Opcode.OPENDIR, node, bytes(8)))[0]
    names, offset, sizes = [], 0, itertools.cycle((600, 4096, 32768))
    while True:
        size = next(sizes)
        body = kernel.ask(opcode, node, read_body(handle, offset, size))
        assert len(body) <= size
        if not body:
            break
        while body:
            _, offset, length, _ = struct.unpack_from("<QQII", body, head)
            names.append(body[head + 24 : head + 24 + length])
            body = body[head + 24 + (length + 7 & ~7) :]
    assert names == [b".", b"..", *(b"%05d" % number for number in range(MANY))]


def test_an_entry_that_must_be_looked_up_first_has_no_node(kernel: Kernel) -> None:
    handle = struct.unpack("<QIi", kernel.ask(Opcode.OPENDIR, ROOT, bytes(8)))[0]
    body = kernel.ask(Opcode.READDIRPLUS, ROOT, read_body(handle, 2, 4096))
    kinds = {}
    while body:
        node = struct.unpack_from("<Q", body)[0]
        _, _, length, _ = struct.unpack_from("<QQII", body, 128)
        kinds[body[152 : 152 + length]] = node
        body = body[152 + (length + 7 & ~7) :]
    assert (kinds[b"live"], kinds[b"stable"]) == (0, kernel.node(b"stable"))


def test_the_last_file_is_closed_when_the_connection_ends() -> None:
    asking = Kernel()
    asking.init()
    asking.ask(Opcode.OPEN, asking.node(b"stable", b"file"), bytes(8))
    asking.close()
    assert len(asking.session._state.files) == 0


def read_body(handle: int, offset: int, size: int) -> bytes:
    return struct.pack("<QQIIQII", handle, offset, size, 0, 0, 0, 0)


class Silence(Notifications):
    """A kernel that takes all notifications."""

    def store(self, node: int, offset: int, content: bytes) -> bool:
        return True

    def invalidate_attributes(self, node: int) -> None:
        pass


def test_an_answer_that_nobody_took_is_taken_back() -> None:
    tree = SuiteTree()
    state = SessionState(tree, Silence())
    requests = Requests(tree, state)
    live = tree.live
    for opcode, node, body in (
        (Opcode.OPEN, live, bytes(8)),
        (Opcode.OPENDIR, ROOT, bytes(8)),
        (Opcode.LOOKUP, ROOT, b"live\0"),
    ):
        requests.undo(opcode, node, requests.methods[opcode](node, body) or b"")
    assert (len(state.files), len(state.directories), tree.lookups[live]) == (0, 0, 0)


class ColdTree(SuiteTree):
    """The root has one entry, of which a listing tells what stands for its attributes; at_once() is a look-up."""

    def listing(self, node: int) -> ColdTree:  # type: ignore[override]
        return self

    def entries(self, start: int, limit: int) -> list[ListedEntry]:
        return [ListedEntry(b"rootfs", 0, self.attributes(self.live).attributes, 1.0)][start : start + limit]

    def at_once(self, position: int) -> ListedEntry:
        assert position == 0
        self.lookups[self.live] = self.lookups.get(self.live, 0) + 1
        return self.entries(0, 1)[0]._replace(node=self.live)


def read_cold(tree: ColdTree, opcode: Opcode, offset: int, size: int) -> tuple[Requests, bytes]:
    """Return what a listing of the root answers, and who answered."""
    requests = Requests(tree, SessionState(tree, Silence()))
    handle = struct.unpack("<QIi", requests.methods[Opcode.OPENDIR](ROOT, bytes(8)) or b"")[0]
    return requests, requests.methods[opcode](ROOT, read_body(handle, offset, size)) or b""


def test_an_entry_that_a_listing_tells_at_once_has_a_node_counts_as_a_look_up_and_holds_a_second() -> None:
    tree = ColdTree()
    requests, answer = read_cold(tree, Opcode.READDIRPLUS, 2, 4096)
    assert struct.unpack_from("<QQQQII", answer) == (tree.live, 0, 1, 1, 0, 0)
    assert tree.lookups[tree.live] == 1
    requests.undo(Opcode.READDIRPLUS, ROOT, answer)
    assert tree.lookups[tree.live] == 0


@pytest.mark.parametrize(("opcode", "size"), [(Opcode.READDIRPLUS, 152), (Opcode.READDIR, 4096)])
def test_an_entry_that_the_kernel_is_not_told_counts_as_no_look_up(opcode: Opcode, size: int) -> None:
    tree = ColdTree()
    read_cold(tree, opcode, 2, size)
    assert tree.lookups == {}


def test_going_into_a_directory_makes_it_ready_and_its_attributes_stale() -> None:
    class Door(SuiteTree):
        def enter(self, node: int) -> bool:
            return True

    class Heard(Silence):
        stale: list[int] = []

        def invalidate_attributes(self, node: int) -> None:
            self.stale.append(node)

    tree = Door()
    requests = Requests(tree, SessionState(tree, Heard()))
    requests.access(ROOT, struct.pack("<II", os.R_OK, 0))
    assert Heard.stale == []
    requests.access(ROOT, struct.pack("<II", os.X_OK, 0))
    assert Heard.stale == [ROOT]


@pytest.mark.parametrize(
    ("name", "mask", "number"),
    [(b"file", os.X_OK, errno.EACCES), (b"script", os.X_OK, 0), (b"file", os.W_OK, errno.EROFS), (b"file", os.R_OK, 0)],
)
def test_access_answers_what_the_kernel_does_not_check_itself(
    kernel: Kernel, name: bytes, mask: int, number: int
) -> None:
    assert kernel.error(Opcode.ACCESS, kernel.node(b"stable", name), struct.pack("<II", mask, 0)) == number


class CountingTree(SuiteTree):
    """Counts how often each node is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opens: list[int] = []

    def open(self, node: int) -> MemoryFile:
        self.opens.append(node)
        return super().open(node)

    def stable_node(self, name: bytes) -> int:
        """Return the file *name* of /stable, which is as if below a digest."""
        return self.lookup(self.lookup(ROOT, b"stable").node, name).node


def storing_requests(tree: SuiteTree) -> Requests:
    """Return what the reading thread answers with, which stores the first bytes of a file when it is opened."""
    state = SessionState(tree, Silence())
    return Requests(tree, state, file_prefetch=FilePrefetch(tree, state.page_cache))


def opened(requests: Requests, node: int) -> bytes:
    return (requests.methods[Opcode.OPEN](node, bytes(8)) or b"")[:8]


def test_a_small_file_that_the_kernel_has_is_open_again_without_the_tree() -> None:
    tree = CountingTree()
    requests = storing_requests(tree)
    node = tree.stable_node(b"file")
    first, second = opened(requests, node), opened(requests, node)
    assert tree.opens == [node]
    for handle in (first, second):
        requests.methods[Opcode.RELEASE](node, handle + bytes(16))
    assert len(requests._files) == 0


def test_a_small_file_whose_pages_the_kernel_has_dropped_is_read_from_the_tree() -> None:
    tree = CountingTree()
    requests = storing_requests(tree)
    node = tree.stable_node(b"file")
    opened(requests, node)
    handle = struct.unpack("<Q", opened(requests, node))[0]
    read = requests.methods[Opcode.READ]
    assert [read(node, read_body(handle, 0, 4)), read(node, read_body(handle, 4, 100))] == [b"hell", b"o\n"]
    assert tree.opens == [node, node]


@pytest.mark.parametrize("name", [b"big", b"backed"])
def test_a_file_that_the_kernel_has_in_part_is_opened_in_the_tree(name: bytes) -> None:
    tree = CountingTree()
    requests = storing_requests(tree)
    node = tree.stable_node(name)
    for _ in range(2):
        opened(requests, node)
    assert tree.opens == [node, node]
