"""The differences of two merged trees are those of their walks, and each is told with the layer that made it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regfs.errors import BadLayer
from regfs.rootfs.differences import Difference, differences, rows_differ
from regfs.rootfs.origins import Origin, Origins
from regfs.store.layers.content import Content
from regfs.store.layers.layer_store import LayerStore
from tests.rootfs.test_merge_against_umoci import images
from tests.support.images import BuiltLayer, directory, file, hardlink, layer, opaque, symlink, whiteout
from tests.support.snapshot import Entry
from tests.support.trees import MergedImage

Changes = dict[bytes, tuple[str, set[str]]]


def decided(a: MergedImage, b: MergedImage) -> Iterator[Difference]:
    def differ(left: Content, right: Content) -> bool:
        return content(a.store, left) != content(b.store, right)

    for each in differences(a.rootfs, b.rootfs):
        fields = each.fields | (rows_differ(a.rootfs, b.rootfs, each, differ) if each.is_undecided else 0)
        if fields or each.kind != "changed":
            yield each._replace(fields=fields)


def content(store: LayerStore, where: Content) -> bytes:
    with closing(store.open_content(where)) as opened:
        return opened.read_at(0, where.size)


def walked(a: dict[bytes, Entry], b: dict[bytes, Entry]) -> Changes:
    """Return the differences of two walked trees."""
    found: Changes = {}
    for path in a.keys() | b.keys():
        name = b"" if path == b"." else path
        if path not in a or path not in b:
            found[name] = ("added" if path in b else "removed", set())
        elif fields := differing(a[path], b[path]):
            found[name] = ("changed", fields)
    return found


def differing(left: Entry, right: Entry) -> set[str]:
    fields = {
        "mode": left.mode != right.mode,
        "owner": (left.uid, left.gid) != (right.uid, right.gid),
    }
    if left.kind != right.kind:
        fields["type"] = True
    else:
        fields |= {
            "size": left.size != right.size,
            "content": left.content != right.content,
            "target": left.target != right.target,
            "device": left.device != right.device,
            "xattrs": left.xattrs != right.xattrs,
        }
    return {name for name, differs in fields.items() if differs}


layer_lists = images.map(lambda image: image[:2])


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.one_of(st.just([]), layer_lists), layer_lists, layer_lists)
def test_the_differences_are_those_of_the_walked_trees(base: list, upper_a: list, upper_b: list) -> None:  # type: ignore[type-arg]
    with tempfile.TemporaryDirectory() as work:
        try:
            with (
                closing(MergedImage(Path(work, "a"), *[layer(*each) for each in base + upper_a])) as a,
                closing(MergedImage(Path(work, "b"), *[layer(*each) for each in base + upper_b])) as b,
            ):
                found = list(decided(a, b))
                expected = walked(a.snapshot(), b.snapshot())
        except BadLayer:
            return  # no unpacker takes it
    assert {each.path: (each.kind, set(each.fields.words())) for each in found} == expected
    assert len(found) == len(expected)


BASE = layer(
    directory("etc"), file("etc/kept", b"kept"), file("etc/edited", b"one"), file("etc/gone", b"?"),
    directory("srv"), file("srv/deep/one", b"1"), file("srv/two", b"2"), symlink("link", "etc"),
)  # fmt: skip


def origins(directory: Path, a: list[BuiltLayer], b: list[BuiltLayer]) -> dict[bytes, Origin]:
    with closing(MergedImage(directory / "a", *a)) as left, closing(MergedImage(directory / "b", *b)) as right:
        told = Origins(left.rootfs, right.rootfs)
        return {each.path: told.of(each) for each in decided(left, right)}


def test_each_difference_is_told_with_the_layer_that_made_it(tmp_path: Path) -> None:
    edit = layer(file("etc/edited", b"two"), file("new", b"new"))
    delete = layer(whiteout("etc/gone"), opaque("srv"))
    forward = origins(tmp_path / "forward", [BASE], [BASE, edit, delete])
    gone = dict.fromkeys((b"etc/gone", b"srv/deep", b"srv/deep/one", b"srv/two"), Origin(True, 2))
    assert forward == gone | {b"etc/edited": Origin(True, 1), b"new": Origin(True, 1)}
    backward = origins(tmp_path / "backward", [BASE, edit, delete], [BASE])
    assert backward == {path: Origin(False, origin.layer) for path, origin in forward.items()}


def test_images_without_a_common_layer_differ_by_what_each_of_them_brought(tmp_path: Path) -> None:
    other = layer(directory("etc"), file("etc/kept", b"kept"), file("etc/edited", b"two"))
    found = origins(tmp_path, [BASE], [layer(file("first", b"")), other])
    assert found[b"etc/edited"] == Origin(True, 1)
    assert found[b"first"] == Origin(True, 0)
    assert found[b"etc/gone"] == Origin(False, 0)
    assert b"etc/kept" not in found


def test_a_hard_link_is_told_with_the_layer_that_made_it_and_not_with_that_of_the_file(tmp_path: Path) -> None:
    assert origins(tmp_path, [BASE], [BASE, layer(hardlink("copy", "etc/kept"))]) == {b"copy": Origin(True, 1)}


def test_a_rebuilt_layer_is_told_from_the_one_it_has_the_rows_of(tmp_path: Path) -> None:
    """Same names, sizes, times and rows: only the bytes differ."""
    one, two = layer(file("a", b"1"), file("b", b"same")), layer(file("a", b"2"), file("b", b"same"))
    assert origins(tmp_path, [BASE, one], [BASE, two]) == {b"a": Origin(True, 1)}


def test_big_directories_are_compared_page_by_page(tmp_path: Path) -> None:
    many = [file(f"many/{number:05d}", b"x") for number in range(5000)]
    found = origins(tmp_path, [layer(*many)], [layer(*many), layer(whiteout("many/00007"), file("many/x", b"x"))])
    assert found == {b"many/00007": Origin(True, 1), b"many/x": Origin(True, 1)}
