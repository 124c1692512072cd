"""`.diff/A..B/`: what differs between two images of a repository, as a mount shows it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from regfs.errors import NotFound, PlatformMissing, Unsupported
from regfs.store.layers.content import Content, OpenContent
from regfs.store.layers.layer_store import LayerStore
from regfs.store.verify import verify
from tests.support.artifacts import TITLE, artifact_of, blob, push_artifact
from tests.support.images import directory, file, image_of, index_of, layer, whiteout
from tests.support.lazy_layers import estargz
from tests.support.memory_registry import INDEX
from tests.support.served import Served
from tests.support.shown import Shown

BASE = layer(file("etc/motd", b"hello\n"), file("etc/kept", b"kept"), file("srv/one", b"1", xattrs={"user.x": b"y"}))
UPPER = layer(
    file("etc/motd", b"HELLO\n", mode=0o600), whiteout("srv/one"), file("opt/new", b"new", xattrs={"user.n": b"1"}),
    directory("opt/empty", mode=0o700),
)  # fmt: skip


@pytest.fixture
def pushed(served: Served) -> Served:
    served.push("app", "1", image_of(BASE))
    served.push("app", "2", image_of(BASE, UPPER))
    return served


def test_the_trees_show_what_each_of_the_images_has(pushed: Served) -> None:
    shown = pushed.show()
    at = "app/.diff/1..2"
    assert shown.names(at) == ["summary", "added", "removed", "changed"]
    assert shown.names(f"{at}/added") == ["opt"]
    assert shown.names(f"{at}/added/opt") == ["empty", "new"]
    assert shown.read(f"{at}/added/opt/new") == b"new"
    assert shown.attributes(f"{at}/added/opt/empty").mode & 0o7777 == 0o700
    assert shown.tree.xattrs(shown.find(f"{at}/added/opt/new").node)[b"user.n"] == b"1"
    assert shown.names(f"{at}/removed") == ["srv"]
    assert shown.read(f"{at}/removed/srv/one") == b"1"
    assert shown.names(f"{at}/changed/etc") == ["motd"]
    assert [shown.read(f"{at}/changed/etc/motd/{side}") for side in "ab"] == [b"hello\n", b"HELLO\n"]
    assert [shown.attributes(f"{at}/changed/etc/motd/{side}").mode & 0o777 for side in "ab"] == [0o644, 0o600]
    assert shown.names("app/.diff/2..1/added/srv") == ["one"]


def test_files_tell_which_layer_of_which_image_brought_them(pushed: Served) -> None:
    shown = pushed.show()

    def layer_of(path: str) -> bytes:
        return shown.tree.xattrs(shown.find(f"app/.diff/1..2/{path}").node)[b"user.regfs.digest"]

    base, upper = str(BASE.digest).encode(), str(UPPER.digest).encode()
    assert layer_of("added/opt/new") == layer_of("changed/etc/motd/b") == upper
    assert layer_of("removed/srv/one") == layer_of("changed/etc/motd/a") == base
    with pytest.raises(KeyError):
        layer_of("changed/etc")


def test_images_may_be_named_by_digest_and_equal_ones_have_empty_trees(pushed: Served) -> None:
    shown = pushed.show()
    digest = shown.read("app/2/digest").decode().strip()
    shown.names("app/2")
    at = f"app/.diff/@{digest[7:19]}..@{digest.replace(':', '-')}"
    assert [shown.names(f"{at}/{kind}") for kind in ("added", "removed", "changed")] == [[], [], []]


def test_the_trees_are_made_once_and_are_there_again_after_a_restart(pushed: Served) -> None:
    with pushed.show() as shown:
        shown.names("app/.diff/1..2/changed/etc")
    (table,) = (pushed.cache / "images").glob("*.changed-*")
    made = table.stat().st_ino
    shown = pushed.show(offline=True)
    assert shown.names("app/.diff/1..2/changed/etc") == ["motd"]
    assert table.stat().st_ino == made


@pytest.mark.parametrize("how", ["deleted", "torn"])
def test_a_table_that_is_lost_under_a_mount_is_made_again(pushed: Served, how: str) -> None:
    shown = pushed.show()
    entry = shown.find("app/.diff/1..2/changed")
    (table,) = (pushed.cache / "images").glob("*.changed-*")
    if how == "deleted":
        table.unlink()
    else:
        content = table.read_bytes()
        table.unlink()
        table.write_bytes(content[:5000])
    shown.tables.close_idle()
    assert shown.tree.lookup(entry.node, b"etc").attributes
    assert table.stat().st_size > 5000


def test_a_damaged_table_is_found_by_verify_and_dropped(pushed: Served) -> None:
    with pushed.show() as shown:
        for kind in ("added", "removed", "changed"):
            shown.names(f"app/.diff/1..2/{kind}")
    assert list(verify(pushed.cache, drop=True)) == []
    (table,) = (pushed.cache / "images").glob("*.added-*")
    content = bytearray(table.read_bytes())
    content[content.index(b"empty")] ^= 1
    table.write_bytes(content)
    assert [problem.path for problem in verify(pushed.cache, drop=True)] == [table]
    assert not table.exists()
    assert pushed.show().names("app/.diff/1..2/added/opt") == ["empty", "new"]


def test_added_and_removed_fetch_no_file_of_a_lazy_image(served: Served) -> None:
    big = os.urandom(1 << 20)
    for tag, more in (("1", []), ("2", [file("new", b"new")])):
        served.push("app", tag, image_of(estargz(file("big", big if more else big[::-1]), *more)))
    shown = served.show()
    assert shown.names("app/.diff/1..2/added") == ["new"]
    assert shown.names("app/.diff/1..2/removed") == []
    assert shown.stats.snapshot()["registry.bytes"] < 1 << 20


def test_a_tag_that_moves_is_compared_as_it_is_then(pushed: Served) -> None:
    shown = pushed.show(tag_ttl_s=0.0)
    assert shown.names("app/.diff/1..2/added") == ["opt"]
    pushed.push("app", "2", image_of(BASE, layer(file("later", b""))))
    assert shown.names("app/.diff/1..2/added") == ["later"]


def test_what_is_no_pair_of_images_does_not_exist(pushed: Served) -> None:
    shown = pushed.show()
    for name in ("1..none", "1", "1...", "..", "1..2/other"):
        with pytest.raises(NotFound):
            shown.find(f"app/.diff/{name}")


def test_an_artifact_is_refused_by_name_and_an_index_without_the_platform_does_not_exist(pushed: Served) -> None:
    push_artifact(pushed.registry, "app", "notes", artifact_of(blob(b"text", "text/plain", {TITLE: "a"}), kind="x/y"))
    entry = {"platform": {"os": "linux", "architecture": "s390x"}}
    pushed.document("app", "s390x", index_of(image_of(BASE).descriptor(**entry)), INDEX)
    shown = pushed.show()
    for pair in ("1..notes", "notes..1"):
        with pytest.raises(Unsupported, match="is an artifact"):
            shown.find(f"app/.diff/{pair}")
    with pytest.raises(PlatformMissing):
        shown.find("app/.diff/1..s390x")


def test_a_mount_that_takes_over_goes_on_with_the_trees(pushed: Served, tmp_path: Path) -> None:
    del tmp_path
    first = pushed.show()
    entry = first.find("app/.diff/1..2/added/opt")
    second = pushed.show()
    second.tree.restore(first.tree.snapshot())
    listed = second.tree.listing(entry.node).entries(0, 10)
    assert [each.name for each in listed] == [b"empty", b"new"]


class CountingStore(LayerStore):
    """Counts the files that are opened."""

    opened = 0

    def open_content(self, content: Content) -> OpenContent:
        CountingStore.opened += 1
        return super().open_content(content)


def opened_by(shown: Shown, pair: str) -> int:
    CountingStore.opened = 0
    shown.names(f"app/.diff/{pair}/changed")
    return CountingStore.opened


def test_a_file_that_was_found_equal_once_is_not_read_again_for_another_image(served: Served) -> None:
    for tag in "123":
        files = [file(f"same/{number}", b"same" * number) for number in range(1, 9)]
        served.push("app", tag, image_of(layer(file("own", tag.encode()), *files)))
    with served.show(store=CountingStore) as shown:
        assert opened_by(shown, "1..2") == 2 * 9
        assert opened_by(shown, "1..3") == 8 + 2  # those of 3, and the pair that differs
        assert opened_by(shown, "2..3") == 2
    assert len(list((served.cache / "layers").glob("*.digests"))) == 3
    for kept in (*(served.cache / "images").glob("*.changed-*"), *(served.cache / "images").glob("*.same-*")):
        kept.unlink()
    shown = served.show(store=CountingStore)
    assert opened_by(shown, "1..2") == 2
    assert shown.names("app/.diff/1..2/changed") == ["own"]
    shown.__exit__(None, None, None)
    digests = next((served.cache / "layers").glob("*.digests"))
    digests.write_bytes(digests.read_bytes()[:-1] + b"?")
    assert [problem.path for problem in verify(served.cache, drop=True)] == [digests]
