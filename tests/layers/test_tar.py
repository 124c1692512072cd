"""Reading tars of every dialect, with Python's tarfile and GNU tar as oracles."""

from __future__ import annotations

import io
import os
import random
import stat
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from regfs.errors import BadLayer, TooLarge
from regfs.layers.tar.feed import ByteFeed
from regfs.layers.tar.tar_reader import HARD_LINK, TarEntry, TarReader
from regfs.store.verify import verify
from tests.layers.ingested import ingested_tar
from tests.support.images import BLOCK, directory, file, padded, symlink, tar_of, with_checksum
from tests.support.snapshot import Entry, differences, snapshot


def filled_again(tar: bytes, block: int) -> Iterator[memoryview]:
    """Yield *tar* in views of one block of memory, which is filled again each time, as a RingBuffer does."""
    memory = bytearray(block)
    for at in range(0, len(tar), block):
        part = tar[at : at + block]
        memory[:] = part.ljust(block, b"?")
        yield memoryview(memory)[: len(part)]


def entries_of(tar: bytes, *, block: int = 1000) -> list[tuple[TarEntry, bytes]]:
    """Return the entries with what is stored of each; *block* is what the stream comes in."""
    reader = TarReader(ByteFeed(filled_again(tar, block)))
    return [(entry, b"".join(bytes(view) for view in reader.content())) for entry in reader]


def names_of(tar: bytes) -> list[bytes]:
    return [entry.path for entry, _ in entries_of(tar)]


def written_by_tarfile(members: Iterable[tuple[tarfile.TarInfo, bytes]], dialect: int, **options: object) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=dialect, **options) as archive:  # type: ignore[call-overload]
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return written.getvalue()


def member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.size = len(content)
    for field, value in fields.items():
        setattr(made, field, value)
    return made, content


def header(name: bytes, *, kind: bytes = b"0", size: bytes = b"", **fields: tuple[int, bytes]) -> bytes:
    """Return a header with fields put where a test wants them: (offset, bytes)."""
    block = bytearray(BLOCK)
    block[: len(name)] = name
    block[124 : 124 + len(size)] = size
    block[156:157] = kind
    for at, value in fields.values():
        block[at : at + len(value)] = value
    return with_checksum(bytes(block))


@pytest.mark.parametrize("dialect", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("block", [1, 511, 512, 7000, 1 << 20])
def test_what_tarfile_writes_is_read(dialect: int, block: int) -> None:
    members = [
        member("d", type=tarfile.DIRTYPE, mode=0o1755),
        member("d/" + "n" * 80 + "/" + "m" * 90, b"x" * 3000, uid=123, gid=456, mtime=1234567890, mode=0o4711),
        member("link", type=tarfile.SYMTYPE, linkname="d/target"),
        member("hard", type=tarfile.LNKTYPE, linkname="d/" + "n" * 80),
        member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("disk", type=tarfile.BLKTYPE, devmajor=8, devminor=300),
        member("pipe", type=tarfile.FIFOTYPE),
        member("empty"),
        member("last", b"1"),
    ]
    found = entries_of(written_by_tarfile(members, dialect), block=block)
    assert [(entry.path.rstrip(b"/").decode(), content) for entry, content in found] == [
        (made.name, content) for made, content in members
    ]
    kinds = [stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK, HARD_LINK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO]
    assert [entry.kind for entry, _ in found] == [*kinds, stat.S_IFREG, stat.S_IFREG]
    assert found[1][0][2:7] == (0o4711, 123, 456, 3000, 1234567890 * 10**9)
    assert [entry.rdev for entry, _ in found[4:6]] == [0x103, 8 << 8 | (300 & 0xFF) | (300 & 0xFFF00) << 12]
    assert [entry.link for entry, _ in found[2:4]] == [b"d/target", b"d/" + b"n" * 80]


@pytest.mark.parametrize("dialect", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_strange_names_are_read(dialect: int) -> None:
    name, target = "d/" * 150 + "ünï\udcff", "t/" * 200 + "\udcfe"
    made = member(name, type=tarfile.SYMTYPE, linkname=target)
    tar = written_by_tarfile([made], dialect, errors="surrogateescape")
    assert entries_of(tar)[0][0].path == os.fsencode(name)
    assert entries_of(tar)[0][0].link == os.fsencode(target)


def test_a_long_name_that_two_blocks_share_is_read_whole() -> None:
    """Its first part was read when the second block was in its place: "a PAX record has a wrong length"."""
    name = "d/" * 300 + "f"
    for block in (600, 1100, 1300, 1536):
        assert entries_of(tar_of(file(name, b"x")), block=block) == entries_of(tar_of(file(name, b"x")), block=1 << 16)


def test_numbers_beyond_octal_are_read() -> None:
    made = member("big", uid=1 << 24, gid=(1 << 32) - 2, mtime=-5)
    for dialect in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        entry, _ = entries_of(written_by_tarfile([made], dialect))[0]
        assert (entry.uid, entry.gid, entry.mtime_ns) == (1 << 24, (1 << 32) - 2, -5 * 10**9)


def test_nobody_of_old_writers_is_minus_two() -> None:
    tar = header(b"f", uid=(108, b"\xff" * 7 + b"\xfe"), gid=(116, b"\xff" * 8))
    assert entries_of(tar)[0][0][3:5] == (0xFFFFFFFE, 0)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        (b"1350244992.023960108", 1350244992023960108),
        (b"1.5", 1_500_000_000),
        (b"-1.5", -1_500_000_000),
        (b"7", 7_000_000_000),
        (b"7.", 7_000_000_000),
        (b"0.0000000019", 1),
        (b"-0.1", -100_000_000),
    ],
)
def test_times_have_fractions(text: bytes, nanoseconds: int) -> None:
    assert entries_of(tar_of(file("f", pax={"mtime": text})))[0][0].mtime_ns == nanoseconds


