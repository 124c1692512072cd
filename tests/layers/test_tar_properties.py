"""Any archive that tarfile writes is read as tarfile reads it; no bytes at all bring more than an error of ours."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regfs.errors import BadLayer, RegfsError, TooLarge, Unsupported
from regfs.layers.compression.detection import decompressed
from regfs.layers.tar.feed import ByteFeed
from regfs.layers.tar.tar_reader import HARD_LINK, TarReader
from tests.layers.ingested import ingested_tar
from tests.support.images import (
    BLOCK,
    device,
    directory,
    file,
    hardlink,
    opaque,
    symlink,
    tar_of,
    whiteout,
    with_checksum,
)

KINDS = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.LNKTYPE: HARD_LINK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
    tarfile.CHRTYPE: stat.S_IFCHR,
}
component = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60)
any_bytes_name = st.binary(min_size=1, max_size=80).map(
    lambda raw: os.fsdecode(raw.replace(b"/", b"_").replace(b"\0", b"_"))
)
path = st.lists(component | any_bytes_name, min_size=1, max_size=5).map("/".join)


@st.composite
def members(draw: st.DrawFn) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(draw(path))
    made.type = draw(st.sampled_from(sorted(KINDS)))
    content = draw(st.binary(max_size=2000)) if made.type == tarfile.REGTYPE else b""
    made.size = len(content)
    made.mode = draw(st.integers(0, 0o7777))
    made.uid, made.gid = draw(st.integers(0, (1 << 32) - 2)), draw(st.integers(0, (1 << 32) - 2))
    made.mtime = draw(st.integers(-(1 << 32), 1 << 36))
    made.linkname = draw(path) if made.type in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
    return made, content


@given(st.lists(members(), max_size=6), st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]), st.integers(1, 5000))
def test_archives_are_read_as_tarfile_reads_them(
    written: list[tuple[tarfile.TarInfo, bytes]], dialect: int, block: int
) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=dialect, errors="surrogateescape") as archive:
        for member, content in written:
            archive.addfile(member, io.BytesIO(content))
    tar = packed.getvalue()
    reader = TarReader(ByteFeed(tar[at : at + block] for at in range(0, len(tar), block)))
    found = [(entry, b"".join(bytes(view) for view in reader.content())) for entry in reader]
    assert [content for _, content in found] == [content for _, content in written]
    for (entry, _), (member, _) in zip(found, written, strict=True):
        assert entry.path.rstrip(b"/") == os.fsencode(member.name).rstrip(b"/")
        assert entry.kind == KINDS[member.type]
        assert (entry.mode, entry.uid, entry.gid) == (member.mode, member.uid, member.gid)
        assert (entry.mtime_ns, entry.link) == (member.mtime * 10**9, os.fsencode(member.linkname))


VALID = tar_of(
    directory("d", mode=0o1777),
    file("d/f", b"x" * 700, xattrs={"user.a": b"b"}, mtime_ns=1_500_000_001),
    symlink("d/l", "f" * 150),
    hardlink("h", "d/f"),
    device("n", 1, 3),
    whiteout("gone"),
    opaque("d"),
    file("s", b"abc", pax={"GNU.sparse.map": b"5,3", "GNU.sparse.size": b"20", "GNU.sparse.name": b"sparse"}),
    file("m", b"1\n5\n3\n".ljust(512, b"\0") + b"abc", pax={
        "GNU.sparse.major": b"1", "GNU.sparse.minor": b"0", "GNU.sparse.realsize": b"99", "GNU.sparse.name": b"map"}),
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Return a good archive with bytes changed, cut or put in; its checksums often made right again."""
    tar = bytearray(VALID)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(tar) - 1))
        piece = draw(
            st.binary(min_size=1, max_size=12) | st.sampled_from([b"\xff" * 12, b"77777777777\0", b"\x80" + bytes(11)])
        )
        if draw(st.booleans()):
            tar[at : at + len(piece)] = piece
        else:
            field = draw(st.sampled_from([0, 100, 108, 124, 136, 156, 157, 257, 329, 345, 386, 482, 483]))
            at = at // BLOCK * BLOCK + field
            tar[at : at + len(piece)] = piece
    if draw(st.booleans()):
        for at in range(0, len(tar) - BLOCK + 1, BLOCK):
            if tar[at + 257 : at + 262] == b"ustar":
                tar[at : at + BLOCK] = with_checksum(bytes(tar[at : at + BLOCK]))
    return bytes(tar[: draw(st.integers(0, len(tar)))] if draw(st.booleans()) else tar)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=200)
@given(damaged())
def test_a_damaged_archive_is_a_layer_or_an_error_of_ours(tar: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory_name:
        try:
            layer = ingested_tar(Path(directory_name), tar)
        except (BadLayer, TooLarge, Unsupported):  # Unsupported where it begins like another compression
            return
        layer.snapshot()


@given(st.binary(max_size=3000), st.integers(1, 700))
def test_any_bytes_at_all_are_a_layer_or_an_error_of_ours(content: bytes, block: int) -> None:
    stream = (content[at : at + block] for at in range(0, len(content), block))
    try:
        list(TarReader(ByteFeed(decompressed(stream, block_size=1000))))
    except RegfsError:
        pass


@given(st.integers(0, 400), st.binary(min_size=1, max_size=4))
def test_a_damaged_gzip_is_inflated_or_an_error_of_ours(at: int, piece: bytes) -> None:
    packed = bytearray(gzip.compress(VALID))
    packed[at : at + len(piece)] = piece
    try:
        list(decompressed([bytes(packed)], block_size=1 << 16))
    except RegfsError:
        pass
