"""The merge against umoci: random layers, made of few names so that they collide, come out as umoci unpacks them.

Where umoci refuses an image so must we, and the other way round; `takes_back` says where the two may differ.
By default the same images are tried each time; REGFS_EXAMPLES sets how many others are.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from regfs.errors import BadLayer
from tests.support.images import (
    BuiltLayer,
    TarEntry,
    device,
    directory,
    fifo,
    file,
    hardlink,
    image_of,
    layer,
    opaque,
    symlink,
    whiteout,
)
from tests.support.snapshot import Entry, differences
from tests.support.trees import MergedImage
from tests.support.umoci import as_umoci_would, needs_umoci, unpacked

EXAMPLES = int(os.environ.get("REGFS_EXAMPLES", "0"))

names = st.sampled_from(["a", "b", "c", "a", "b", "c", ".wh.a"])
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
modes = st.sampled_from([0o755, 0o644, 0o4711, 0o2750, 0o1777, 0])
owners = st.sampled_from([0, 1, 1000, 3_000_000])
times = st.sampled_from([0, 1_500_000_000_000_000_000, 1_600_000_000_123_456_789])
xattrs = st.sampled_from([{}, {}, {"user.x": b"\0\xff"}, {"user.y": b"1", "trusted.z": b""}])
link_targets = st.one_of(
    paths, paths.map(lambda path: f"/{path}"), st.sampled_from(["..", "../..", "/", ".", "../b", "../../a/b", "none"])
)


@st.composite
def entries(draw: st.DrawFn) -> TarEntry:
    path = draw(paths)
    fields: dict[str, Any] = {"mode": draw(modes), "uid": draw(owners), "gid": draw(owners), "mtime_ns": draw(times)}
    kind = draw(st.sampled_from("ffffddddssshhhwwwoorcp"))
    if kind == "f":
        content = draw(st.sampled_from([b"", b"one", b"two"]))
        return file(path, content, xattrs=draw(xattrs), **fields)
    if kind == "d":
        return directory(path, xattrs=draw(xattrs), **fields)
    if kind == "s":
        return symlink(path, draw(link_targets), **fields)
    if kind == "h":
        return hardlink(path, draw(paths))
    if kind == "w":
        return whiteout(path)
    if kind == "o":
        return opaque(path)
    if kind == "r":
        return directory(".", **fields)
    return device(path, 4, 300, **fields) if kind == "c" else fifo(path, **fields)


images = st.lists(st.lists(entries(), min_size=1, max_size=7), min_size=1, max_size=4)


def takes_back(entries: list[TarEntry]) -> bool:
    """Tell whether a later entry of the layer takes away what an earlier one wrote.

    A layer's index holds what the layer leaves, not what came and went. What unpackers did meanwhile to the layers
    below (writing through a link of theirs, failing at a file of theirs) and what did not last is not repeated.
    """
    seen: list[bytes] = []
    for entry in entries:
        path = entry.name.rstrip(b"/")
        if any(old == path or old.startswith(path + b"/") for old in seen):
            return True
        seen.append(path)
    return False


def describes_setgid_late(entries: list[TarEntry]) -> bool:
    """Tell whether a setgid directory gets its entry after one that is below it.

    What was implied in it before then did not inherit the bit; an index only holds that the directory has it.
    """
    for number, entry in enumerate(entries):
        below = b"" if entry.name == b"./" else entry.name
        if entry.type == b"5" and entry.mode & 0o2000 and any(old.name.startswith(below) for old in entries[:number]):
            return True
    return False


def may_link_to_itself(entries: list[TarEntry]) -> bool:
    """Tell whether a hard link has its target's name, so that a link of a lower layer may make them one path.

    Unpackers take the old file away and then find no target; we leave the file.
    """
    return any(
        entry.type == b"1" and entry.name.rpartition(b"/")[2] == entry.target.rpartition(b"/")[2] for entry in entries
    )


def merged(directory: Path, built: list[BuiltLayer]) -> dict[bytes, Entry] | str:
    """Return the snapshot of our rootfs, or why there is none."""
    try:
        image = MergedImage(directory, *built)
    except BadLayer as refusal:
        return str(refusal)
    try:
        return image.snapshot()
    finally:
        image.close()


@needs_umoci
@pytest.mark.timeout(300 + 2 * EXAMPLES)
@settings(
    max_examples=EXAMPLES or 150,
    derandomize=not EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    print_blob=True,
)
@given(images)
def test_random_images_come_out_as_umoci_unpacks_them(image: list[list[TarEntry]]) -> None:
    built = [layer(*found, compression="none") for found in image]
    directory = Path(tempfile.mkdtemp(prefix="regfs-umoci-"))
    try:
        ours = merged(directory / "cache", built)
        theirs = unpacked(directory, image_of(*built))
    finally:
        shutil.rmtree(directory)
    told = disagreement(ours, theirs)
    failed_and_went_on = isinstance(theirs, str) and takes_back(image[0])
    if failed_and_went_on or any(takes_back(found) for found in image[1:]) or any(map(describes_setgid_late, image)):
        event("takes back, and " + ("differs" if told else "is the same"))
        return
    event("refused" if isinstance(theirs, str) else "unpacked")
    if isinstance(theirs, str) and theirs.strip().endswith("link: no such file or directory"):
        told = [] if any(map(may_link_to_itself, image[1:])) else told
    assert not told


def disagreement(ours: dict[bytes, Entry] | str, theirs: dict[bytes, Entry] | str) -> list[str]:
    if isinstance(theirs, str):
        return [] if isinstance(ours, str) else [f"refused by umoci alone: {theirs}"]
    if isinstance(ours, str):
        # A whiteout below a file of its own layer: umoci passes over it, containerd refuses the layer as we do.
        whiteout_below_a_file = "/.wh." in ours and ours.endswith("is not a directory")
        # A hard link to a lower layer's symbolic link that this layer also writes through: the layer alone, which is
        # refused before the merge sees it, only tells of a directory there.
        link_to_an_implied_directory = "a hard link to the directory" in ours
        if whiteout_below_a_file or link_to_an_implied_directory:
            return []
        return [f"refused by us alone: {ours}"]
    return differences(as_umoci_would(ours, theirs), theirs)


LONG = "n" * 255
LOWER = [directory("etc"), file("etc/a", b"a"), file(LONG), file(f"{LONG[:252]}"), file("z")]


@needs_umoci
@pytest.mark.parametrize(
    "upper",
    [
        [whiteout(LONG)],
        [whiteout(LONG[:252]), whiteout(LONG)],
        [directory(f".wh.{LONG}")],
        [file(".wh.etc/x", b"x")],
        [directory(".wh.etc", mode=0o700, xattrs={"user.x": b"1"}), file(".wh.etc/x", b"x")],
        [file(".wh.etc/x", b"x"), directory(".wh.etc", mode=0o700)],
        [whiteout("etc"), file(".wh.etc/x", b"x")],
        [file(".wh.etc/x", b"x"), whiteout("etc")],
        [file(".wh.etc/x", b"x"), file("etc/new")],
        [file("etc/.wh..wh..opq/x", b"x")],
        [file(".wh..wh..opq/x", b"x")],
        [file("etc/.wh..wh.foo/x")],
        [directory("etc/.wh..wh.foo"), file("etc/.wh..wh.foo/x")],
        [directory("etc/.wh.a/b/c"), file("etc/.wh.a/b/.wh.q/f", b"1")],
        [file(".wh.etc/x", b"x"), hardlink("h", ".wh.etc/x")],
        [whiteout(".wh.etc/x")],
        [file(".wh./x"), file(".wh../y")],
    ],
)
def test_names_that_only_look_like_whiteouts_and_long_ones_come_out_as_umoci_unpacks_them(
    tmp_path: Path, upper: list[TarEntry]
) -> None:
    built = [layer(*LOWER, compression="none"), layer(*upper, compression="none")]
    theirs = unpacked(tmp_path, image_of(*built))
    assert not isinstance(theirs, str)
    assert disagreement(merged(tmp_path / "cache", built), theirs) == []
