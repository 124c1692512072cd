"""What the entries of one layer leave behind: the last one wins, links, whiteouts, odd paths."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from regfs.errors import BadLayer
from regfs.layers.rows.archive_rows import ArchiveRows
from regfs.layers.tar.feed import ByteFeed
from regfs.layers.tar.tar_reader import HARD_LINK, TarReader
from regfs.model.attributes import Attributes
from regfs.model.layer_entry import NOWHERE, EntryFlag, Row, unpack_xattrs
from tests.layers.ingested import Ingested, ingested, ingested_tar
from tests.support.images import (
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
    tar_of,
    whiteout,
    write_layout,
)
from tests.support.snapshot import differences, snapshot
from tests.support.steps import steps

IMPLIED, OPAQUE, WHITEOUT = EntryFlag.IMPLIED, EntryFlag.OPAQUE, EntryFlag.WHITEOUT
NONE = EntryFlag(0)


@pytest.mark.parametrize("name", ["etc/motd", "./etc/motd", "/etc/motd", "etc//motd", "//etc/./motd", "a/../etc/motd"])
def test_every_spelling_of_a_path_means_the_same(tmp_path: Path, name: str) -> None:
    layer = ingested(tmp_path, file(name, b"hello"))
    assert layer.content("etc/motd") == b"hello"
    assert layer.paths() == [b"etc", b"etc/motd"]


@pytest.mark.parametrize("name", ["../../etc/motd", "/../etc/motd", "etc/../../etc/motd"])
def test_dot_dot_ends_at_the_root(tmp_path: Path, name: str) -> None:
    assert ingested(tmp_path, file(name)).paths() == [b"etc", b"etc/motd"]


def test_the_root_entry_has_the_roots_attributes(tmp_path: Path) -> None:
    layer = ingested(tmp_path, directory("./", mode=0o1700, uid=5), directory("d"))
    assert layer.attributes("")[:4] == (0o041700, 4096, 3, 5)
    assert layer.flags("") == NONE
    assert layer.paths() == [b"d"]


def test_an_archive_without_entries_is_an_implied_root(tmp_path: Path) -> None:
    layer = ingested(tmp_path)
    assert layer.paths() == []
    assert layer.attributes("") == Attributes(0o40755, size=4096, nlink=2)
    assert layer.flags("") == IMPLIED


def test_parents_that_no_entry_describes_are_implied(tmp_path: Path) -> None:
    layer = ingested(tmp_path, file("a/b/c"))
    assert layer.flags("a") == layer.flags("a/b") == IMPLIED
    assert layer.attributes("a/b") == Attributes(0o40755, size=4096, nlink=2)
    assert layer.attributes("a").nlink == 3


def test_an_implied_directory_that_is_described_later_keeps_its_row(tmp_path: Path) -> None:
    layer = ingested(tmp_path, file("a/b"), directory("a", mode=0o700, xattrs={"user.x": b"\0\xff"}))
    assert layer.flags("a") == NONE
    assert layer.attributes("a").mode == 0o40700
    assert unpack_xattrs(layer["a"].xattrs) == {b"user.x": b"\0\xff"}
    assert layer["a"].row < layer["a/b"].row


def test_the_last_entry_of_a_path_wins(tmp_path: Path) -> None:
    layer = ingested(tmp_path, file("a", b"one"), file("b"), file("a", b"three", mode=0o600))
    assert layer.content("a") == b"three"
    assert layer.attributes("a").mode == 0o100600


def test_a_file_takes_a_directory_away_with_all_below(tmp_path: Path) -> None:
    layer = ingested(tmp_path, file("d/e/f"), file("d/g"), file("d", b"now a file"))
    assert layer.paths() == [b"d"]
    assert layer.index.count() == 2


def test_a_directory_over_a_file_hides_what_lower_layers_have_there(tmp_path: Path) -> None:
    layer = ingested(tmp_path, file("d"), directory("d"), file("d/x"))
    assert layer.flags("d") == OPAQUE
    assert layer.paths() == [b"d", b"d/x"]


def test_a_directory_over_a_directory_only_changes_attributes(tmp_path: Path) -> None:
    layer = ingested(tmp_path, directory("d", mode=0o755), file("d/x"), directory("d", mode=0o711))
    assert layer.attributes("d").mode == 0o40711
    assert layer.flags("d") == NONE
    assert layer.paths() == [b"d", b"d/x"]


def test_a_directory_over_a_symlink_is_a_directory(tmp_path: Path) -> None:
    layer = ingested(tmp_path, directory("real"), symlink("d", "real"), directory("d"), file("d/x"))
    assert layer.flags("d") == OPAQUE
    assert layer.paths() == [b"d", b"d/x", b"real"]


def test_a_file_below_a_file_is_no_layer(tmp_path: Path) -> None:
    with pytest.raises(BadLayer, match="not a directory"):
        ingested(tmp_path, file("a"), file("a/b"))


def test_every_type_keeps_its_attributes(tmp_path: Path) -> None:
    layer = ingested(
        tmp_path,
        file("f", b"12345", mode=0o6755, uid=1 << 31, gid=7, mtime_ns=-1_500_000_000),
        symlink("l", "to/some\udcffwhere", mode=0o644, mtime_ns=3),
        device("c", 1, 3, mode=0o666),
        device("b", 4095, 0xFFFFF, block=True),
        fifo("p", mode=0o1600),
    )
    assert layer.attributes("f") == Attributes(0o106755, 5, 1, 1 << 31, 7, 0, -1_500_000_000)
    assert layer.attributes("l")[:2] == (0o120777, len(b"to/some\xffwhere"))
    assert layer["l"].target == b"to/some\xffwhere"
    assert layer.attributes("l").mtime_ns == 3
    assert layer.attributes("c")[:6] == (0o020666, 0, 1, 0, 0, 0x103)
    assert layer.attributes("b").rdev == 0xFFFFFFFF
    assert layer.attributes("p").mode == 0o011600


# Parents that are links


def test_a_parent_that_is_a_symlink_is_written_through(tmp_path: Path) -> None:
    layer = ingested(
        tmp_path, directory("usr/lib"), symlink("lib", "usr/lib"), file("lib/libc.so"), whiteout("lib/old")
    )
    assert b"usr/lib/libc.so" in layer.paths()
    assert layer.flags("usr/lib/.wh.old") == WHITEOUT


@pytest.mark.parametrize("target", ["/usr", "../../../usr", "/../usr/.", "./x/../usr"])
def test_a_symlinks_target_never_leaves_the_root(tmp_path: Path, target: str) -> None:
    layer = ingested(tmp_path, directory("x"), symlink("l", target), file("l/f"))
    assert b"usr/f" in layer.paths()


def test_a_parent_link_to_nowhere_makes_the_directory(tmp_path: Path) -> None:
    layer = ingested(tmp_path, symlink("l", "a/b"), file("l/f"))
    assert layer.paths() == [b"a", b"a/b", b"a/b/f", b"l"]


def test_a_loop_of_parent_links_is_no_layer(tmp_path: Path) -> None:
    with pytest.raises(BadLayer, match="too many symbolic links"):
        ingested(tmp_path, symlink("a", "b"), symlink("b", "a"), file("a/f"))


def test_the_directory_remembered_from_the_entry_before_is_forgotten_when_it_goes(tmp_path: Path) -> None:
    layer = ingested(tmp_path, file("d/one"), symlink("d", "e"), file("d/two"))
    assert layer.paths() == [b"d", b"e", b"e/two"]


# Hard links


def test_a_hard_link_is_another_name_of_its_target(tmp_path: Path) -> None:
    layer = ingested(tmp_path, file("a", b"text", mode=0o640), hardlink("d/b", "./a", mode=0o777), hardlink("c", "d/b"))
    assert layer["d/b"].inode == layer["c"].inode == layer["a"].row
    assert layer.attributes("c") == layer.attributes("a")
    assert layer.attributes("a").nlink == 3
    assert layer.content("c") == b"text"


def test_a_hard_link_keeps_what_it_was_a_link_to(tmp_path: Path) -> None:
    layer = ingested(tmp_path, file("a", b"old"), hardlink("b", "a"), hardlink("c", "a"), file("a", b"new"))
    assert layer.content("b") == layer.content("c") == b"old"
    assert layer.content("a") == b"new"
    assert layer.attributes("b").nlink == 2
    assert layer.attributes("a").nlink == 1
    assert layer.index.row(layer["b"].inode).parent == NOWHERE


def test_an_inode_without_names_is_gone(tmp_path: Path) -> None:
    layer = ingested(tmp_path, file("a"), hardlink("b", "a"), file("b", b"2"), file("a", b"3"))
    assert layer.index.count() == 3
    assert layer.attributes("a").nlink == layer.attributes("b").nlink == 1


def test_links_that_go_with_their_directory_do_not_count(tmp_path: Path) -> None:
    layer = ingested(tmp_path, file("d/a", b"x"), hardlink("d/b", "d/a"), hardlink("c", "d/a"), file("d"))
    assert layer.attributes("c").nlink == 1
    assert layer.content("c") == b"x"


def test_a_hard_link_to_a_symlink_is_the_symlink(tmp_path: Path) -> None:
    layer = ingested(tmp_path, symlink("l", "nowhere"), hardlink("h", "l"), file("h/f"))
    assert layer["h"].inode == layer["l"].row
    assert layer["h"].target == b"nowhere"
    assert layer.paths() == [b"h", b"l", b"nowhere", b"nowhere/f"]


def test_a_hard_link_to_a_lower_layer_is_left_to_the_merge(tmp_path: Path) -> None:
    layer = ingested(
        tmp_path,
        symlink("l", "/usr/lib"),
        hardlink("a", "/l/../lib/x/../y"),
        hardlink("b", "a"),
        hardlink("c", "l/z"),
    )
    assert layer.flags("a") == layer.flags("c") == EntryFlag.LINK_BELOW
    assert layer["a"].target == b"lib/y"
    assert layer["b"].inode == layer["a"].row
    assert layer["c"].target == b"usr/lib/z"


@pytest.mark.parametrize("target", ["a", "./a", "d/../a", "/"])
def test_a_hard_link_to_itself_is_no_layer(tmp_path: Path, target: str) -> None:
    with pytest.raises(BadLayer):
        ingested(tmp_path, file("a"), hardlink("a", target))


def test_a_hard_link_to_a_directory_is_no_layer(tmp_path: Path) -> None:
    with pytest.raises(BadLayer, match="directory"):
        ingested(tmp_path, directory("d"), hardlink("a", "d"))


def test_a_hard_link_below_a_file_is_no_layer(tmp_path: Path) -> None:
    with pytest.raises(BadLayer, match="below no directory"):
        ingested(tmp_path, file("f"), hardlink("a", "f/x"))


# Whiteouts


def test_a_whiteout_is_a_row_as_it_is_stored(tmp_path: Path) -> None:
    layer = ingested(
        tmp_path, whiteout("d/gone", mode=0o600), directory("d"), fifo(".wh.pipe"), hardlink(".wh.h", "no")
    )
    assert layer.flags("d/.wh.gone") == layer.flags(".wh.pipe") == layer.flags(".wh.h") == WHITEOUT
    assert layer.attributes("d/.wh.gone").mode == 0o100600
    assert layer.attributes(".wh.pipe").mode == 0o010644
    assert layer.attributes(".wh.h").mode == 0o100644
    assert layer.flags("d") == NONE


def test_a_directory_that_its_layer_whites_out_is_opaque_in_either_order(tmp_path: Path) -> None:
    layer = ingested(
        tmp_path,
        directory("a"), whiteout("a"),
        whiteout("b"), directory("b"),
        whiteout("c"), file("c/implied"),
        file("d"), whiteout("d"),
    )  # fmt: skip
    assert layer.flags("a") == layer.flags("b") == OPAQUE
    assert layer.flags("c") == IMPLIED | OPAQUE
    assert layer.flags("d") == NONE


def test_an_opaque_marker_makes_its_directory_opaque(tmp_path: Path) -> None:
    layer = ingested(tmp_path, file("d/x"), opaque("d"), opaque(""))
    assert layer.flags("d") == IMPLIED | OPAQUE
    assert layer.flags("d/.wh..wh..opq") == EntryFlag.OPAQUE_MARKER
    assert layer.flags("") == IMPLIED | OPAQUE


@pytest.mark.parametrize("name", [".wh.", "d/.wh.", ".wh..", "d/.wh..."])
def test_a_whiteout_of_no_name_is_no_layer(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadLayer, match="whiteout"):
        ingested(tmp_path, file(name))


def test_what_aufs_left_is_marked(tmp_path: Path) -> None:
    layer = ingested(
        tmp_path, directory(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", b"x"), hardlink("a", ".wh..wh.plnk/1.2")
    )
    assert layer.flags(".wh..wh.plnk") == EntryFlag.AUFS
    assert layer.content("a") == b"x"


# What no file system takes


@pytest.mark.parametrize(
    "entry",
    [
        file("x" * 256),
        file("d/" + "x" * 256 + "/f"),
        file("/".join(["x" * 200] * 21)),
        symlink("l", ""),
        symlink("l", "x" * 4096),
        file(".", b""),
        symlink("/", "x"),
        hardlink("", "x"),
    ],
)
def test_what_no_file_system_takes_is_no_layer(tmp_path: Path, entry: object) -> None:
    with pytest.raises(BadLayer):
        ingested(tmp_path, entry)  # type: ignore[arg-type]


def test_the_longest_names_are_taken(tmp_path: Path) -> None:
    long = "/".join(["x" * 255] * 15)
    layer = ingested_tar(tmp_path, tar_of(file(long, b"deep"), symlink("l", "y" * 4095)))
    assert layer.content(long) == b"deep"


# umoci as the judge

UMOCI = shutil.which("umoci")
ROOT = directory("./", mode=0o711, uid=3, mtime_ns=1)


@pytest.mark.skipif(UMOCI is None or os.geteuid() != 0, reason="umoci is not installed, or this is not root")
@pytest.mark.parametrize(
    "entries",
    [
        (
            directory("d", mode=0o1777, mtime_ns=5),
            file("d/big", b"x" * 300_000, mode=0o6755, uid=4294967294, gid=6, mtime_ns=1_500_000_000_123_456_789),
            file("d/old", mtime_ns=-1_500_000_000, xattrs={"user.a": b"\0b", "security.selinux": b"x"}),
            symlink("l", "d/big", mtime_ns=77_000_000_001, xattrs={"trusted.overlay.opaque": b"y", "trusted.t": b"1"}),
            hardlink("h", "d/big"),
            device("c", 1, 3, mode=0o666),
            device("b", 300, 70_000, block=True),
            fifo("p"),
        ),
        (directory("usr/lib"), symlink("lib", "usr/lib"), file("lib/a"), hardlink("b", "/lib/../x/../lib/a")),
        (symlink("l", "/../a/b"), file("l/f"), symlink("up", "../../.."), file("up/q"), directory("l"), file("l/x")),
        (file("a", b"1"), hardlink("b", "a"), hardlink("c", "/b"), file("a", b"2"), file("d/e"), file("d")),
        (directory("a"), file("a/x"), whiteout("a"), whiteout("b"), file("b"), whiteout("c/d/e"), opaque("a")),
        (whiteout("a/b/c"), whiteout("a"), file("q/.wh.z"), directory("q/r", xattrs={"user.x": b"y"})),
        (symlink("l", "nowhere"), hardlink("h", "l"), file("h/through")),
    ],
)
def test_a_layer_alone_is_what_umoci_unpacks(tmp_path: Path, entries: tuple[TarEntry, ...]) -> None:
    # The root comes last: umoci touches it whenever it makes or removes something there that no entry describes.
    built = layer(*entries, ROOT)
    layout = write_layout(tmp_path / "layout", image_of(built))
    command = [str(UMOCI), "raw", "unpack", "--image", f"{layout}:latest", str(tmp_path / "unpacked")]
    subprocess.run(command, check=True, capture_output=True)
    ours = Ingested(tmp_path / "cache", built)
    theirs = snapshot(tmp_path / "unpacked")
    for path, row in ours.rows.items():
        if row.flags & IMPLIED and path in theirs:
            # umoci leaves the time of unpacking on what no entry describes.
            theirs[path] = replace(theirs[path], mtime_ns=0)
    assert differences(ours.snapshot(), theirs) == []


class NoRows:
    """Takes the rows of a tree that only its cost is asked of."""

    def add(self, row: Row) -> None:
        pass

    def remove(self, rows: Iterable[int]) -> None:
        list(rows)

    def add_file(self, row: int, parent: int, name: bytes, attributes: bytes, content: int) -> None:
        pass

    def add_new(self, first: int, *columns: Sequence[object]) -> None:
        pass

    def rename(self, rows: Iterable[tuple[int, int, bytes]]) -> None:
        list(rows)

    def add_flags(self, rows: Iterable[int], flags: int) -> None:
        list(rows)

    def set_nlinks(self, nlinks: Iterable[tuple[int, int]]) -> None:
        list(nlinks)


@pytest.mark.parametrize("target", ["{last}/f", "not/there"], ids=["of this layer", "of a lower one"])
def test_a_hard_link_costs_the_same_among_many_directories_as_among_few(target: str) -> None:
    def cost(directories: int) -> int:
        last = f"d{directories - 1:06}"
        made = [directory(f"d{number:06}") for number in range(directories)]
        links = [hardlink(f"{last}/l{number}", target.format(last=last)) for number in range(20)]
        reader = TarReader(ByteFeed(iter([tar_of(*made, file(f"{last}/f", b"x"), *links)])))
        tree = ArchiveRows(NoRows())
        links_of_it = []
        for entry in reader:
            if entry.kind == HARD_LINK:
                links_of_it.append(entry)
            else:
                tree.add(entry, None)

        def add_links() -> None:
            for entry in links_of_it:
                tree.add(entry, None)

        return steps(add_links)

    assert cost(2000) < cost(20) * 1.1


def test_a_path_that_links_make_longer_than_linux_takes_is_refused(tmp_path: Path) -> None:
    deeper = symlink("deeper", "/".join(["d" * 200] * 15))
    chain = "/".join(["deeper", *("d" * 200 for _ in range(10))])
    with pytest.raises(BadLayer, match="a path of more than 4096 bytes"):
        ingested(tmp_path, deeper, directory(f"{chain}/e"), hardlink("h", f"{chain}/not here"))