def test_pax_records_override_the_header() -> None:
    records = {
        "path": b"p\xff",
        "linkpath": b"l\xfe",
        "uid": b"9",
        "gid": b"8",
        "hdrcharset": b"BINARY",
        "comment": b"=",
    }
    entry, _ = entries_of(tar_of(symlink("x", "y", pax=records)))[0]
    assert entry[:1] + entry[3:5] + entry[7:8] == (b"p\xff", 9, 8, b"l\xfe")


def test_an_empty_pax_record_means_the_header() -> None:
    assert entries_of(tar_of(file("f", uid=5, pax={"uid": b"", "path": b""})))[0][0][:4] == (
        b"f",
        stat.S_IFREG,
        0o644,
        5,
    )


def test_global_headers_without_end_are_refused_before_each_entry_has_to_look_through_them() -> None:
    headers = b"".join(
        file("g", b"31 SCHILY.xattr.user.n%04d=abc\n" % number, type=b"g").pack() for number in range(4000)
    )
    with pytest.raises(TooLarge, match="global PAX headers"):
        list(TarReader(ByteFeed(iter([headers]))))


def test_many_global_headers_that_say_the_same_are_read() -> None:
    header = file("g", b"52 comment=" + b"0" * 40 + b"\n", type=b"g").pack()
    tar = b"".join(header + file(f"f{number}").pack() for number in range(3000))
    assert len(list(TarReader(ByteFeed(iter([tar]))))) == 3000


def test_a_global_header_holds_until_the_next_and_a_local_one_overrides_it() -> None:
    globally = member("one", uid=1)
    tar = written_by_tarfile([globally], tarfile.PAX_FORMAT, pax_headers={"uid": "77", "mtime": "5.25"})[: BLOCK * 3]
    tar += tar_of(file("two", uid=2, pax={"uid": b"6"}), file("three"))
    found = [entry for entry, _ in entries_of(tar)]
    assert [(entry.path, entry.uid, entry.mtime_ns) for entry in found] == [
        (b"one", 77, 5_250_000_000), (b"two", 6, 5_250_000_000), (b"three", 77, 5_250_000_000)
    ]  # fmt: skip


def test_xattrs_are_bytes_and_the_hosts_own_are_left_out() -> None:
    xattrs = {"security.capability": b"\1\0\0\2\n=\0", "user.é": b"\xff"}
    xattrs |= {"security.selinux": b"s", "trusted.overlay.opaque": b"y", "user.empty": b""}
    entry, _ = entries_of(tar_of(file("f", xattrs=xattrs)))[0]
    assert entry.xattrs == {b"security.capability": b"\1\0\0\2\n=\0", "user.é".encode(): b"\xff"}


def test_a_v7_header_is_read() -> None:
    old = header(b"n" * 100, mode=(100, b"000644 \0"), size=b"         3 \0", kind=b"\0")
    assert entries_of(old + padded(b"abc")) == [
        (TarEntry(b"n" * 100, stat.S_IFREG, 0o644, 0, 0, 3, 0, b"", 0, None, None), b"abc")
    ]


def test_a_v7_name_that_ends_in_a_slash_is_a_directory() -> None:
    assert entries_of(header(b"d/", kind=b"\0"))[0][0].kind == stat.S_IFDIR
    assert entries_of(header(b"d/", kind=b"0"))[0][0].kind == stat.S_IFREG


def test_a_ustar_prefix_is_put_in_front_and_gnu_has_none() -> None:
    ustar = header(b"name", magic=(257, b"ustar\x0000"), prefix=(345, b"dir/sub"))
    gnu = header(b"name", magic=(257, b"ustar  \0"), prefix=(345, b"\0\0\0junk"), more=(357, b"12345"))
    assert names_of(ustar + gnu) == [b"dir/sub/name", b"name"]


