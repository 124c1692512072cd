"""Tags move, registries come and go: a process stays in its image, and what was seen once can be seen again."""

from __future__ import annotations

import pytest

from regfs.errors import AccessDenied, NotFound, Offline, RegistryUnavailable
from tests.support.fault_server import Response, Seen
from tests.support.images import BuiltImage, file, image_of, layer
from tests.support.served import Served
from tests.support.shown import Shown


def image(content: str) -> BuiltImage:
    return image_of(layer(file("file", content.encode())))


class Always:
    """An application that gives one answer to everything."""

    def __init__(self, status: int) -> None:
        self.status = status

    def respond(self, seen: Seen) -> Response:
        return Response(self.status)


def read(shown: Shown, node: int) -> bytes:
    opened = shown.tree.open(node)
    try:
        return opened.read_at(0, 1000)
    finally:
        opened.close()


def test_a_process_in_an_image_stays_there_when_its_tag_moves(served: Served) -> None:
    served.push("app", "1", image("old"))
    shown = served.show(tag_ttl_s=0.0)
    directory = shown.find("app/1/rootfs").node
    file_node = shown.tree.lookup(directory, b"file").node
    served.push("app", "1", image("new"))
    assert shown.read("app/1/rootfs/file") == b"new"
    assert read(shown, shown.tree.lookup(directory, b"file").node) == b"old"
    assert read(shown, file_node) == b"old"


def test_f67_a_tag_that_flips_gives_each_image_its_own_inode_numbers(served: Served) -> None:
    inodes: dict[str, tuple[int, ...]] = {}
    shown = served.show(tag_ttl_s=0.0)
    for content in ("a", "b", "a", "b"):
        served.push("app", "1", image(content))
        seen = (shown.inode("app/1/rootfs"), shown.inode("app/1/rootfs/file"), shown.inode("app/1/manifest.json"))
        assert inodes.setdefault(content, seen) == seen
        assert shown.read("app/1/rootfs/file") == content.encode()
    assert not set(inodes["a"]) & set(inodes["b"])


def test_a_tag_s_directory_stays_the_same_node_when_it_moves(served: Served) -> None:
    served.push("app", "1", image("old"))
    shown = served.show(tag_ttl_s=0.0)
    before = shown.find("app/1").node
    served.push("app", "1", image("new"))
    assert shown.find("app/1").node == before


def test_what_lies_below_a_moved_tag_is_valid_no_longer_than_the_tag_s_answer(served: Served) -> None:
    served.push("app", "1", image("old"))
    shown = served.show(tag_ttl_s=30.0)
    shown.names("app/1/rootfs")
    assert shown.find("app/1/rootfs").valid_s <= 30.0
    assert shown.find("app/1/digest").valid_s <= 30.0
    assert shown.find("app/1/rootfs/file").valid_s == float("inf")


def test_f66_a_deleted_tag_is_gone_from_look_ups_and_listings_and_stays_for_a_process_in_it(served: Served) -> None:
    served.push("app", "1", image("old"))
    served.push("app", "2", image("other"))
    shown = served.show(tag_ttl_s=0.0)
    assert shown.names("app") == ["1", "2"]
    directory = shown.find("app/1/rootfs").node
    assert read(shown, shown.tree.lookup(directory, b"file").node) == b"old"
    del served.registry.repository("app").tags["1"]
    with pytest.raises(NotFound):
        shown.find("app/1")
    assert shown.names("app") == ["2"]
    assert read(shown, shown.tree.lookup(directory, b"file").node) == b"old"


def test_a_look_up_that_finds_a_listed_tag_missing_lets_the_listing_be_asked_again(served: Served) -> None:
    served.push("app", "1", image("old"))
    served.push("app", "2", image("other"))
    shown = served.show()
    assert shown.names("app") == ["1", "2"]
    del served.registry.repository("app").tags["1"]
    with pytest.raises(NotFound):
        shown.read("app/1/digest")
    assert shown.names("app") == ["2"]


def test_an_image_that_was_deleted_under_a_remembered_answer_leads_to_what_the_tag_names_now(served: Served) -> None:
    old = served.push("app", "1", image("old"))
    shown = served.show()
    assert shown.read("app/1/digest") == f"{old.digest}\n".encode()
    new = served.push("app", "1", image("new"))
    del served.registry.repository("app").manifests[str(old.digest)]
    assert shown.read("app/1/rootfs/file") == b"new"
    assert shown.read("app/1/digest") == f"{new.digest}\n".encode()


