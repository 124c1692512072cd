"""What the kernel's page cache is given before it asks, and files that are open from it alone."""

from __future__ import annotations

import struct

import pytest

from regfs.model.node_id import ROOT
from regfs.mount.kernel import abi
from regfs.mount.kernel.abi import Opcode
from regfs.mount.kernel.prefetch import FilePrefetch
from regfs.mount.kernel.requests import Requests
from regfs.mount.kernel.state import SessionState
from tests.mount.asking_kernel import Kernel, Silence, read_body
from tests.mount.memory_tree import MemoryFile, SuiteTree


def test_a_small_file_is_in_the_page_cache_before_it_is_open(kernel: Kernel) -> None:
    node = kernel.node(b"stable", b"file")
    sent = kernel.send(Opcode.OPEN, node, bytes(8))
    unique, code, body = kernel.answer()
    assert (unique, -code, body) == (0, abi.NOTIFY_STORE, struct.pack("<QQII", node, 0, 6, 0) + b"hello\n")
    assert kernel.answer()[0] == sent


def test_bytes_are_stored_only_for_the_first_open_of_a_node(kernel: Kernel) -> None:
    """The kernel locks the pages for it, and a READ by another reader may hold that lock until we answer it."""
    node = kernel.node(b"stable", b"file")
    kernel.ask(Opcode.OPEN, node, bytes(8))
    sent = kernel.send(Opcode.OPEN, node, bytes(8))
    assert kernel.answer()[0] == sent


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
