"""A layer's table of contents and its archive may say different things: told once the whole layer was read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from regfs.verbs.image import whole_files
from tests.images.test_lazy_layers import BASE, BUILDERS, OTHER, TOP, image_in, join_threads
from tests.support.fault_server import reply
from tests.support.images import BuiltLayer, file, image_of
from tests.support.lazy_layers import Fields, estargz, zstd_chunked
from tests.support.served import Served
from tests.support.shown import Shown
from tests.support.soci_layers import named, push_soci, soci

Change = Callable[[list[Fields]], None]
Build = Callable[..., BuiltLayer]
both_formats = pytest.mark.parametrize("build", [estargz, zstd_chunked])


def of(entries: list[Fields], name: str) -> Fields:
    return next(each for each in entries if each["name"] == name and each["type"] != "chunk")


def errors(shown: Shown) -> str:
    return shown.read(".regfs/errors").decode()


def fetch_whole(shown: Shown) -> str:
    """Fetch all of the image, and return what is told about it."""
    whole_files(image_in(shown), shown.app, compare=True)
    return errors(shown)


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_what_agrees_is_not_told(served: Served, name: str) -> None:
    served.push("app", "1", image_of(BUILDERS[name](*BASE), BUILDERS[name](*TOP)))
    shown = served.show()
    assert fetch_whole(shown) == ""
    assert shown.stats.value("layers.compared") == 2


def add(entries: list[Fields]) -> None:
    entries.append({"name": "added", "type": "symlink", "linkName": "/etc/passwd", "mode": 0o777})


def swap(entries: list[Fields]) -> None:
    """Give the bytes of one file to another of the same size."""
    a, b = of(entries, "a"), of(entries, "b")
    keys = ("offset", "endOffset", "digest", "chunkDigest", "innerOffset")
    parts = [{key: each[key] for key in keys if key in each} for each in (a, b)]
    a.update(parts[1])
    b.update(parts[0])


LIES: dict[str, tuple[Change, str]] = {
    "mode": (
        lambda entries: of(entries, "a").update(mode=0o4755),
        "a: mode 104755 in the table, 100644 in the archive",
    ),
    "owner": (lambda entries: of(entries, "a").update(uid=7), "a: uid 7 in the table, 0 in the archive"),
    "time": (lambda entries: of(entries, "a").update(modtime="2001-01-01T00:00:00Z"), "a: a time of 978307200"),
    "removed": (lambda entries: entries.remove(of(entries, "small")), "small: only the archive has it"),
    "added": (add, "added: only the table has it"),
    "content": (swap, "in 2 files"),
}


@both_formats
@pytest.mark.parametrize("lie", sorted(LIES))
def test_what_differs_is_told_once_by_path(served: Served, build: Build, lie: str) -> None:
    change, told = LIES[lie]
    built = build(file("a", b"a" * 5000), file("b", b"b" * 5000), file("small"), change=change)
    served.push("app", "1", image_of(built))
    shown = served.show()
    found = fetch_whole(shown)
    assert told in found
    assert found.count("its table of contents and its archive differ") == 1
    assert fetch_whole(shown).count("its table of contents and its archive differ") == 1


def test_a_layer_that_falls_back_to_being_read_whole_is_compared_too(served: Served) -> None:
    built = estargz(file("a", b"a" * 5000), file("b", b"b" * 5000), change=lambda all_: of(all_, "b").update(uid=7))
    served.push("app", "1", image_of(built))
    shown = served.show()
    shown.names("app/1/rootfs")
    served.server.on("GET", f"/blobs/{built.digest}", reply(200, built.blob))
    assert shown.read("app/1/rootfs/a") == b"a" * 5000
    assert "b: uid 7 in the table, 0 in the archive" in errors(shown)


def test_a_ztoc_is_compared_by_places(served: Served) -> None:
    push_soci(served, "app", "1", soci(*BASE, span=50_000, change=lambda fields: named(fields, "other").update(uid=9)))
    shown = served.show()
    assert "other: uid 9 in the table, 0 in the archive" in fetch_whole(shown)


@pytest.mark.parametrize("uid", [0, 9])
def test_an_archive_that_came_in_the_background_is_compared_with_its_ztoc(served: Served, uid: int) -> None:
    push_soci(
        served, "app", "1", soci(*BASE, span=50_000, change=lambda fields: named(fields, "other").update(uid=uid))
    )
    shown = served.show(background_fetch=True)
    shown.names("app/1/rootfs")
    join_threads("background fetch")
    assert shown.stats.value("layers.compared") == 1
    assert ("other: uid 9 in the table, 0 in the archive" in errors(shown)) == bool(uid)


def test_a_layer_that_breaks_off_says_nothing_of_its_table(served: Served) -> None:
    built = estargz(file("a", OTHER), file("b", OTHER))
    served.push("app", "1", image_of(built))
    shown = served.show()
    shown.names("app/1/rootfs")
    served.server.on("GET", f"/blobs/{built.digest}", reply(500))
    with pytest.raises(Exception, match="500"):
        whole_files(image_in(shown), shown.app, compare=True)
    assert "differ" not in errors(shown)
    assert shown.stats.value("layers.compared") == 0


def test_what_a_mount_waits_for_is_not_compared(served: Served) -> None:
    served.push("app", "1", image_of(estargz(file("a", OTHER))))
    shown = served.show()
    whole_files(image_in(shown), shown.app)
    assert shown.stats.value("layers.compared") == 0
