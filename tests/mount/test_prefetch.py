"""Prefetching: files that follow in a layer, and the next part of a directory, before they are asked for."""

from __future__ import annotations

import stat
import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from regfs.errors import CacheFailure
from regfs.model.node_id import ROOT
from regfs.mount.kernel.directory import OpenDirectory
from regfs.mount.kernel.notifications import Notifications
from regfs.mount.kernel.prefetch import DirectoryPrefetch, FilePrefetch
from regfs.mount.kernel.requests import Requests
from regfs.mount.kernel.state import SessionState
from tests.mount.memory_tree import Entry, MemoryFile, MemoryListing, MemoryTree

FILES = 40


class Archive(MemoryTree):
    """A recorded directory of files that lie in their archive in the order of their numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.directory_node = self.keep(Entry(stat.S_IFDIR | 0o755, nlink=2), recorded=True)
        self.files = [self.file(self.directory_node, b"%02d" % number, b"%02d" % number) for number in range(FILES)]
        self.opened: list[int] = []
        self.listed: list[int] = []
        self.read_behind: list[int] = []
        self.is_torn = False

    def listing(self, node: int) -> MemoryListing:
        self.listed.append(node)
        return super().listing(node)

    def open(self, node: int) -> MemoryFile:
        self.opened.append(node)
        return super().open(node)

    def read_following(self, node: int, limit: int, buffer: bytearray) -> list[tuple[int, bytes]]:
        self.read_behind.append(node)
        if self.is_torn:
            raise CacheFailure("as asked")
        return super().read_following(node, limit, buffer)


class KernelPages(Notifications):
    """What the kernel keeps of the files that it knows."""

    def __init__(self, known: list[int]) -> None:
        super().__init__()
        self.known = set(known)
        self.pages: dict[int, bytes] = {}
        self.stored: list[int] = []

    def store(self, node: int, offset: int, content: bytes) -> bool:
        assert offset == 0
        self.stored.append(node)
        if node in self.known:
            self.pages[node] = content
        return node in self.known

    def invalidate_attributes(self, node: int) -> None:
        raise AssertionError("no listing gave other attributes")


class Reader:
    """Opens files as the kernel does, whose page cache it looks at."""

    def __init__(self, known: list[int] | None = None) -> None:
        self.tree = Archive()
        self.files = self.tree.files
        self.cache = KernelPages(self.files if known is None else known)
        self.state = SessionState(self.tree, self.cache)
        self.prefetch = FilePrefetch(self.tree, self.state.page_cache)
        self.requests = Requests(self.tree, self.state, file_prefetch=self.prefetch)

    def open(self, node: int) -> int:
        return int(struct.unpack_from("<Q", self.requests.open(node, bytes(8)))[0])

    def release(self, node: int, handle: int) -> None:
        self.requests.release(node, struct.pack("<QIIQ", handle, 0, 0, 0))

    def read(self, node: int) -> bytes:
        """Open, read what is not in the page cache, close."""
        handle = self.open(node)
        content = self.cache.pages.get(node)
        if content is None:
            content = self.requests.read(node, struct.pack("<QQIIQII", handle, 0, 4096, 0, 0, 0, 0))
        self.release(node, handle)
        return content

    def rest(self) -> None:
        """Let the daemon do what it does while nothing is asked."""
        while self.prefetch.step():
            pass


def test_what_follows_two_files_of_an_archive_is_in_the_page_cache_before_it_is_opened() -> None:
    reader = Reader()
    reader.read(reader.files[0])
    reader.rest()
    assert list(reader.cache.pages) == reader.files[:1]
    reader.read(reader.files[1])
    reader.rest()
    assert list(reader.cache.pages) == reader.files[:18]
    for node in reader.files:
        reader.read(node)
        reader.rest()
    assert reader.tree.opened == reader.files[:2]
    assert reader.cache.pages == {node: reader.tree.nodes[node].content for node in reader.files}
    assert reader.cache.stored == reader.files


def test_files_are_read_many_at_once_even_where_nothing_is_ever_idle() -> None:
    reader = Reader()
    assert [reader.read(node) for node in reader.files] == [reader.tree.nodes[node].content for node in reader.files]
    assert reader.tree.opened == reader.files[:2]
    assert len(reader.tree.read_behind) == 4


def test_a_file_that_the_kernel_does_not_know_yet_is_kept_until_it_is_opened() -> None:
    reader = Reader(known=[])
    reader.cache.known = set(reader.files[:2])
    for node in reader.files[:2]:
        reader.read(node)
    reader.rest()
    assert list(reader.cache.pages) == reader.files[:2]
    reader.cache.known = set(reader.files)
    assert reader.read(reader.files[5]) == b"05"
    assert reader.tree.opened == reader.files[:2]


def test_nothing_is_stored_in_a_file_that_is_open() -> None:
    """A READ of it may hold its pages until it is answered by the very thread that stores."""
    reader = Reader(known=[])
    handle = reader.open(reader.files[4])  # its bytes are stored now, and the kernel does not take them
    reader.cache.known = set(reader.files)
    reader.cache.stored.clear()
    for node in reader.files[:2]:
        reader.read(node)
    reader.rest()
    assert reader.files[3] in reader.cache.stored
    assert reader.files[4] not in reader.cache.stored
    reader.release(reader.files[4], handle)


def test_what_was_read_is_dropped_when_the_kernel_lets_nodes_go() -> None:
    """The slot of a table that is not in use any more may be given to another one."""
    reader = Reader(known=[])
    for node in reader.files[:2]:
        reader.read(node)
    third = reader.files[2]
    reader.requests.forget(third, struct.pack("<Q", 1))
    reader.tree.nodes[third].content = b"another"
    assert reader.read(third) == b"another"
    reader.read(reader.files[3])
    fifth = reader.files[4]
    reader.requests.batch_forget(0, struct.pack("<IIQQ", 1, 0, fifth, 1))
    reader.tree.nodes[fifth].content = b"another"
    assert reader.read(fifth) == b"another"


def test_wrong_guesses_do_not_pile_up_where_nothing_is_ever_idle() -> None:
    reader = Reader()
    many = [reader.tree.file(reader.tree.directory_node, b"m%d" % number, b"m") for number in range(4000)]
    reader.cache.known.update(many)
    for at in range(0, 3900, 100):
        reader.read(many[at])
        reader.read(many[at + 1])
    assert len(reader.prefetch._read) < 100


def test_files_that_are_read_for_the_second_time_are_not_prefetched() -> None:
    reader = Reader()
    for _ in range(2):
        for node in reader.files:
            reader.read(node)
            reader.rest()
    assert len(reader.tree.read_behind) == 4
    assert reader.cache.stored == reader.files


def test_reading_ahead_that_fails_fails_nothing_else() -> None:
    reader = Reader()
    reader.tree.is_torn = True
    assert [reader.read(node) for node in reader.files[:5]] == [b"00", b"01", b"02", b"03", b"04"]
    assert reader.tree.read_behind
    reader.tree.is_torn = False
    assert reader.read(reader.files[5]) == b"05"
    assert reader.read(reader.files[6]) == b"06"
    assert reader.tree.opened == reader.files[:6]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, FILES - 1), st.booleans()), max_size=60), st.sets(st.integers(0, FILES - 1)))
def test_bytes_are_right_in_whatever_order_files_are_opened(order: list[tuple[int, bool]], known: set[int]) -> None:
    reader = Reader()
    reader.cache.known = {reader.files[number] for number in known}
    for number, rests in order:
        node = reader.files[number]
        reader.cache.known.add(node)  # it was looked up
        assert reader.read(node) == reader.tree.nodes[node].content
        if rests:
            reader.rest()
    assert all(reader.cache.pages[node] == reader.tree.nodes[node].content for node in reader.cache.pages)


def parts(prefetch: DirectoryPrefetch | None, sizes: list[int]) -> list[bytes]:
    """Return the answers to READDIRPLUS of these sizes, one after the other, with *prefetch* at work in between."""
    tree = Archive()
    node = tree.directory_node
    requests = requests_of(tree, prefetch)
    handle = struct.unpack_from("<Q", requests.open_directory(node, bytes(8)))[0]
    answers, offset = [], 0
    for size in sizes:
        answer = requests.read_directory_plus(node, read_body(handle, offset, size))
        answers.append(answer)
        position = 0
        while position < len(answer):
            offset, length = struct.unpack_from("<QI", answer, position + 136)
            position += 152 + (length + 7 & ~7)
        if prefetch is not None:
            prefetch.step()
    return answers


def requests_of(tree: MemoryTree, prefetch: DirectoryPrefetch | None) -> Requests:
    state = SessionState(tree, Notifications())
    return Requests(tree, state) if prefetch is None else Requests(tree, state, directory_prefetch=prefetch)


def read_body(handle: int, offset: int, size: int) -> bytes:
    return struct.pack("<QQIIQII", handle, offset, size, 0, 0, 0, 0)


@settings(deadline=None)
@given(st.lists(st.integers(200, 3000), max_size=30))
def test_a_part_that_was_prefetched_is_the_one_that_is_asked_for(sizes: list[int]) -> None:
    assert parts(DirectoryPrefetch(Archive()), sizes) == parts(None, sizes)


def test_a_part_that_was_prefetched_is_not_made_again() -> None:
    tree = Archive()
    node, prefetch = tree.directory_node, DirectoryPrefetch(tree)
    directory = OpenDirectory(tree, node, tree.listing(node))
    prefetch.entered(node)
    first = directory.read_plus(0, 1000)
    prefetch.listed(directory, first)
    assert prefetch.step()
    assert prefetch.take(node, first.behind, 1000) == directory.read_plus(first.behind, 1000)
    assert prefetch.take(node, first.behind, 1000) is None


def test_a_directory_that_is_read_from_elsewhere_gets_what_is_there() -> None:
    tree = Archive()
    node, prefetch = tree.directory_node, DirectoryPrefetch(tree)
    requests = requests_of(tree, prefetch)
    handle = struct.unpack_from("<Q", requests.open_directory(node, bytes(8)))[0]
    start = requests.read_directory_plus(node, read_body(handle, 0, 1000))
    assert prefetch.step()
    assert requests.read_directory_plus(node, read_body(handle, 0, 1000)) == start


def test_a_directory_is_prefetched_only_while_it_is_open() -> None:
    tree = Archive()
    node, prefetch = tree.directory_node, DirectoryPrefetch(tree)
    requests = requests_of(tree, prefetch)
    handle = struct.unpack_from("<Q", requests.open_directory(node, bytes(8)))[0]
    assert not prefetch.step()
    requests.read_directory_plus(node, read_body(handle, 0, 1000))
    assert prefetch.step()
    requests.read_directory_plus(node, read_body(handle, 5, 1000))
    requests.release_directory(node, struct.pack("<QIIQ", handle, 0, 0, 0))
    assert not prefetch.step()


class Walk:
    """Lists directories as the kernel does for a walk of a tree: a/b, a/c, d, each with a file."""

    def __init__(self) -> None:
        self.tree = Archive()
        self.listed = self.tree.listed
        self.prefetch = DirectoryPrefetch(self.tree)
        state = SessionState(self.tree, Notifications())
        self.requests = Requests(self.tree, state, directory_prefetch=self.prefetch)
        top = self.top = self.tree.keep(Entry(stat.S_IFDIR | 0o755, nlink=2), recorded=True)
        a = self.tree.directory(top, b"a")
        self.nodes = {b"a": a, b"b": self.tree.directory(a, b"b"), b"c": self.tree.directory(a, b"c")}
        self.nodes[b"d"] = self.tree.directory(top, b"d")
        for name, node in self.nodes.items():
            self.tree.file(node, name + b"-file", b"")

    def list(self, node: int) -> list[bytes]:
        """Return the names in the directory *node*, and rest after each answer."""
        names, answer = [], None
        handle = struct.unpack_from("<Q", self.requests.open_directory(node, bytes(8)))[0]
        offset = 0
        while answer != b"":
            answer = left = self.requests.read_directory_plus(node, read_body(handle, offset, 4096))
            while left:
                offset, length = struct.unpack_from("<QI", left, 136)
                names.append(left[152 : 152 + length])
                left = left[152 + (length + 7 & ~7) :]
            while self.prefetch.step():
                pass
        return names

    def listed_ahead(self, node: int) -> bool:
        """Tell whether *node* is listed before it is entered."""
        return node in self.listed


def test_the_next_directory_of_a_walk_is_listed_before_it_is_entered() -> None:
    walk = Walk()
    assert walk.list(walk.top) == [b".", b"..", b"a", b"d"]
    assert not walk.listed_ahead(walk.nodes[b"a"])  # no walk yet
    assert walk.list(walk.nodes[b"a"]) == [b".", b"..", b"b", b"c", b"a-file"]
    for name in (b"b", b"c", b"d"):
        assert walk.listed_ahead(walk.nodes[name])
        assert walk.list(walk.nodes[name]) == [b".", b"..", name + b"-file"]


def test_listing_here_and_there_is_no_walk() -> None:
    walk = Walk()
    for node in (walk.top, walk.tree.directory_node, walk.nodes[b"a"], walk.top):
        walk.list(node)
    assert walk.listed == [walk.top, walk.tree.directory_node, walk.nodes[b"a"], walk.top]


def test_what_has_no_archive_is_opened_as_it_is_asked() -> None:
    reader = Reader()
    first = reader.tree.file(ROOT, b"a", b"a")
    second = reader.tree.file(ROOT, b"b", b"b")
    assert (reader.read(first), reader.read(second)) == (b"a", b"b")
    reader.rest()
    assert not reader.tree.read_behind
