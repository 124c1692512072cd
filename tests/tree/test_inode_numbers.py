"""st_ino, for programs that drop bits of it (cpio, npm's tar, bsdtar, 32-bit ones) and those that compare it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regfs.errors import NotADirectory
from regfs.model.node_id import LAYER_SHIFT, ROOT, invented_node, next_invented
from regfs.tree.inode_numbers import InodeNumbers
from tests.support.images import BuiltImage, directory, file, hardlink, image_of, index_of, layer
from tests.support.memory_registry import INDEX
from tests.support.served import Served
from tests.support.shown import Shown

LOWER_HALF = 0xFFFFFFFF
AMD64 = {"platform": {"os": "linux", "architecture": "amd64"}}


def image(text: str, tops: str = "abc") -> BuiltImage:
    """Return an image whose layers have the same rows, with other content; some directories no layer describes."""
    layers = []
    for top in tops:
        files = [file(f"{top}/f{number}", f"{text} {top} {number}".encode()) for number in range(5)]
        links = [hardlink(f"{top}/g{number}", f"{top}/f{number}") for number in range(5)]
        layers.append(layer(directory(top), *files, *links, file(f"implied-{top}/x")))
    return image_of(*layers)


def numbers_below(shown: Shown, path: str) -> Iterator[tuple[str, int]]:
    """Yield the path and the inode number of all that is listed in *path* and below."""
    found = shown.find(path)
    yield path, int.from_bytes(found.attributes[:8], "little")
    try:
        listing = shown.tree.listing(found.node)
    except NotADirectory:
        return
    for entry in listing.entries(0, 1 << 20):
        below = f"{path}/{entry.name.decode()}".lstrip("/")
        yield below, int.from_bytes(entry.attributes[:8], "little")
        yield from numbers_below(shown, below)


def rootfs_numbers(shown: Shown, tag: str) -> dict[str, int]:
    """Return inode numbers by the path below rootfs/."""
    top = f"{tag}/rootfs"
    return {path.removeprefix(top): number for path, number in numbers_below(shown, top)}


def test_a_cpio_archive_or_a_32_bit_program_tells_all_files_of_a_rootfs_apart(served: Served) -> None:
    served.push("app", "1", image("one"))
    numbers = rootfs_numbers(served.show(), "app/1")
    halves: dict[int, set[str]] = {}
    for path, number in numbers.items():
        halves.setdefault(number & LOWER_HALF, set()).add(path)
    links = [paths for paths in halves.values() if len(paths) > 1]
    assert sorted(map(sorted, links)) == sorted([f"/{top}/f{n}", f"/{top}/g{n}"] for top in "abc" for n in range(5))
    assert min(halves) > 1


def test_a_double_and_a_signed_number_hold_every_inode_number_of_a_mount(served: Served) -> None:
    built = served.push("app", "one", image("one"))
    served.document("app", "1", index_of(built.descriptor(**AMD64)), INDEX)
    shown = served.show()
    numbers = [number for path in ("", "app/one", "app/1") for _, number in numbers_below(shown, path)]
    assert len(numbers) > 200
    assert all(0 < number < 1 << 53 and number & LOWER_HALF for number in numbers)
    assert shown.inode("") == ROOT
    assert numbers.count(ROOT) == 1


def test_two_images_share_no_number_so_that_gnu_diff_and_tar_take_no_file_for_another(served: Served) -> None:
    served.push("app", "1", image("one"))
    served.push("app", "2", image("two"))
    served.push("other", "1", image("three"))
    shown = served.show()
    seen: set[int] = set()
    for tag in ("app/1", "app/2", "other/1"):
        numbers = {number for _, number in numbers_below(shown, tag)}
        assert not numbers & seen
        seen |= numbers


def test_a_layer_s_own_files_are_not_those_of_the_rootfs(served: Served) -> None:
    served.push("app", "1", image("one"))
    shown = served.show()
    trees = [{number for _, number in numbers_below(shown, f"app/1/layers/{n}/tree")} for n in range(3)]
    trees.append(set(rootfs_numbers(shown, "app/1").values()))
    assert sum(map(len, trees)) == len(set().union(*trees))


def test_an_image_has_the_same_numbers_by_tag_by_digest_after_a_remount_and_in_another_daemon(served: Served) -> None:
    built = served.push("app", "1", image("one"))
    served.push("mirrored/app", "latest", built)
    first = served.show()
    before = rootfs_numbers(first, "app/1")
    other = served.push("other", "1", image("two"))  # another daemon meets another image first
    second = served.show()
    rootfs_numbers(second, "other/1")
    for shown in (first, second):
        assert rootfs_numbers(shown, f"app/{built.digest}") == before
        assert rootfs_numbers(shown, "mirrored/app/latest") == before
    assert rootfs_numbers(first, f"other/{other.digest}") == rootfs_numbers(second, "other/1")


def test_the_number_of_a_rootfs_is_the_same_before_and_after_its_layers_are_there(served: Served) -> None:
    served.push("app", "1", image("one"))
    shown = served.show()
    listed = {entry.name: entry.attributes[:8] for entry in shown.tree.listing(shown.find("app/1").node).entries(0, 99)}
    found = shown.find("app/1/rootfs")
    assert found.attributes[:8] == listed[b"rootfs"]
    shown.names("app/1/rootfs")
    for again in (shown.find("app/1/rootfs"), shown.tree.attributes(found.node)):
        assert again.attributes[:8] == listed[b"rootfs"]
    assert shown.tree.parent(shown.find("app/1/rootfs/a").node) == found.node


def test_with_inode32_every_number_fits_a_32_bit_program(served: Served) -> None:
    served.push("app", "1", image("one"))
    shown = served.show(inode32=True)
    everything = dict(numbers_below(shown, ""))
    assert len(everything) > 50
    assert all(0 < number <= LOWER_HALF for number in everything.values())
    assert [path for path, number in everything.items() if number == ROOT] == [""]
    wide = rootfs_numbers(served.show(), "app/1")
    assert {path: number & LOWER_HALF for path, number in wide.items()} == rootfs_numbers(shown, "app/1")


@pytest.mark.parametrize("only_32_bits", [False, True])
@given(first=st.lists(st.integers(1, 1 << 22), max_size=60), rows=st.lists(st.integers(0, 1 << 22), max_size=10))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_rows_of_any_layers_have_numbers_of_their_own(first: list[int], rows: list[int], *, only_32_bits: bool) -> None:
    numbers = InodeNumbers({"x": 7, "y": (1 << 20) - 1}.__getitem__, only_32_bits=only_32_bits)
    before = {layer: sum(first[:layer]) for layer in range(len(first))}
    for table in ("x", "y"):
        raised_by = numbers.of_layers(table, before)
        keys = {
            (layer << LAYER_SHIFT | row % count) for layer, count in enumerate(first) for row in (*rows, 0, count - 1)
        }
        made = {key + raised_by[key >> LAYER_SHIFT] for key in keys} | {numbers.of_table(table)}
        assert len({number & LOWER_HALF for number in made}) == len(keys) + 1
        assert all(1 < number < 1 << (32 if only_32_bits else 52) for number in made)


@given(st.text())
def test_invented_nodes_have_numbers_that_no_table_has(key: str) -> None:
    wide, narrow = InodeNumbers(lambda _: 1), InodeNumbers(lambda _: 1, only_32_bits=True)
    node = invented_node(key)
    assert next_invented(node) != node
    for each in (node, next_invented(node)):
        assert 1 << 52 <= wide.of_invented(each) < 1 << 53
        assert wide.of_invented(each) & LOWER_HALF == narrow.of_invented(each) > 1
