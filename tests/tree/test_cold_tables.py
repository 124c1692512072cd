"""A rootfs whose layers are not here yet: naming it waits for its real attributes, listing what it is in does not."""

from __future__ import annotations

import stat

import pytest

from regfs.errors import AccessDenied, BadContent, RegfsError, RegistryUnavailable, WouldBlock
from regfs.model.attributes import Attributes
from regfs.process.waiting.deadline import NON_BLOCKING, under
from tests.support.fault_server import Action, reply, reset
from tests.support.images import BuiltImage, directory, file, image_of, layer
from tests.support.served import Served
from tests.support.shown import Shown

MTIME_NS = 1_234_567_890 * 10**9
PLACES = {"app/1": b"rootfs", "app/1/layers/0": b"tree"}


def image() -> BuiltImage:
    """Return an image whose root directory is like no other."""
    root = directory(".", mode=0o1751, uid=12, gid=34, mtime_ns=MTIME_NS)
    return image_of(layer(root, file("a", b"content"), directory("d"), directory("e")))


def fetched(served: Served) -> list[str]:
    """Return the layers that were asked for."""
    return served.server.paths("GET.*blobs")[1:]  # the config comes first


def is_real(attributes: bytes) -> bool:
    found = Attributes.unpack(attributes[8:])
    owner = (found.uid, found.gid)
    return (stat.S_IMODE(found.mode), *owner, found.mtime_ns, found.nlink) == (0o1751, 12, 34, MTIME_NS, 4)


@pytest.mark.parametrize("place", PLACES)
def test_a_look_up_waits_for_the_real_attributes(served: Served, place: str) -> None:
    served.push("app", "1", image())
    shown = served.show()
    parent = shown.find(place).node
    shown.names(place)
    with under(NON_BLOCKING), pytest.raises(WouldBlock):
        shown.tree.lookup(parent, PLACES[place])
    assert shown.tree._slots.all() == []
    assert is_real(shown.tree.lookup(parent, PLACES[place]).attributes)
    with under(NON_BLOCKING):
        assert is_real(shown.tree.lookup(parent, PLACES[place]).attributes)


@pytest.mark.parametrize("place", PLACES)
def test_a_listing_asks_for_no_layer_and_what_it_tells_holds_for_a_moment(served: Served, place: str) -> None:
    served.push("app", "1", image())
    shown = served.show()
    shown.names(place)
    with under(NON_BLOCKING):
        listed = shown.listed(place, PLACES[place])
    assert fetched(served) == []
    assert not is_real(listed.attributes)
    assert 0 < listed.valid_s <= 1
    assert is_real(shown.tree.attributes(listed.node).attributes)
    found = shown.tree.lookup(shown.find(place).node, PLACES[place])
    assert (found.node, found.attributes[:8]) == (listed.node, listed.attributes[:8])
    assert is_real(shown.listed(place, PLACES[place]).attributes)


def test_extended_attributes_are_no_reason_to_fetch_what_was_only_listed(served: Served) -> None:
    served.push("app", "1", image())
    shown = served.show()
    shown.names("app/1")
    assert shown.tree.xattrs(shown.listed("app/1", b"rootfs").node) == {}
    assert fetched(served) == []


def test_a_program_that_goes_in_after_a_listing_waits_and_the_kernel_is_to_forget_what_was_listed(
    served: Served,
) -> None:
    served.push("app", "1", image())
    shown = served.show()
    node = shown.listed("app/1", b"rootfs").node
    with under(NON_BLOCKING), pytest.raises(WouldBlock):
        shown.tree.enter(node)
    assert shown.tree.enter(node)
    assert not shown.tree.enter(node)
    assert is_real(shown.tree.attributes(node).attributes)


def test_a_listing_of_a_known_image_tells_the_real_attributes(served: Served) -> None:
    served.push("app", "1", image())
    served.show().find("app/1/rootfs")
    shown = served.show()
    shown.names("app/1")
    with under(NON_BLOCKING):
        listed = shown.listed("app/1", b"rootfs")
    assert is_real(listed.attributes)
    assert not shown.tree.enter(listed.node)


def test_look_ups_and_listings_are_both_counted(served: Served) -> None:
    served.push("app", "1", image())
    shown = served.show()
    node = shown.listed("app/1", b"rootfs").node
    assert shown.listed("app/1", b"rootfs").node == node
    assert shown.find("app/1/rootfs").node == node
    shown.tree.forget(node, 2)
    assert is_real(shown.tree.attributes(node).attributes)
    shown.tree.forget(node, 1)
    assert shown.tree._slots.all() == []


FAULTS: list[tuple[Action, type[RegfsError]]] = [
    (reply(404), BadContent),
    (reply(403), AccessDenied),
    (reset(), RegistryUnavailable),
]


@pytest.mark.parametrize(("fault", "error"), FAULTS, ids=["missing", "denied", "unreachable"])
def test_a_rootfs_that_cannot_be_made_fails_by_its_name_and_is_listed_all_the_same(
    served: Served, fault: Action, error: type[RegfsError]
) -> None:
    built = served.push("app", "1", image())
    shown = served.show()
    shown.names("app/1")
    served.server.on("GET", str(built.layers[0].digest), fault)
    for path in ("app/1/rootfs", "app/1/layers/0/tree"):
        with pytest.raises(error):
            shown.find(path)
    assert "rootfs" in shown.names("app/1")
    assert not is_real(shown.listed("app/1", b"rootfs").attributes)
    served.server.heal()
    assert is_real(shown.find("app/1/rootfs").attributes)


def test_the_attributes_of_a_rootfs_that_was_there_stay_while_it_is_held(served: Served, shown_once: Shown) -> None:
    node = shown_once.find("app/1/rootfs").node
    served.server.on("GET", "", reply(403))
    for kept in shown_once.tree._slots.all():
        kept.tree = None
    for path in served.cache.rglob("*.merged"):
        path.unlink()
    assert is_real(shown_once.tree.attributes(node).attributes)
    assert is_real(shown_once.tree.lookup(shown_once.find("app/1").node, b"rootfs").attributes)


@pytest.fixture
def shown_once(served: Served) -> Shown:
    """A tree of `app/1`."""
    served.push("app", "1", image())
    return served.show()