def test_contiguous_files_are_files_and_labels_of_volumes_are_passed_over() -> None:
    contiguous = header(b"c", kind=b"7", size=b"00000000003\0") + padded(b"abc")
    volume = header(b"v", kind=b"V")
    assert names_of(volume + contiguous + tar_of(file("f"))) == [b"c", b"f"]


def test_an_entry_of_a_type_that_nobody_knows_is_a_file_where_it_has_data_and_is_told() -> None:
    unknown = file("u", b"data", type=b"Q"), file("v", b"", type=b"R"), file("w", b"more", type=b"Q")
    reader = TarReader(ByteFeed(iter([tar_of(*unknown, file("f"))])))
    found = [(entry.path, entry.kind, b"".join(map(bytes, reader.content()))) for entry in reader]
    assert found == [(b"u", stat.S_IFREG, b"data"), (b"w", stat.S_IFREG, b"more"), (b"f", stat.S_IFREG, b"")]
    assert reader.remark.startswith("3 tar entries of an unknown type, the first of them b'u' of type b'Q'")
    known = TarReader(ByteFeed(iter([tar_of(file("f"))])))
    assert list(known)
    assert known.remark == ""


def test_gnu_tar_takes_an_unknown_type_for_a_file_too(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(tar_of(file("u", b"data", type=b"Q")))
    done = subprocess.run(["tar", "-xf", "archive"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (tmp_path / "u").read_bytes() == b"data", done.stderr


def test_links_and_devices_have_no_content_whatever_their_size_says() -> None:
    link = header(b"h", kind=b"1", size=b"00000001000\0", link=(157, b"f"))
    assert names_of(tar_of(file("f"), end=False) + link + tar_of(directory("d"))) == [b"f", b"h", b"d/"]


def test_an_archive_may_end_without_zeros_or_with_garbage_after_them() -> None:
    tar = tar_of(file("a", b"x"), file("b", b"y" * 512), end=False)
    for ending in (b"", bytes(512), bytes(1024), bytes(700), bytes(1024) + b"garbage" * 500):
        assert names_of(tar + ending) == [b"a", b"b"]
    assert names_of(tar_of(file("a", b"x"), end=False)[:513]) == [b"a"]


def test_a_checksum_of_signed_bytes_is_right_too() -> None:
    block = bytearray(header(b"\xff\xfename"))
    signed = sum(byte - 256 if byte > 127 else byte for byte in block[:148] + b" " * 8 + block[156:])
    block[148:156] = b"%06o\0 " % signed
    assert names_of(bytes(block)) == [b"\xff\xfename"]


def test_a_wrong_checksum_is_no_layer() -> None:
    tar = bytearray(tar_of(file("a")))
    tar[0] ^= 1
    with pytest.raises(BadLayer, match="checksum"):
        entries_of(bytes(tar))


@pytest.mark.parametrize("cut", [1, 100, 511, 513, 600, 1023])
def test_a_truncated_archive_is_no_layer(cut: int) -> None:
    with pytest.raises(BadLayer, match="ends"):
        entries_of(tar_of(file("a", b"x" * 600), end=False)[:cut])


def test_a_single_block_of_zeros_inside_is_no_layer() -> None:
    with pytest.raises(BadLayer):
        entries_of(tar_of(file("a"), end=False) + bytes(512) + tar_of(file("b")))


@pytest.mark.parametrize(
    "pax",
    [
        {"size": b"x"}, {"size": b"-1"}, {"size": b"1" * 30}, {"uid": b"4294967295"}, {"gid": b"1e3"},
        {"mtime": b"soon"},
        {"mtime": b"9" * 19}, {"path": b"a\0b"}, {"linkpath": b"a\0b"}, {"SCHILY.xattr.": b"x"},
        {"SCHILY.xattr." + "n" * 256: b"x"}, {"SCHILY.xattr.user.big": b"x" * 65537},
        {"GNU.sparse.map": b"1", "GNU.sparse.size": b"5"}, {"GNU.sparse.map": b"4,4", "GNU.sparse.size": b"5"},
        {"GNU.sparse.map": b"4,0,3,0", "GNU.sparse.size": b"5"}, {"GNU.sparse.map": b"0,1"},
        {"GNU.sparse.map": b"0,1", "GNU.sparse.size": b"9223372036854775808"},
        {"GNU.sparse.major": b"1", "GNU.sparse.minor": b"0", "GNU.sparse.realsize": b"10"},
    ],
)  # fmt: skip
def test_nonsense_in_pax_records_is_no_layer(pax: dict[str, bytes]) -> None:
    with pytest.raises(BadLayer):
        entries_of(tar_of(file("f", pax=pax)))


@pytest.mark.parametrize("payload", [b"x", b"5 a=b\n", b"99 a=b\n", b"6 a=bc", b"6 abcd\n", b"-6 a=b\n", b"4 =\n\n"])
def test_broken_pax_records_are_no_layer(payload: bytes) -> None:
    tar = header(b"x", kind=b"x", size=b"%011o\0" % len(payload)) + padded(payload) + tar_of(file("f"))
    with pytest.raises(BadLayer):
        entries_of(tar)


@pytest.mark.parametrize("size", [b"\x80" + bytes(2) + b"\x80" + bytes(8), b"\xff" * 12, b"0000000008\0 ", b"0x1\0"])
def test_impossible_sizes_are_no_layer(size: bytes) -> None:
    with pytest.raises(BadLayer):
        entries_of(header(b"f", size=size))


def test_a_file_that_claims_2_to_the_62_bytes_is_no_layer() -> None:
    with pytest.raises(BadLayer, match="ends in the middle"):
        entries_of(header(b"f", size=b"\x80" + bytes(3) + (1 << 62).to_bytes(8, "big")) + bytes(10000))


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_an_extended_header_of_64_megabytes_is_too_large(kind: bytes) -> None:
    with pytest.raises(TooLarge):
        entries_of(header(b"x", kind=kind, size=b"%011o\0" % (64 << 20)))


# GNU tar itself


def sparse_file(path: Path, extents: int) -> None:
    """Write a file of *extents* pieces of data with holes between, before and after them."""
    randomness = random.Random(extents)
    with path.open("wb") as target:
        for number in range(extents):
            target.seek(number * 300_000 + 100_000)
            target.write(randomness.randbytes(5000))
        target.truncate(extents * 300_000 + 300_000)


@pytest.mark.parametrize(
    "options", [["--format=gnu"], *(["--format=pax", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0"))]
)
@pytest.mark.parametrize("extents", [0, 1, 3, 5, 40])
def test_sparse_files_of_gnu_tar_are_read(tmp_path: Path, options: list[str], extents: int) -> None:
    source = tmp_path / "source"
    source.mkdir()
    sparse_file(source / "sparse", extents)
    with (source / "small").open("wb") as small:
        small.truncate(30_000)
        small.write(b"start")
    tar = subprocess.run(["tar", "-C", source, "-S", *options, "-cf-", "."], check=True, capture_output=True).stdout
    assert len(tar) < 400_000
    layer = ingested_tar(tmp_path / "cache", tar)
    assert layer.content("sparse") == (source / "sparse").read_bytes()
    assert layer.content("small") == (source / "small").read_bytes()
    data = layer.store.data_path(layer.diff_id)
    assert data.read_bytes()[: len(tar)] == tar
    assert data.stat().st_blocks * 512 < 1_500_000
    assert list(verify(tmp_path / "cache", drop=True)) == []


@pytest.mark.parametrize("dialect", ["v7", "oldgnu", "gnu", "ustar", "pax"])
def test_what_gnu_tar_packs_is_what_it_was(tmp_path: Path, dialect: str) -> None:
    source = tmp_path / "source"
    (source / "dir" / "sub").mkdir(parents=True)
    for number in range(30):
        (source / "dir" / f"file{number}").write_bytes(os.urandom(number * 5000))
    (source / "dir" / "sub" / "link").symlink_to("../file1")
    os.link(source / "dir" / "file3", source / "dir" / "sub" / "hard")
    if dialect != "v7":
        os.mkfifo(source / "pipe", 0o600)
    if dialect not in ("v7", "ustar"):
        (source / ("long" * 60)).write_bytes(b"long name")
    command = ["tar", "-C", str(source), f"--format={dialect}", "-cf-", "."]
    tar = subprocess.run(command, check=True, capture_output=True).stdout
    layer = ingested_tar(tmp_path / "cache", tar)
    ours, theirs = layer.snapshot(), snapshot(source)
    if dialect != "pax":
        theirs = {path: _in_whole_seconds(entry) for path, entry in theirs.items()}
    assert differences(ours, theirs) == []


def _in_whole_seconds(entry: Entry) -> Entry:
    return replace(entry, mtime_ns=entry.mtime_ns // 10**9 * 10**9)


def test_the_feed_takes_across_blocks() -> None:
    def blocks() -> Iterator[bytes]:
        yield from (b"abc", b"d", b"efghij")

    feed = ByteFeed(blocks())
    assert feed.take(2) == b"ab"
    assert feed.take(3) == b"cde"
    feed.skip(1)
    assert [bytes(view) for view in feed.spans(2)] == [b"gh"]
    assert feed.offset == 8
    assert feed.take_or_end(10) == b"ij"
    with pytest.raises(BadLayer):
        feed.take(1)
