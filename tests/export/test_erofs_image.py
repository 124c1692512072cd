"""EROFS images: what the kernel shows of one is what our own tree shows, and what umoci unpacks."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from regfs.errors import BadLayer, CacheDamaged, Unsupported
from regfs.store.eviction.kernel_mounts import layers_of
from regfs.store.layers.layer_index import LayerIndex
from tests.rootfs.test_merge_against_umoci import images
from tests.support.erofs import devices, kernel_snapshot, mounted, needs_erofs, written
from tests.support.images import (
    TarEntry,
    device,
    directory,
    fifo,
    file,
    hardlink,
    image_of,
    layer,
    layer_of_tar,
    symlink,
    whiteout,
)
from tests.support.machine import knows_small_blocks
from tests.support.snapshot import differences
from tests.support.trees import MergedImage, Stack
from tests.support.umoci import as_umoci_would, needs_umoci, unpacked

EVERYTHING = [
    directory(".", mode=0o751, uid=3, gid=4),
    directory("empty"),
    directory("d", mode=0o2775, uid=70_000, gid=3_000_000_000, xattrs={"user.d": b"directory"}),
    file("d/empty"),
    file("d/one", b"1"),
    file("d/block", b"x" * 512),
    file("d/page", b"y" * 4097, mode=0o4755, mtime_ns=-1_000_000_001),
    file("d/late", b"z", mtime_ns=8_000_000_000_123_456_789),
    file("d/big", os.urandom(300_000)),
    hardlink("d/again", "d/one"),
    hardlink("and-again", "d/one"),
    symlink("d/short", "one"),
    symlink("d/long", "t/" * 300 + "one"),
    symlink("d/longest", "u" * 4095),
    hardlink("d/long-again", "d/long"),
    device("d/null", 1, 3),
    device("d/disk", 259, 300_000, block=True),
    fifo("d/pipe"),
    file("d/" + "n" * 255, b"long name"),
    file(b"d/\xff\x01 ", b"any bytes"),
    *(file(f"d/{first}name", b"before the dots") for first in "!#%+,-"),
    file("d/labelled", b"l", xattrs={"user.label": b"system_u:object_r:usr_t:s0\0", "user.x": b"\0\xff"}),
    file("d/labelled-too", b"l", xattrs={"user.label": b"system_u:object_r:usr_t:s0\0", "trusted.z": b""}),
    file("d/capable", b"c", xattrs={"security.capability": bytes.fromhex("0100000200200000000000000000000000000000")}),
    file("d/large-xattr", b"x", xattrs={"user.large": b"v" * 2000, "user.odd": b"odd"}),
]


@needs_erofs
def test_the_kernel_shows_every_type_and_any_bytes(stack: Stack, tmp_path: Path) -> None:
    image = stack(EVERYTHING, [whiteout("d/block"), file("d/one", b"another"), file("upper", b"above")])
    assert differences(kernel_snapshot(image, tmp_path), image.snapshot()) == []


@needs_erofs
@needs_umoci
def test_the_kernel_shows_what_umoci_unpacks(stack: Stack, tmp_path: Path) -> None:
    layers = [EVERYTHING, [whiteout("d/block"), file("d/page", b"above"), directory("empty", mode=0o700)]]
    image = stack(*layers)
    (tmp_path / "umoci").mkdir()
    theirs = unpacked(tmp_path / "umoci", image_of(*(layer(*entries, compression="none") for entries in layers)))
    assert not isinstance(theirs, str), theirs
    assert differences(as_umoci_would(kernel_snapshot(image, tmp_path), theirs), theirs) == []


@needs_erofs
@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(images)
def test_the_kernel_shows_random_images_as_our_own_tree_does(image: list[list[TarEntry]]) -> None:
    with tempfile.TemporaryDirectory(prefix="regfs-erofs-") as made:
        path = Path(made)
        try:
            merged = MergedImage(path / "cache", *(layer(*entries, compression="none") for entries in image))
        except BadLayer:
            return
        try:
            assert differences(kernel_snapshot(merged, path), merged.snapshot()) == []
        finally:
            merged.close()


@needs_erofs
def test_the_root_has_an_inode_number_and_is_listed_as_the_parent_of_its_directories(
    stack: Stack, tmp_path: Path
) -> None:
    image = stack([directory("d")])
    with mounted(image, written(image, tmp_path / "image"), tmp_path / "mounted") as point:
        assert point.stat().st_ino != 0
        listed = subprocess.run(["ls", "-a", point / "d"], capture_output=True, text=True, check=True).stdout
        assert listed.split() == [".", ".."]


@needs_erofs
def test_directories_of_many_blocks_are_listed_and_looked_up(stack: Stack, tmp_path: Path) -> None:
    names = [f"d/{'n' * (number % 200)}{number}" for number in range(3000)]
    image = stack([directory("d"), *(file(name, name.encode()) for name in names)])
    with mounted(image, written(image, tmp_path / "image"), tmp_path / "mounted") as point:
        assert sorted(os.listdir(point / "d")) == sorted(name.removeprefix("d/") for name in names)
        for name in names[::7]:
            assert (point / name).read_bytes() == name.encode()
        assert not (point / "d/nnnn").exists()


@needs_erofs
def test_xattrs_that_all_files_have_are_stored_once(stack: Stack, tmp_path: Path) -> None:
    label = {"user.label": b"system_u:object_r:container_file_t:s0:c123,c456"}
    names = [f"f{number}" for number in range(500)]
    labelled, plain = stack([file(name, b"x", xattrs=label) for name in names]), stack([file(name) for name in names])
    size = written(labelled, tmp_path / "labelled").stat().st_size - written(plain, tmp_path / "plain").stat().st_size
    assert size < 500 * 48
    with mounted(labelled, tmp_path / "labelled", tmp_path / "mounted") as point:
        assert all(os.getxattr(point / name, "user.label") == label["user.label"] for name in names)


@needs_erofs
def test_xattrs_up_to_the_limit_of_the_kernel_are_read(stack: Stack, tmp_path: Path) -> None:
    xattrs = {f"user.{'n' * 248}{number}": bytes([number]) * 65_535 for number in range(3)}
    image = stack([file("before", b"b"), file("f", b"x", xattrs=xattrs), symlink("after", "f"), file("last", b"l")])
    with mounted(image, written(image, tmp_path / "image"), tmp_path / "mounted") as point:
        assert {name: os.getxattr(point / "f", name) for name in os.listxattr(point / "f")} == xattrs
        assert (point / "after").read_bytes() == b"x"
        assert (point / "last").read_bytes() == b"l"


@needs_erofs
def test_an_image_of_200_layers_shows_the_files_of_each(stack: Stack, tmp_path: Path) -> None:
    image = stack(*([file(f"f{number}", str(number).encode())] for number in range(200)))
    with mounted(image, written(image, tmp_path / "image"), tmp_path / "mounted") as point:
        assert [int((point / f"f{number}").read_text()) for number in range(200)] == list(range(200))


@needs_erofs
def test_an_image_without_names_is_an_empty_directory(stack: Stack, tmp_path: Path) -> None:
    for number, image in enumerate((stack(), stack([]))):
        with mounted(image, written(image, tmp_path / f"image{number}"), tmp_path / "mounted") as point:
            assert os.listdir(point) == []


@needs_erofs
def test_a_sparse_file_is_read_from_behind_the_tar_stream(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    with (tmp_path / "tree/holes").open("wb") as sparse:
        sparse.truncate(3_000_001)
        sparse.seek(1_000_000)
        sparse.write(b"in the middle")
    tar = subprocess.run(
        ["tar", "-C", str(tmp_path / "tree"), "--sparse", "--format=gnu", "-c", "holes"],
        check=True,
        capture_output=True,
    ).stdout
    image = MergedImage(tmp_path / "cache", layer_of_tar(tar, compression="none"))
    try:
        with mounted(image, written(image, tmp_path / "image"), tmp_path / "mounted") as point:
            assert (point / "holes").read_bytes() == (tmp_path / "tree/holes").read_bytes()
    finally:
        image.close()


if knows_small_blocks():
    # Debian 12 has an fsck.erofs that reads blocks of a page alone; the header of the test run says so.

    def test_fsck_finds_no_fault(stack: Stack, tmp_path: Path) -> None:
        many = [file(f"many/{number}", str(number).encode()) for number in range(200)]
        image = stack([directory("many"), *EVERYTHING, *many], [file("d/big", os.urandom(100_000)), whiteout("d/late")])
        path = written(image, tmp_path / "image")
        data = [f"--device={device}" for device in devices(image)]
        done = subprocess.run(["fsck.erofs", "--extract", *data, path], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


def test_the_same_image_has_the_same_bytes_wherever_it_is_written(tmp_path: Path) -> None:
    built = layer(*EVERYTHING, compression="none")
    texts = []
    for number in range(2):
        image = MergedImage(tmp_path / str(number), built)
        texts.append(written(image, tmp_path / f"{number}.erofs").read_bytes())
        image.close()
    assert texts[0] == texts[1]


def test_the_image_names_the_layers_that_are_its_devices(stack: Stack, tmp_path: Path) -> None:
    image = stack([file("a")], [file("b")])
    with written(image, tmp_path / "image").open("rb") as opened:
        assert layers_of(opened.fileno()) == [index.path.stem for index in image.indexes]
    (tmp_path / "other").write_bytes(b"no image" * 1000)
    with (tmp_path / "other").open("rb") as opened:
        assert layers_of(opened.fileno()) == []


@pytest.mark.parametrize(
    ("xattrs", "said"),
    [
        ({"other.name": b"1"}, "namespace"),
        ({"user.large": b"x" * 65_536}, "more than EROFS can hold"),
        ({f"user.{number}": b"x" * 65_535 for number in range(5)}, "bytes of xattrs, more than"),
    ],
)
def test_an_xattr_that_erofs_cannot_hold_is_told(
    stack: Stack, tmp_path: Path, xattrs: dict[str, bytes], said: str
) -> None:
    with pytest.raises(Unsupported, match=said):
        written(stack([file("f", b"x", xattrs=xattrs)]), tmp_path / "image")


def test_an_index_that_points_outside_its_data_file_is_damaged(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = stack([file("f", b"x")])
    rows = [(row, 1 << 40, target, xattrs) for row, _, target, xattrs in image.indexes[0].inodes()]
    monkeypatch.setattr(LayerIndex, "inodes", lambda _: iter(rows))
    with pytest.raises(CacheDamaged, match="at byte"):
        written(image, tmp_path / "image")
