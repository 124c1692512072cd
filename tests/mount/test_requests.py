"""What each request of the kernel is answered from the tree."""

from __future__ import annotations

import errno
import itertools
import os
import struct

import pytest

from regfs.model.node_id import ROOT
from regfs.mount.kernel import abi
from regfs.mount.kernel.abi import Opcode
from regfs.mount.kernel.requests import Requests
from regfs.mount.kernel.state import SessionState
from regfs.tree.entry import ListedEntry
from tests.mount.asking_kernel import FOR_EVER, Kernel, Silence, read_body
from tests.mount.memory_tree import BIG, MANY, MemoryListing, SuiteTree


@pytest.mark.parametrize("opcode", sorted(abi.WRITING))
def test_every_writing_request_meets_a_read_only_file_system(kernel: Kernel, opcode: Opcode) -> None:
    assert kernel.error(opcode, ROOT, bytes(64)) == errno.EROFS


def test_opening_for_writing_meets_a_read_only_file_system(kernel: Kernel) -> None:
    node = kernel.node(b"stable", b"file")
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
        assert kernel.error(Opcode.OPEN, node, struct.pack("<II", flags, 0)) == errno.EROFS


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


@pytest.mark.parametrize(
    ("name", "mask", "number"),
    [(b"file", os.X_OK, errno.EACCES), (b"script", os.X_OK, 0), (b"file", os.W_OK, errno.EROFS), (b"file", os.R_OK, 0)],
)
def test_access_answers_what_the_kernel_does_not_check_itself(
    kernel: Kernel, name: bytes, mask: int, number: int
) -> None:
    assert kernel.error(Opcode.ACCESS, kernel.node(b"stable", name), struct.pack("<II", mask, 0)) == number


def test_an_answer_that_the_kernel_refuses_is_taken_back() -> None:
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


class ColdListing(MemoryListing):
    """One entry, of which a listing has placeholders for attributes; at_once() counts as a look-up."""

    def __init__(self, tree: ColdTree) -> None:
        super().__init__([ListedEntry(b"rootfs", 0, tree.attributes(tree.live).attributes, 1.0)])
        self._tree = tree

    def at_once(self, position: int) -> ListedEntry:
        assert position == 0
        self._tree.lookups[self._tree.live] = self._tree.lookups.get(self._tree.live, 0) + 1
        return super().at_once(0)._replace(node=self._tree.live)


class ColdTree(SuiteTree):
    """Each directory has one entry, the directory of a table that is not there yet."""

    def listing(self, node: int) -> ColdListing:
        return ColdListing(self)


def read_cold(tree: ColdTree, opcode: Opcode, offset: int, size: int) -> tuple[Requests, bytes]:
    """Return the requests object, and its answer to a listing of the root."""
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
    class Placeholder(SuiteTree):
        def enter(self, node: int) -> bool:
            return True

    class Heard(Silence):
        stale: list[int] = []

        def invalidate_attributes(self, node: int) -> None:
            self.stale.append(node)

    tree = Placeholder()
    requests = Requests(tree, SessionState(tree, Heard()))
    requests.access(ROOT, struct.pack("<II", os.R_OK, 0))
    assert Heard.stale == []
    requests.access(ROOT, struct.pack("<II", os.X_OK, 0))
    assert Heard.stale == [ROOT]
