"""`.regfs/history/` and `TAG@TIME`: what a tag pointed to, as far as that was seen."""

from __future__ import annotations

import time

import pytest

from regfs.errors import NotFound, RegfsError
from regfs.images.named_images import image_named
from regfs.model.dates import moment_text
from regfs.model.digest import Digest
from regfs.model.names import RepositoryName, parse_reference
from regfs.store.references.references import TagRecord
from tests.support.images import BuiltImage, file, image_of, layer
from tests.support.served import Served
from tests.support.shown import Shown


def image(name: str) -> BuiltImage:
    return image_of(layer(file(name, name.encode())))


ONE, TWO = image("one"), image("two")


@pytest.fixture
def aged(served: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """A tag of which three answers were kept: an image ten days ago, another five days ago, none two days ago."""
    now = time.time
    for days, pushed in ((10, ONE), (5, TWO), (2, None)):
        if pushed is None:
            served.registry.repository("app").tags.pop("1")
        else:
            served.push("app", "1", pushed)
        with monkeypatch.context() as earlier:
            earlier.setattr(time, "time", lambda days=days: now() - days * 86_400)
            with served.show(tag_ttl_s=0.0) as shown:
                try:
                    shown.names("app/1/rootfs")
                except NotFound:
                    assert pushed is None
    served.push("app", "1", ONE)
    return served


def at(days: float) -> str:
    return moment_text(time.time() - days * 86_400)


def history(shown: Shown, served: Served, tag: str = "1") -> list[list[str]]:
    text = shown.read(f".regfs/history/{served.server.address}/app/{tag}").decode()
    return [line.split() for line in text.splitlines()]


def test_each_move_is_a_line_with_its_time_and_both_digests(aged: Served) -> None:
    shown = aged.show()
    shown.names("app/1")
    one, two = str(ONE.digest), str(TWO.digest)
    lines = history(shown, aged)
    assert [line[1:3] for line in lines] == [["-", one], [one, two], [two, "-"], ["-", one]]
    assert [line[3] == "-" for line in lines] == [True, False, False, True]
    assert lines[1][0][:10] == at(5)[:10]
    assert lines[1][3][:10] == at(10)[:10]
    assert shown.names(".regfs/history") == [aged.server.address]
    assert shown.names(f".regfs/history/{aged.server.address}/app") == ["1"]
    short = shown.find(".regfs/history/app/1")
    assert short.node != shown.find(f".regfs/history/{aged.server.address}/app/1").node
    assert history(shown, aged) == [line.split() for line in shown.read(".regfs/history/app/1").decode().splitlines()]
    for name in ("app/2", "other", f"{aged.server.address}/1"):
        with pytest.raises(NotFound):
            shown.find(f".regfs/history/{name}")


def test_a_time_opens_what_the_tag_pointed_to_then_without_a_request(aged: Served) -> None:
    shown = aged.show(offline=True)
    for days, name in ((10 - 1, "one"), (6, "one"), (5 - 0.1, "two"), (3, "two")):
        assert shown.names(f"app/1@{at(days)}/rootfs") == [name]
        assert shown.names(f"app/1@{at(days).replace(':', '')}/rootfs") == [name]
        assert shown.names(f"app:1@{at(days)}/rootfs") == [name]
    assert shown.names(f"app/1@{at(7)[:10]}/rootfs") == ["one"]
    assert shown.names(f"app/.diff/1@{at(9)}..1@{at(4)}/added") == ["two"]


@pytest.mark.parametrize(
    ("days", "why"),
    [(11, "was first seen at"), (1, "there was no such tag then"), (-1, "that time has not passed yet")],
)
def test_a_time_of_which_nothing_is_known_does_not_exist_and_errors_tell_why(
    aged: Served, days: float, why: str
) -> None:
    shown = aged.show(offline=True)
    with pytest.raises(NotFound, match=why):
        shown.find(f"app:1@{at(days)}")
    assert why in shown.read(".regfs/errors").decode()


def test_a_tag_that_was_never_looked_up_has_no_past(served: Served) -> None:
    served.push("app", "1", ONE)
    shown = served.show()
    with pytest.raises(NotFound, match="it was never looked up"):
        shown.find(f"app:1@{at(1)}")
    with pytest.raises(RegfsError):
        shown.find("app:1@2026-13-01")
    assert shown.names(".regfs/history") == []


def test_a_tag_that_an_older_release_has_looked_up_is_known_since_then(served: Served) -> None:
    served.push("app", "1", ONE)
    repository, checked = RepositoryName(served.server.address, "app"), time.time() - 86_400
    with served.show() as shown:
        references = shown.repositories._references
        references.keep_tag(repository, "1", TagRecord(ONE.digest, ONE.media_type, 1, checked))
        shown.names("app/1/rootfs")
        assert history(shown, served) == [[moment_text(checked), "-", str(ONE.digest), "-"]]


def test_what_serves_while_the_registry_is_away_is_no_answer_and_no_move(served: Served) -> None:
    served.push("app", "1", ONE)
    with served.show(tag_ttl_s=0.0) as shown:
        shown.names("app/1/rootfs")
        kept = history(shown, served)
    served.push("app", "1", TWO)
    with served.show(offline=True, tag_ttl_s=0.0) as shown:
        assert shown.names("app/1/rootfs") == ["one"]
        assert history(shown, served) == kept


def test_a_mount_that_takes_over_goes_on_in_a_past_image(aged: Served) -> None:
    first = aged.show()
    entry = first.find(f"app/1@{at(9)}/rootfs")
    kept = first.find(f".regfs/history/{aged.server.address}/app/1")
    second = aged.show()
    second.tree.restore(first.tree.snapshot())
    assert [each.name for each in second.tree.listing(entry.node).entries(0, 9)] == [b"one"]
    assert second.tree.attributes(kept.node).attributes


def test_a_time_is_read_in_references_and_printed_so_that_it_is_read_again() -> None:
    named = parse_reference("ghcr.io/org/app:v1@2026-11-01T00:00Z")
    assert named.repository == RepositoryName("ghcr.io", "org/app")
    assert (named.tag, named.digest) == ("v1", None)
    assert str(named) == "ghcr.io/org/app:v1@2026-11-01T00:00:00Z"
    assert parse_reference(str(named)) == named
    assert parse_reference("debian@2026-11-01").tag == "latest"
    assert parse_reference("debian:12@2026-11-01T0000Z").directory == "12@2026-11-01T000000Z"
    assert parse_reference(f"debian@{Digest.of(b'x').encoded[:12]}").at is None


def test_verbs_take_a_time(aged: Served) -> None:
    shown = aged.show(offline=True)
    reference = parse_reference(f"{aged.server.address}/app:1@{at(4)}")
    assert image_named(reference, shown.repositories, shown.images).digest == TWO.digest
