"""Unpacking a tree into a directory: all that an image has, and nothing outside the directory."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from regfs.errors import BadLayer, InvalidOption, NotFound
from regfs.export.unpack import Summary, Unpacker, prepare_directory, total_size
from regfs.model.attributes import Attributes, device_number
from regfs.model.digest import Digest
from regfs.process.umask import current_umask
from regfs.store.layers.content import Content, Nothing, OpenContent, Span

LAYER = Digest.of(b"a layer")
MTIME_NS = 1_500_000_000_123_456_789
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="sets owners")


@dataclass
class Node:
    attributes: Attributes
    children: list[tuple[bytes, int]] = field(default_factory=list)
    content: bytes = b""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)


class MemoryFileTree:
    """A FileTree of dicts, with entries in the order they were added."""

    root = 0

    def __init__(self) -> None:
        self.nodes = [Node(Attributes(stat.S_IFDIR | 0o755, 4096, mtime_ns=MTIME_NS))]

    def add(
        self, name: bytes, kind: int = stat.S_IFREG, mode: int = 0o644, content: bytes = b"", *,
        parent: int = 0, nlink: int = 1, uid: int = 0, gid: int = 0, rdev: int = 0,
        xattrs: dict[bytes, bytes] | None = None,
    ) -> int:  # fmt: skip
        size = len(content) if kind in (stat.S_IFREG, stat.S_IFLNK) else 0
        attributes = Attributes(kind | mode, size, nlink, uid, gid, rdev, MTIME_NS)
        self.nodes.append(Node(attributes, content=content, xattrs=xattrs or {}))
        return self.link(name, len(self.nodes) - 1, parent=parent)

    def link(self, name: bytes, node: int, *, parent: int = 0) -> int:
        self.nodes[parent].children.append((name, node))
        return node

    def first_rows(self) -> dict[int, int]:
        return {0: 0}

    def lookup(self, node: int, name: bytes) -> tuple[int, bytes]:
        for found, child in self.nodes[node].children:
            if found == name:
                return child, self.attributes(child)
        raise NotFound(repr(name))

    def parent(self, node: int) -> int:
        return next((above for above, each in enumerate(self.nodes) if node in dict(each.children).values()), self.root)

    def path(self, node: int) -> bytes:
        above = self.parent(node)
        name = next((name for name, child in self.nodes[above].children if child == node), b"")
        return name if above == self.root else self.path(above) + b"/" + name

    def count(self, node: int) -> int:
        return len(self.nodes[node].children)

    def following(self, node: int, limit: int) -> list[tuple[int, Span]]:
        return []

    def attributes(self, node: int) -> bytes:
        return self.nodes[node].attributes.pack()

    def children(self, node: int, start: int, limit: int) -> list[tuple[bytes, int, bytes]]:
        page = self.nodes[node].children[start : start + limit]
        return [(name, child, self.attributes(child)) for name, child in page]

    def target(self, node: int) -> bytes:
        return self.nodes[node].content

    def xattrs(self, node: int) -> dict[bytes, bytes]:
        return self.nodes[node].xattrs

    def content(self, node: int) -> Content:
        return Span(LAYER, node, len(self.nodes[node].content)) if self.nodes[node].content else Nothing()

    def open_content(self, content: Content) -> OpenContent:
        assert isinstance(content, Span)
        fd = os.memfd_create("content")
        os.write(fd, self.nodes[content.offset].content)
        return OpenContent(fd, content.size)


@pytest.fixture
def rows() -> MemoryFileTree:
    return MemoryFileTree()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    prepare_directory(tmp_path / "rootfs")
    return tmp_path / "rootfs"


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def unpack(rows: MemoryFileTree, directory: Path, *, as_root: bool = False) -> Summary:
    unpacker = Unpacker(
        rows,
        rows.open_content,
        as_root=as_root,
        umask=current_umask(),
        on_bytes=lambda _: None,
    )
    return unpacker.into(directory)


def test_files_directories_and_links_come_out(rows: MemoryFileTree, directory: Path) -> None:
    etc = rows.add(b"etc", stat.S_IFDIR, 0o755)
    rows.add(b"motd", content=b"hello\n", parent=etc)
    rows.add(b"empty", parent=etc)
    rows.add(b"mtab", stat.S_IFLNK, 0o777, b"/proc/mounts", parent=etc)
    summary = unpack(rows, directory)
    assert (directory / "etc/motd").read_bytes() == b"hello\n"
    assert (directory / "etc/empty").read_bytes() == b""
    assert os.readlink(directory / "etc/mtab") == "/proc/mounts"
    assert (summary.entries, summary.size, summary.failures) == (5, 6, [])


def test_times_are_kept_to_the_nanosecond_for_directories_too(rows: MemoryFileTree, directory: Path) -> None:
    below = rows.add(b"directory", stat.S_IFDIR, 0o755)
    rows.add(b"file", content=b"x", parent=below)
    rows.add(b"link", stat.S_IFLNK, 0o777, b"file", parent=below)
    unpack(rows, directory)
    for name in (".", "directory", "directory/file", "directory/link"):
        assert os.lstat(directory / name).st_mtime_ns == MTIME_NS


def test_hard_links_are_one_file(rows: MemoryFileTree, directory: Path) -> None:
    below = rows.add(b"directory", stat.S_IFDIR, 0o755)
    node = rows.add(b"first", content=b"x", parent=below, nlink=2)
    rows.link(b"second", node)
    unpack(rows, directory)
    assert (directory / "second").samefile(directory / "directory/first")
    assert (directory / "second").stat().st_nlink == 2


def test_names_in_any_bytes_come_out(rows: MemoryFileTree, directory: Path) -> None:
    for name in (b"\xff\xfe", b"new\nline", b"a" * 255, b"-rf", b" "):
        rows.add(name, content=name)
    unpack(rows, directory)
    assert sorted(os.listdir(os.fsencode(directory))) == sorted([b"\xff\xfe", b"new\nline", b"a" * 255, b"-rf", b" "])


def test_a_big_file_comes_out_whole_and_its_zeros_are_holes(rows: MemoryFileTree, directory: Path) -> None:
    content = b"begin" + bytes(4 << 20) + os.urandom(300_000) + bytes(1 << 20)
    rows.add(b"sparse", content=content)
    unpack(rows, directory)
    assert (directory / "sparse").read_bytes() == content
    assert (directory / "sparse").stat().st_blocks * 512 < 2 << 20


def test_a_directory_of_thousands_comes_out(rows: MemoryFileTree, directory: Path) -> None:
    for number in range(2500):
        rows.add(b"%d" % number)
    unpack(rows, directory)
    assert len(os.listdir(directory)) == 2500


@pytest.mark.parametrize("name", [b"..", b".", b"", b"a/b", b"../escape", b"nul\0"])
def test_a_name_that_leads_elsewhere_is_refused(rows: MemoryFileTree, directory: Path, name: bytes) -> None:
    rows.add(name, content=b"x")
    with pytest.raises(BadLayer):
        unpack(rows, directory)
    assert sorted(os.listdir(directory.parent)) == ["rootfs"]


def test_no_link_of_the_image_is_followed(rows: MemoryFileTree, directory: Path) -> None:
    """A tree that names a link and a directory alike: the second is an error, and nothing lands behind the link."""
    (directory.parent / "outside").mkdir()
    rows.add(b"way", stat.S_IFLNK, 0o777, b"../outside")
    below = rows.add(b"way", stat.S_IFDIR, 0o755)
    rows.add(b"file", content=b"x", parent=below)
    rows.add(b"way", content=b"x")
    summary = unpack(rows, directory)
    assert summary.failures == ["way: File exists", "way: File exists"]
    assert os.listdir(directory.parent / "outside") == []


def test_what_cannot_be_written_is_named_and_the_rest_comes_out(rows: MemoryFileTree, directory: Path) -> None:
    rows.add(b"file", content=b"x", xattrs={b"user.no-such-kind" + b"x" * 300: b""})
    rows.add(b"other", content=b"y")
    summary = unpack(rows, directory)
    assert [failure.partition(":")[0] for failure in summary.failures] == ["file"]
    assert (directory / "other").read_bytes() == b"y"


def test_an_ordinary_user_gets_what_tar_leaves(rows: MemoryFileTree, directory: Path) -> None:
    rows.add(b"suid", mode=0o6777, uid=1234, gid=1234, content=b"x", xattrs={b"security.capability": b"x"})
    rows.add(b"null", stat.S_IFCHR, 0o666, rdev=device_number(1, 3))
    rows.add(b"fifo", stat.S_IFIFO, 0o600)
    closed = rows.add(b"closed", stat.S_IFDIR, 0o500)
    rows.add(b"inside", content=b"x", parent=closed)
    with umask(0o027):
        summary = unpack(rows, directory)
    status = (directory / "suid").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o750, os.geteuid())
    assert stat.S_ISFIFO((directory / "fifo").stat().st_mode)
    assert (directory / "closed/inside").read_bytes() == b"x"
    assert not (directory / "null").exists()
    assert (summary.devices_left_out, summary.xattrs_left_out, summary.failures) == (1, 1, [])
    assert [note.split(" ")[0] for note in summary.notes()] == ["1", "1"]


def test_a_umask_that_closes_directories_to_their_owner_stops_nothing(rows: MemoryFileTree, directory: Path) -> None:
    inner = rows.add(b"inner", stat.S_IFDIR, 0o755, parent=rows.add(b"outer", stat.S_IFDIR, 0o755))
    rows.add(b"file", mode=0o644, content=b"x", parent=inner)
    with umask(0o777):
        assert unpack(rows, directory).failures == []
    assert stat.S_IMODE((directory / "outer").lstat().st_mode) == 0
    assert os.geteuid() != 0 or (directory / "outer/inner/file").read_bytes() == b"x"


def test_unpacking_leaves_the_umask_of_the_process_alone(rows: MemoryFileTree, directory: Path) -> None:
    seen = set()
    with umask(0o027):
        rows.add(b"file", content=b"x")
        unpacker = Unpacker(
            rows,
            rows.open_content,
            as_root=False,
            umask=0o027,
            on_bytes=lambda _: seen.add(current_umask()),
        )
        unpacker.into(directory)
    assert seen == {0o027}


@needs_root
def test_root_gets_owners_modes_devices_and_capabilities(rows: MemoryFileTree, directory: Path) -> None:
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    rows.add(b"ping", mode=0o4755, uid=12, gid=34, content=b"x", xattrs={b"security.capability": capability})
    rows.add(b"disk", stat.S_IFBLK, 0o660, rdev=device_number(259, 70000), gid=6)
    rows.add(b"link", stat.S_IFLNK, 0o777, b"nowhere", uid=12, xattrs={b"trusted.comment": b"on a link"})
    assert unpack(rows, directory, as_root=True).failures == []
    ping = (directory / "ping").stat()
    assert (ping.st_uid, ping.st_gid, stat.S_IMODE(ping.st_mode)) == (12, 34, 0o4755)
    assert os.getxattr(directory / "ping", "security.capability") == capability
    disk = (directory / "disk").stat()
    assert (stat.S_ISBLK(disk.st_mode), stat.S_IMODE(disk.st_mode), disk.st_gid) == (True, 0o660, 6)
    assert (os.major(disk.st_rdev), os.minor(disk.st_rdev)) == (259, 70000)
    assert os.lstat(directory / "link").st_uid == 12
    assert os.getxattr(directory / "link", "trusted.comment", follow_symlinks=False) == b"on a link"


def test_sizes_are_added_up_with_hard_links_once(rows: MemoryFileTree) -> None:
    below = rows.add(b"directory", stat.S_IFDIR, 0o755)
    node = rows.add(b"first", content=b"12345", parent=below, nlink=2)
    rows.link(b"second", node)
    rows.add(b"third", content=b"123")
    assert total_size(rows) == 8


def test_an_empty_directory_is_taken_and_a_full_one_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    prepare_directory(tmp_path / "empty")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    for name in ("full", "full/file", "full/file/below"):
        with pytest.raises(InvalidOption):
            prepare_directory(tmp_path / name)


def open_files() -> list[str]:
    """Return what this process has open; threads of earlier tests may close theirs meanwhile."""
    found = []
    for entry in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{entry}"))
    return found


def test_no_descriptor_is_left_open(rows: MemoryFileTree, directory: Path) -> None:
    parent = 0
    for _ in range(50):
        parent = rows.add(b"deep", stat.S_IFDIR, 0o755, parent=parent)
    unpack(rows, directory)
    assert [path for path in open_files() if path.startswith((str(directory), "/memfd:content"))] == []
