"""What programs see through a mount, the same with both drivers; what never changes, also in an EROFS image."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import socket
import stat
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import ServeSuite
from tests.mount.memory_tree import BIG, CAPABILITY, FAILURES, MANY, MTIME_NS, PARTS, STRANGE_NAMES

TIMEOUT_S = 100
# include/uapi/linux/fs.h
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
FS_IOC_SETFLAGS = 0x40086602
IMMUTABLE = 0x10


def errno_of(call: Callable[[], object]) -> int:
    with pytest.raises(OSError) as caught:
        call()
    assert caught.value.errno is not None
    return caught.value.errno


def test_names_in_any_bytes_are_listed_and_open(stable: Path) -> None:
    directory = os.fsencode(stable / "names")
    assert sorted(os.listdir(directory)) == sorted(STRANGE_NAMES)
    assert [Path(os.fsdecode(os.path.join(directory, name))).read_bytes() for name in STRANGE_NAMES] == STRANGE_NAMES


def test_a_component_over_255_bytes_is_too_long(stable: Path) -> None:
    assert errno_of(lambda: os.stat(stable / ("a" * 256))) == errno.ENAMETOOLONG


def test_a_missing_name_does_not_exist(stable: Path) -> None:
    assert errno_of(lambda: os.stat(stable / "none")) == errno.ENOENT
    assert errno_of(lambda: os.stat(stable.parent / "none")) == errno.ENOENT


def test_attributes_are_those_of_the_tree(stable: Path) -> None:
    found = os.stat(stable / "owned")
    assert (found.st_mode, found.st_uid, found.st_gid, found.st_size) == (stat.S_IFREG | 0o640, 1234, 0, 1)
    assert (found.st_mtime_ns, found.st_ctime_ns) == (MTIME_NS, MTIME_NS)
    assert stat.S_IMODE(os.stat(stable / "suid").st_mode) == 0o6755


def test_a_listing_and_a_stat_agree_about_inode_and_type(stable: Path) -> None:
    for entry in os.scandir(stable):
        found = os.lstat(entry.path)
        assert (entry.inode(), entry.is_symlink()) == (found.st_ino, stat.S_ISLNK(found.st_mode))
        assert entry.is_dir(follow_symlinks=False) == stat.S_ISDIR(found.st_mode)


def test_hard_links_are_one_inode_with_the_right_count(stable: Path) -> None:
    first, second = (os.stat(stable / name) for name in ("link-1", "link-2"))
    assert first.st_ino == second.st_ino
    assert (first.st_nlink, second.st_nlink) == (2, 2)


def test_symbolic_links_are_shown_and_not_followed_by_the_driver(stable: Path) -> None:
    assert os.readlink(stable / "symlink") == "file"
    assert (stable / "symlink").read_bytes() == b"hello\n"
    assert os.readlink(os.fsencode(stable / "dangling")) == b"/no/\xff/where"
    assert errno_of(lambda: os.readlink(stable / "file")) == errno.EINVAL


def test_special_files_have_type_and_device_number(stable: Path) -> None:
    null, disk = os.stat(stable / "null"), os.stat(stable / "disk")
    assert (stat.S_ISCHR(null.st_mode), null.st_rdev) == (True, os.makedev(1, 3))
    assert (stat.S_ISBLK(disk.st_mode), disk.st_rdev) == (True, os.makedev(259, 70000))
    assert stat.S_ISFIFO(os.stat(stable / "fifo").st_mode)


def test_a_socket_has_its_type(mounted: Path) -> None:  # no archive can hold one
    assert stat.S_ISSOCK(os.stat(mounted / "stable/socket").st_mode)


def test_devices_cannot_be_opened_without_being_asked_for(stable: Path) -> None:
    assert errno_of(lambda: os.open(stable / "null", os.O_RDONLY)) == errno.EACCES


def test_whiteout_names_are_ordinary_names_here(mounted: Path) -> None:
    assert sorted(os.listdir(mounted / "stable/whiteouts")) == [".wh..wh..opq", ".wh." + "a" * 255, ".wh.gone"]
    for name in os.listdir(mounted / "stable/whiteouts"):  # the longest is longer than a file's may be
        assert (mounted / "stable/whiteouts" / name).read_bytes() == b""
    assert errno_of(lambda: os.stat(mounted / "stable/whiteouts" / (".wh." + "a" * 256))) == errno.ENAMETOOLONG


def test_extended_attributes_come_byte_by_byte(stable: Path) -> None:
    path = stable / "file"
    assert sorted(os.listxattr(path)) == ["security.capability", "user.comment"]
    assert os.getxattr(path, "security.capability") == CAPABILITY
    assert os.getxattr(path, "user.comment") == b"\x00\xffbinary"
    assert errno_of(lambda: os.getxattr(path, "user.none")) == errno.ENODATA
    assert os.listxattr(stable / "empty") == []


def test_a_buffer_too_small_for_an_attribute_is_told(stable: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    path, buffer = os.fsencode(stable / "file"), ctypes.create_string_buffer(2)
    assert libc.getxattr(path, b"user.comment", None, 0) == 8
    assert libc.getxattr(path, b"user.comment", buffer, 2) == -1
    assert ctypes.get_errno() == errno.ERANGE


def test_ten_thousand_entries_are_listed_once_each(stable: Path) -> None:
    assert sorted(os.listdir(stable / "many")) == [f"{number:05d}" for number in range(MANY)]
    assert len(os.listdir(stable / "many")) == MANY


def test_a_listing_has_itself_and_its_parent(stable: Path) -> None:
    entries = {name: inode for name, inode, _ in walked(stable / "many")}
    assert entries[b"."] == os.stat(stable / "many").st_ino
    assert entries[b".."] == os.stat(stable).st_ino


def test_a_listing_goes_on_where_telldir_said(stable: Path) -> None:
    entries = list(walked(stable / "many"))
    name, _, position = entries[7000]
    assert name != entries[7001][0]
    assert next(walked(stable / "many", position))[0] == entries[7001][0]
    assert next(walked(stable / "many", 0))[0] == entries[0][0]


class Dirent(ctypes.Structure):
    _fields_ = [
        ("inode", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("length", ctypes.c_ushort),
        ("kind", ctypes.c_ubyte),
        ("name", ctypes.c_char * 256),
    ]


def walked(directory: Path, position: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, inode, position after it) with readdir(3), beginning at *position* with seekdir(3)."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.opendir.restype = ctypes.c_void_p
    libc.readdir.restype = ctypes.POINTER(Dirent)
    libc.telldir.restype = ctypes.c_long
    stream = ctypes.c_void_p(libc.opendir(os.fsencode(directory)))
    assert stream
    try:
        if position is not None:
            libc.readdir(stream)
            libc.seekdir(stream, ctypes.c_long(position))
        while entry := libc.readdir(stream):
            yield entry.contents.name, entry.contents.inode, libc.telldir(stream)
    finally:
        libc.closedir(stream)


@pytest.mark.parametrize("name", FAILURES)
def test_each_failure_has_its_errno(mounted: Path, name: str) -> None:
    assert errno_of(lambda: os.lstat(mounted / "errors" / name)) == FAILURES[name][1]


def test_a_bug_is_an_input_output_error_and_the_mount_goes_on(mounted: Path) -> None:
    assert errno_of(lambda: os.lstat(mounted / "errors/bug")) == errno.EIO
    assert (mounted / "stable/file").read_bytes() == b"hello\n"


def test_a_file_is_no_directory_and_a_directory_no_file(stable: Path) -> None:
    assert errno_of(lambda: os.listdir(stable / "file")) == errno.ENOTDIR
    assert errno_of(stable.read_bytes) == errno.EISDIR


WRITES: dict[str, Callable[[Path], object]] = {
    "open for writing": lambda top: os.open(top / "file", os.O_WRONLY),
    "open for both": lambda top: os.open(top / "file", os.O_RDWR),
    "truncate on open": lambda top: os.open(top / "file", os.O_WRONLY | os.O_TRUNC),
    "truncate on open for reading": lambda top: os.open(top / "file", os.O_RDONLY | os.O_TRUNC),
    "open or create for both": lambda top: os.open(top / "file", os.O_RDWR | os.O_CREAT),
    "append": lambda top: os.open(top / "file", os.O_WRONLY | os.O_APPEND),
    "create": lambda top: os.open(top / "new", os.O_WRONLY | os.O_CREAT),
    "create for reading": lambda top: os.open(top / "new", os.O_RDONLY | os.O_CREAT),
    "create what is new": lambda top: os.open(top / "new", os.O_WRONLY | os.O_CREAT | os.O_EXCL),
    "truncate": lambda top: os.truncate(top / "file", 0),
    "truncate to its size": lambda top: os.truncate(top / "file", len(b"hello\n")),
    "mkdir": lambda top: os.mkdir(top / "new"),
    "rmdir": lambda top: os.rmdir(top / "names"),
    "unlink": lambda top: os.unlink(top / "file"),
    "rmdir what is empty": lambda top: os.rmdir(top / "bare"),
    "rename": lambda top: os.rename(top / "file", top / "new"),
    "rename over another": lambda top: os.rename(top / "file", top / "empty"),
    "link": lambda top: os.link(top / "file", top / "new"),
    "symlink": lambda top: os.symlink("file", top / "new"),
    "mknod": lambda top: os.mknod(top / "new", stat.S_IFIFO | 0o600),
    "mknod of a file": lambda top: os.mknod(top / "new", stat.S_IFREG | 0o600),
    "mknod of a device": lambda top: os.mknod(top / "new", stat.S_IFCHR | 0o600, os.makedev(1, 3)),
    "bind a socket": lambda top: bind(top / "new"),
    "chmod": lambda top: os.chmod(top / "file", 0o600),
    "chmod of a directory": lambda top: os.chmod(top / "names", 0o700),
    "chmod of what is open": lambda top: when_open(top / "file", lambda opened: os.chmod(opened, 0o600)),
    "chown": lambda top: os.chown(top / "file", 1, 1),
    "chown of what is open": lambda top: when_open(top / "file", lambda opened: os.chown(opened, 1, 1)),
    "chown of a link": lambda top: os.lchown(top / "symlink", 1, 1),
    "utime": lambda top: os.utime(top / "file"),
    "utime of a moment": lambda top: os.utime(top / "file", (1, 1)),
    "utime of a link": lambda top: os.utime(top / "symlink", follow_symlinks=False),
    "utime of what is open": lambda top: when_open(top / "file", os.utime),
    "setxattr": lambda top: os.setxattr(top / "file", "user.new", b"x"),
    "setxattr of a directory": lambda top: os.setxattr(top / "names", "trusted.new", b"x"),
    "setxattr of a link": lambda top: os.setxattr(top / "symlink", "trusted.new", b"x", follow_symlinks=False),
    "removexattr": lambda top: os.removexattr(top / "file", "user.comment"),
    "removexattr that is not there": lambda top: os.removexattr(top / "file", "user.none"),
}
# What libfuse 2 does not know, and what its programs meet in place of EROFS.
NEWER_WRITES: dict[str, tuple[Callable[[Path], object], int]] = {
    "rename unless there is one": (
        lambda top: renameat2(top / "file", top / "new", RENAME_NOREPLACE), errno.EINVAL
    ),
    "exchange": (lambda top: renameat2(top / "file", top / "empty", RENAME_EXCHANGE), errno.EINVAL),
    "create without a name": (lambda top: os.open(top, os.O_RDWR | os.O_TMPFILE), errno.EOPNOTSUPP),
}  # fmt: skip


def renameat2(old: Path, new: Path, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    here = -100  # AT_FDCWD
    if libc.renameat2(here, os.fsencode(old), here, os.fsencode(new), flags):
        raise OSError(ctypes.get_errno(), "renameat2")


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(path))


def when_open(path: Path, call: Callable[[int], object]) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        call(opened)
    finally:
        os.close(opened)


@pytest.mark.parametrize("kind", WRITES)
def test_every_kind_of_write_meets_a_read_only_file_system(stable: Path, kind: str) -> None:
    assert errno_of(lambda: WRITES[kind](stable)) == errno.EROFS


def test_a_file_that_is_there_can_be_opened_as_one_to_be_created(stable: Path) -> None:
    opened = os.open(stable / "file", os.O_RDONLY | os.O_CREAT, 0o600)
    assert os.read(opened, 100) == b"hello\n"
    os.close(opened)
    for flags in (os.O_RDONLY, os.O_RDWR):
        assert errno_of(lambda: os.open(stable / "file", flags | os.O_CREAT | os.O_EXCL)) == errno.EEXIST  # noqa: B023
    assert errno_of(lambda: os.mkdir(stable / "names")) == errno.EEXIST
    assert errno_of(lambda: os.link(stable / "file", stable / "empty")) == errno.EEXIST


@pytest.mark.parametrize("kind", NEWER_WRITES)
def test_newer_kinds_of_write_are_refused_too(stable: Path, kind: str, request: pytest.FixtureRequest) -> None:
    write, by_libfuse = NEWER_WRITES[kind]
    by_libfuse_2 = request.node.callspec.params["stable"].startswith("fusepy")
    assert errno_of(lambda: write(stable)) == (by_libfuse if by_libfuse_2 else errno.EROFS)


def test_flags_of_a_file_cannot_be_set(stable: Path, request: pytest.FixtureRequest) -> None:
    """Linux asks for those that are set first, and no FUSE file system of regfs knows any."""
    flags = bytearray(struct.pack("<I", IMMUTABLE) + bytes(4))
    wanted = errno.EROFS if request.node.callspec.params["stable"] == "erofs" else errno.ENOTTY
    assert (
        errno_of(lambda: when_open(stable / "file", lambda opened: fcntl.ioctl(opened, FS_IOC_SETFLAGS, flags)))
        == wanted
    )


def test_reading_changes_no_time(stable: Path) -> None:
    before = os.stat(stable / "file"), os.stat(stable / "names"), os.lstat(stable / "symlink")
    (stable / "file").read_bytes(), os.listdir(os.fsencode(stable / "names")), os.readlink(stable / "symlink")
    assert (os.stat(stable / "file"), os.stat(stable / "names"), os.lstat(stable / "symlink")) == before


def test_a_part_of_the_cache_can_be_removed_and_is_gone_at_once(serve: ServeSuite, driver: str) -> None:
    parts = serve(driver).path / "parts"
    assert sorted(os.listdir(parts)) == sorted(map(os.fsdecode, PARTS))
    assert os.access(parts, os.W_OK)
    assert os.access(parts / "part-0", os.W_OK)
    subprocess.run(["rm", parts / "part-0", parts / "part-1"], check=True, timeout=TIMEOUT_S)
    assert sorted(os.listdir(parts)) == ["held", "part-2", "part-3"]
    for call in (os.unlink, os.stat):
        assert errno_of(lambda: call(parts / "part-0")) == errno.ENOENT  # noqa: B023
    with (parts / "part-2").open("rb") as opened:
        os.unlink(parts / "part-2")
        assert opened.read() == b"a part\n"
    assert sorted(os.listdir(parts)) == ["held", "part-3"]


def test_what_is_in_use_stays_and_all_else_beside_the_parts_too(mounted: Path) -> None:
    parts = mounted / "parts"
    assert errno_of(lambda: os.unlink(parts / "held")) == errno.EBUSY
    assert (parts / "held").read_bytes() == b"a part\n"
    for call in (
        lambda: os.rmdir(parts),
        lambda: os.unlink(mounted / "live"),
        lambda: os.unlink(mounted / "moving/file"),
        lambda: os.open(parts / "new", os.O_WRONLY | os.O_CREAT),
        lambda: os.open(parts / "part-3", os.O_WRONLY),
        lambda: os.truncate(parts / "part-3", 0),
        lambda: os.rename(parts / "part-3", parts / "new"),
        lambda: os.utime(parts / "part-3"),
        lambda: os.mkdir(parts / "new"),
    ):
        assert errno_of(call) == errno.EROFS
    assert not os.access(mounted, os.W_OK)


def test_a_mount_that_is_read_only_for_the_kernel_says_so(serve: ServeSuite, driver: str) -> None:
    path = serve(driver, words=("ro",)).path
    assert os.statvfs(path).f_flag & os.ST_RDONLY
    for kind in ("unlink", "create", "open for both", "chmod"):
        assert errno_of(lambda: WRITES[kind](path / "stable")) == errno.EROFS, kind  # noqa: B023
    assert errno_of(lambda: os.unlink(path / "parts/part-0")) == errno.EROFS


def test_access_tells_programs_from_other_files(stable: Path) -> None:
    assert os.access(stable / "script", os.X_OK)
    assert os.access(stable, os.X_OK)
    assert os.access(stable / "owned", os.R_OK)
    assert not os.access(stable / "file", os.W_OK)


@pytest.mark.parametrize("name", ["big", "backed"])
def test_bytes_come_from_any_offset(stable: Path, name: str) -> None:
    path = stable / name
    assert path.read_bytes() == BIG
    with path.open("rb", buffering=0) as file:
        assert os.pread(file.fileno(), 10, len(BIG) - 3) == BIG[-3:]
        assert os.pread(file.fileno(), 10, len(BIG)) == b""
        assert os.pread(file.fileno(), 70_000, 123_457) == BIG[123_457 : 123_457 + 70_000]


@pytest.mark.parametrize("name", ["big", "backed"])
def test_a_file_is_opened_many_times_at_once(stable: Path, name: str) -> None:
    opened = [os.open(stable / name, os.O_RDONLY) for _ in range(20)]
    contents = {os.pread(number, 4096, 4096) for number in opened[::2]}
    for number in opened[:10]:
        os.close(number)
    again = os.open(stable / name, os.O_RDONLY)
    contents.add(os.pread(again, 4096, 4096))
    for number in [*opened[10:], again]:
        os.close(number)
    assert contents == {BIG[4096:8192]}


@pytest.mark.parametrize("name", ["big", "backed"])
def test_a_file_can_be_mapped(stable: Path, name: str) -> None:
    with (
        (stable / name).open("rb") as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped,
    ):
        assert mapped[1_000_000:1_000_100] == BIG[1_000_000:1_000_100]


def test_a_program_can_be_run(stable: Path) -> None:
    done = subprocess.run([stable / "script"], capture_output=True, timeout=TIMEOUT_S, check=True)
    assert done.stdout == b"hello from the mount\n"


def test_an_empty_file_is_empty(stable: Path) -> None:
    assert (stable / "empty").read_bytes() == b""


def test_a_file_of_unknown_size_is_read_to_its_end(mounted: Path) -> None:
    assert (mounted / "live").read_bytes() == b"alive\n"


def test_statfs_tells_the_room_of_the_cache(mounted: Path) -> None:
    found = os.statvfs(mounted)
    sizes = [count * found.f_frsize for count in (found.f_blocks, found.f_bfree, found.f_bavail)]
    assert sizes == [1 << 40, 1 << 39, 1 << 38]
    assert (found.f_files, found.f_ffree, found.f_namemax) == (1000, 500, 255)
    assert found.f_flag & os.ST_NOSUID


def test_find_sees_everything(stable: Path) -> None:
    done = subprocess.run(["find", stable, "-print0"], capture_output=True, timeout=TIMEOUT_S, check=True)
    directories = [entry for entry in os.scandir(stable) if entry.is_dir(follow_symlinks=False)]
    assert {entry.name for entry in directories} >= {"many", "names"}
    wanted = [os.listdir(stable), *map(os.listdir, directories)]
    assert done.stdout.count(b"\0") == 1 + sum(map(len, wanted))
