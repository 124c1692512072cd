"""Layers as the formats' own tools wrote them, read by their tables; the builders of tests are held to the same.

`real/` has the layer ENTRIES in three formats, a blob and its descriptor each, made once by

    skopeo copy oci:LAYOUT docker://REGISTRY/plain                          (skopeo 1.9.3)
    ctr-remote image convert --oci --estargz --estargz-chunk-size 50000     (stargz-snapshotter 0.12.0)
    ctr-remote image convert --oci --zstdchunked --estargz-chunk-size 50000
    skopeo copy --dest-compress-format zstd:chunked
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from regfs.layers.compression.detection import decompressed
from tests.layers.tables import Listed, rows_of_tar
from tests.support.images import BuiltLayer, device, directory, fifo, file, hardlink, opaque, symlink, tar_of, whiteout
from tests.support.lazy_layers import estargz, zstd_chunked

REAL = Path(__file__).parent / "real"
XATTRS = {"security.capability": b"\1\0\0\2\0\4\0\0" + bytes(12), "user.a": b"\0\xff"}
TEXT = b"".join(b"line %d\n" % number for number in range(13_000))
SPARSE = b"x" * 5000 + bytes(300_000) + b"y" * 5000 + bytes(70_000)
ENTRIES = (
    directory("./"),
    directory("etc", mode=0o1777),
    file("etc/motd", b"hello\n", mode=0o600, uid=1000, gid=1001, xattrs=XATTRS),
    file("etc/empty"),
    symlink("etc/issue", "motd"),
    hardlink("etc/hard", "etc/motd"),
    file("text", TEXT, mode=0o4755),
    file("sparse", SPARSE),
    file("a/b/implied", b"i" * 700),
    device("dev/null", 1, 3),
    device("dev/sda", 8, 1, block=True),
    fifo("pipe"),
    file("old", b"1970", mtime_ns=0),
    file("täst/<&>", b"u"),
    file("etc/" + "n" * 200, b"long"),
    whiteout("etc/gone"),
    opaque("a"),
)  # fmt: skip
BUILDERS: dict[str, Callable[..., BuiltLayer]] = {
    "estargz-ctr-remote": partial(estargz, chunk_size=50_000),
    "zstd-chunked-ctr-remote": partial(zstd_chunked, generation="stargz", chunk_size=50_000),
    "zstd-chunked-skopeo": partial(zstd_chunked, generation="2021"),
}


def real(name: str) -> BuiltLayer:
    described = json.loads((REAL / f"{name}.json").read_text())
    blob = (REAL / f"{name}.blob").read_bytes()
    tar = b"".join(decompressed([blob], block_size=1 << 20))
    built = BuiltLayer(tar, blob, described["mediaType"], described["annotations"])
    assert built.descriptor() == described
    return built


@pytest.mark.parametrize("name", BUILDERS)
def test_a_real_layer_is_read_by_its_table(name: str) -> None:
    listed = Listed(real(name))
    assert listed.rows() == rows_of_tar(tar_of(*ENTRIES))
    assert dict(listed.contents()) == {entry.name: entry.content for entry in ENTRIES if entry.type == b"0"}
    assert listed.table.remark == ""


@pytest.mark.parametrize("name", BUILDERS)
def test_the_builders_write_what_the_tools_write(name: str) -> None:
    """But for how well they compress, and for where podman's rolling checksum cuts a file."""
    theirs, ours = Listed(real(name)), Listed(BUILDERS[name](*ENTRIES))
    assert [entry for entry, _ in ours.entries] == [entry for entry, _ in theirs.entries]
    assert ours.built.annotations.keys() <= theirs.built.annotations.keys()
    if name != "zstd-chunked-skopeo":
        for path in (b"text", b"sparse", b"a/b/implied"):
            cuts = [
                [(chunk.offset, chunk.size, chunk.digest) for chunk in each.chunks(path)] for each in (ours, theirs)
            ]
            assert cuts[0] == cuts[1]
    holes = [[chunk[:2] for chunk in each.chunks(b"sparse") if chunk.digest is None] for each in (ours, theirs)]
    assert holes[0] == holes[1]
