"""A tag that moves takes nothing away from the processes that are inside the image that it named."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from regfs.errors import AccessDenied, NotFound, WouldBlock
from regfs.model.names import RepositoryName
from regfs.process.waiting.deadline import NON_BLOCKING, under
from regfs.tree.node import FOREVER
from tests.support.fault_server import reply
from tests.support.images import BuiltImage, file, image_of, layer
from tests.support.served import Served
from tests.support.shown import Shown

INSIDE = "/team/app/1/rootfs/etc"


def image(content: str) -> BuiltImage:
    return image_of(layer(file("version", content.encode()), file(f"only-in-{content}")))


class Users:
    """Says which directories are in use, and counts how often it is asked."""

    def __init__(self, *used: str) -> None:
        self.used: Collection[str] | None = used
        self.asked = 0

    def __call__(self) -> Collection[str] | None:
        self.asked += 1
        return self.used


def shown_with(served: Served, users: Users) -> tuple[Shown, BuiltImage]:
    """Return a tree whose tag 1 was looked into, and the image that it named then."""
    old = served.push("team/app", "1", image("old"))
    shown = served.show(tag_ttl_s=0.0, used_directories=users)
    assert shown.read("team/app/1/rootfs/version") == b"old"
    assert shown.read("team/app/1/digest") == f"{old.digest}\n".encode()
    return shown, old


def refuse(served: Served, status: int) -> None:
    """Let the registry refuse the repository, and all that could lie below it."""
    served.server.on("*", "/v2/team/app/", reply(status))


def test_a_tag_that_moves_shows_its_old_image_whole_while_it_is_in_use(served: Served) -> None:
    users = Users(INSIDE)
    shown, old = shown_with(served, users)
    before = shown.find("team/app/1/rootfs").node
    served.push("team/app", "1", image("new"))
    assert shown.find("team/app/1/rootfs").node == before
    assert shown.read("team/app/1/digest") == f"{old.digest}\n".encode()
    assert shown.names("team/app/1/rootfs") == ["only-in-old", "version"]
    assert shown.read("team/app/1/manifest.json") == old.manifest
    users.used = ()
    assert shown.read("team/app/1/rootfs/version") == b"new"
    assert shown.names("team/app/1/rootfs") == ["only-in-new", "version"]


def test_what_is_shown_for_those_inside_holds_for_moments_only(served: Served) -> None:
    shown, _ = shown_with(served, Users(INSIDE))
    served.push("team/app", "1", image("new"))
    assert shown.find("team/app/1/rootfs").valid_s <= 1.0 < FOREVER


@pytest.mark.parametrize(("status", "error"), [(403, AccessDenied), (404, NotFound)])
def test_a_tag_that_is_refused_or_gone_stays_while_it_is_in_use(
    served: Served, status: int, error: type[Exception]
) -> None:
    users = Users(INSIDE)
    shown, old = shown_with(served, users)
    tag, rootfs = shown.find("team/app/1").node, shown.find("team/app/1/rootfs").node
    refuse(served, status)
    assert (shown.find("team/app/1").node, shown.find("team/app/1/rootfs").node) == (tag, rootfs)
    assert shown.read("team/app/1/digest") == f"{old.digest}\n".encode()
    assert shown.names("team/app/1/rootfs") == ["only-in-old", "version"]
    users.used = ()
    with pytest.raises(error):
        shown.names("team/app/1")


def test_a_whole_repository_that_is_gone_stays_while_it_is_in_use(served: Served) -> None:
    users = Users(INSIDE)
    shown, _ = shown_with(served, users)
    repository = shown.find("team/app").node
    served.server.on("*", "/v2/", reply(404))
    assert shown.find("team/app").node == repository
    assert shown.names("team/app/1/rootfs") == ["only-in-old", "version"]


@pytest.mark.parametrize("elsewhere", ["/team/app/1", "/team/app/10/rootfs", "/team/app", "/team", "/"])
def test_what_is_not_below_the_tag_does_not_hold_its_image(served: Served, elsewhere: str) -> None:
    users = Users(elsewhere)
    shown, _ = shown_with(served, users)
    served.push("team/app", "1", image("new"))
    assert shown.read("team/app/1/rootfs/version") == b"new"
    assert users.asked == 1


def test_a_working_directory_that_is_the_tags_own_keeps_the_name_of_the_tag(served: Served) -> None:
    shown, _ = shown_with(served, Users("/team/app/1"))
    before = shown.find("team/app/1").node
    refuse(served, 404)
    assert shown.find("team/app/1").node == before


def test_where_it_cannot_be_told_what_is_in_use_nothing_is_taken_away(served: Served) -> None:
    users = Users()
    users.used = None
    shown, _ = shown_with(served, users)
    served.push("team/app", "1", image("new"))
    assert shown.read("team/app/1/rootfs/version") == b"old"


def test_nothing_is_looked_for_while_no_tag_has_moved(served: Served) -> None:
    users = Users(INSIDE)
    shown, _ = shown_with(served, users)
    for _ in range(3):
        assert shown.read("team/app/1/rootfs/version") == b"old"
        shown.names("team/app/1")
    with pytest.raises(NotFound):
        shown.find("team/app/no-such-tag")
    assert users.asked == 0


def test_a_thread_that_may_not_wait_does_not_look_for_processes_inside(served: Served) -> None:
    users = Users(INSIDE)
    old = served.push("team/app", "1", image("old"))
    shown = served.show(tag_ttl_s=60.0, used_directories=users)
    tag = shown.find("team/app/1").node
    assert shown.read("team/app/1/digest") == f"{old.digest}\n".encode()
    served.push("team/app", "1", image("new"))
    shown.repositories.refresh()
    repository = shown.repositories.repository(RepositoryName(served.server.address, "team/app"))
    assert repository.tags.resolve("1").digest != old.digest
    with under(NON_BLOCKING), pytest.raises(WouldBlock):
        shown.tree.lookup(tag, b"digest")
    assert users.asked == 0


def test_the_newer_digest_is_told_beside_the_one_that_is_shown(served: Served) -> None:
    users = Users(INSIDE)
    shown, old = shown_with(served, users)
    tag = shown.find("team/app/1").node
    assert b"user.regfs.newer" not in shown.tree.xattrs(tag)
    new = served.push("team/app", "1", image("new"))
    shown.read("team/app/1/digest")
    told = shown.tree.xattrs(tag)
    assert told[b"user.regfs.digest"] == str(old.digest).encode()
    assert told[b"user.regfs.newer"] == str(new.digest).encode()
    assert told[b"user.regfs.path"].endswith(f"/team/app/@sha256-{old.digest.encoded}".encode())
    users.used = ()
    shown.read("team/app/1/digest")
    told = shown.tree.xattrs(tag)
    assert told[b"user.regfs.digest"] == str(new.digest).encode()
    assert b"user.regfs.newer" not in told


def test_the_path_that_a_tag_tells_leads_to_its_image(served: Served) -> None:
    shown, _ = shown_with(served, Users())
    path = shown.tree.xattrs(shown.find("team/app/1").node)[b"user.regfs.path"]
    served.push("team/app", "1", image("new"))
    assert shown.read(path + b"/rootfs/version") == b"old"


def test_a_tag_that_moved_under_users_is_told_once(served: Served) -> None:
    users = Users(INSIDE)
    shown, old = shown_with(served, users)
    new = served.push("team/app", "1", image("new"))
    for _ in range(3):
        shown.read("team/app/1/digest")
    [line] = shown.journal.text().splitlines()
    assert f"team/app:1 moved to {new.digest}; {old.digest} is still in use below /team/app/1" in line
    assert " x1 " in line


def test_a_tag_that_moves_back_is_as_if_it_had_not_moved(served: Served) -> None:
    users = Users(INSIDE)
    shown, _ = shown_with(served, users)
    served.push("team/app", "1", image("new"))
    assert shown.read("team/app/1/rootfs/version") == b"old"
    served.push("team/app", "1", image("old"))
    asked = users.asked
    assert shown.read("team/app/1/rootfs/version") == b"old"
    assert users.asked == asked
    assert b"user.regfs.newer" not in shown.tree.xattrs(shown.find("team/app/1").node)


def test_nothing_is_remembered_of_a_tag_that_the_kernel_let_go(served: Served) -> None:
    users = Users(INSIDE)
    shown, _ = shown_with(served, users)
    tag = shown.find("team/app/1").node
    shown.tree.forget(tag, 1000)
    served.push("team/app", "1", image("new"))
    assert shown.read("team/app/1/rootfs/version") == b"new"
    assert users.asked == 0
