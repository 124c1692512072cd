"""Files of other owners than the image's: `--owner me`, `--subuid`."""

from __future__ import annotations

import pytest

from regfs.errors import NotFound
from regfs.model.attributes import Attributes
from regfs.model.node_id import ROOT
from regfs.tree.entry import INODE
from regfs.tree.owner import MappedOwner, OwnedTree, Owner
from tests.support.shown import Shown


def _attributes(packed: bytes) -> Attributes:
    return Attributes.unpack(packed[INODE.size :])


@pytest.fixture
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """A tree whose invented files belong to root."""
    return Shown(tmp_path_factory.mktemp("owned"), offline=True)


@pytest.mark.parametrize(
    ("owner", "ids"),
    [(Owner(1000, 100), (1000, 100)), (MappedOwner(lambda uid: uid + 7, lambda gid: gid + 8), (7, 8))],
)
def test_look_up_attributes_and_listing_tell_the_same_owner_and_all_else_as_it_is(
    shown: Shown, owner: Owner | MappedOwner, ids: tuple[int, int]
) -> None:
    with shown:
        plain = shown.app.tree
        tree = OwnedTree(plain, owner)
        control = tree.lookup(ROOT, b".regfs")
        found = tree.lookup(control.node, b"version")
        before = _attributes(plain.attributes(found.node).attributes)
        listed = {entry.name: entry for entry in tree.listing(control.node).entries(0, 100)}[b"version"]
        for packed in (found.attributes, tree.attributes(found.node).attributes):
            assert _attributes(packed) == before._replace(uid=ids[0], gid=ids[1])
            assert packed[: INODE.size] == plain.attributes(found.node).attributes[: INODE.size]
        assert _attributes(listed.attributes)[3:5] == ids
        assert tree.parent(found.node) == control.node
        with pytest.raises(NotFound):
            tree.lookup(control.node, b"no-such-name")