def test_a_deleted_image_goes_on_from_the_cache_by_digest(served: Served) -> None:
    old = served.push("app", "1", image("old"))
    shown = served.show()
    assert shown.read(f"app/{old.digest}/rootfs/file") == b"old"
    served.registry.repositories.pop("app")
    again = served.show()
    assert again.read(f"app/{old.digest}/rootfs/file") == b"old"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_f28_a_registry_that_fails_leaves_what_was_seen_and_the_failure_clears_by_itself(
    served: Served, status: int
) -> None:
    served.push("app", "1", image("old"))
    served.push("app", "unseen", image("unseen"))
    shown = served.show(tag_ttl_s=0.0)
    assert shown.names("app") == ["1", "unseen"]
    assert shown.read("app/1/rootfs/file") == b"old"
    registry, served.server.application = served.server.application, Always(status)
    assert shown.names("app") == ["1", "unseen"]
    assert shown.read("app/1/rootfs/file") == b"old"
    with pytest.raises(Exception) as failed:
        shown.find("app/unseen/digest")
    assert type(failed.value).__name__ == ("RateLimited" if status == 429 else "RegistryUnavailable")
    assert shown.stats.value("registry.stale_answers") >= 2
    served.server.application = registry
    served.push("app", "1", image("new"))
    assert shown.read("app/1/rootfs/file") == b"new"
    assert shown.read("app/unseen/rootfs/file") == b"unseen"


def test_f70_a_registry_that_is_down_at_the_mount_leaves_what_an_earlier_mount_saw(served: Served) -> None:
    served.push("app", "1", image("seen"))
    assert served.show().read("app/1/rootfs/file") == b"seen"
    served.server.stop()
    shown = served.show(tag_ttl_s=0.0)
    assert "app" in shown.names()
    assert shown.names("app") == ["1"]
    assert shown.read("app/1/rootfs/file") == b"seen"
    assert shown.read("app/1/manifest.json")
    with pytest.raises(RegistryUnavailable):
        shown.read("app/2/digest")


def test_offline_asks_no_server_and_serves_what_is_cached(served: Served) -> None:
    seen = served.push("app", "1", image("seen"))
    served.push("app", "2", image("not seen"))
    online = served.show()
    assert online.names("app") == ["1", "2"]
    assert online.read("app/1/rootfs/file") == b"seen"
    asked = len(served.server.seen)
    shown = served.show(offline=True, tag_ttl_s=0.0)
    assert shown.names("app") == ["1", "2"]
    assert shown.read("app/1/rootfs/file") == b"seen"
    assert shown.read(f"app/{seen.digest}/rootfs/file") == b"seen"
    with pytest.raises(Offline):
        shown.read("app/2/digest")
    with pytest.raises(Offline):
        shown.find("never-seen/1/digest")
    assert len(served.server.seen) == asked


def test_f26_a_refusal_is_not_answered_from_memory(served: Served) -> None:
    served.push("app", "1", image("old"))
    shown = served.show(tag_ttl_s=0.0)
    assert shown.read("app/1/digest")
    served.server.application = Always(403)
    with pytest.raises(AccessDenied):
        shown.read("app/1/digest")


def test_a_refusal_that_is_lifted_is_lifted_for_a_process_that_holds_the_directory(served: Served) -> None:
    registry, served.server.application = served.server.application, Always(403)
    shown = served.show(tag_ttl_s=0.0)
    held = shown.find("team/app").node
    with pytest.raises(AccessDenied):
        shown.tree.lookup(held, b"digest")
    served.server.application = registry
    served.push("team", "app", image("a tag after all"))
    assert shown.find("team/app").node == held
    assert read(shown, shown.tree.lookup(held, b"digest").node).startswith(b"sha256:")


def test_how_old_an_answer_is_and_what_it_was_is_told_without_a_request(served: Served) -> None:
    built = served.push("app", "1", image("old"))
    shown = served.show()
    assert shown.names("app") == ["1"]
    node = shown.find("app/1").node
    asked = len(served.server.seen)
    assert shown.tree.xattrs(node) == {}
    assert len(served.server.seen) == asked
    shown.read("app/1/digest")
    told = shown.tree.xattrs(node)
    assert told[b"user.regfs.digest"] == str(built.digest).encode()
    assert told[b"user.regfs.checked"].endswith(b"Z")
    assert len(told[b"user.regfs.checked"]) == len("2020-01-01T00:00:00Z")


def test_looking_up_many_listed_tags_asks_nothing(served: Served) -> None:
    built = image("one for all")
    for number in range(200):
        served.push("app", f"t{number}", built)
    shown = served.show()
    names = shown.names("app")
    asked = len(served.server.seen)
    for name in names:
        assert shown.attributes(f"app/{name}").mode == 0o040555
    assert len(served.server.seen) == asked


def test_a_missing_tag_below_a_registry_that_refuses_what_it_lacks_is_missing_and_not_refused(served: Served) -> None:
    served.push("team/app", "1", image("one"))
    registry = served.server.application

    class Refusing:
        """Docker Hub and GHCR answer 401 or 403 for a repository that does not exist."""

        def respond(self, seen: Seen) -> Response:
            return Response(403) if "/app/no" in seen.path else registry.respond(seen)

    served.server.application = Refusing()
    with pytest.raises(NotFound):
        served.show().find("team/app/no-such-tag")


def test_attachment_tags_are_not_listed_but_open(served: Served) -> None:
    built = served.push("app", "1", image("one"))
    signature = f"sha256-{built.digest.encoded}.sig"
    served.push("app", signature, image("a signature"))
    shown = served.show()
    assert shown.names("app") == ["1"]
    assert shown.read(f"app/{signature}/rootfs/file") == b"a signature"
