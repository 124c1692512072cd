"""The slots of tables: what a node id of a rootfs/ means, and for how long."""

from __future__ import annotations

import struct

import pytest

from regfs.errors import CacheFailure, StaleNode
from regfs.model.node_id import LAST_SLOT, ROOT, SLOT_SHIFT
from regfs.mount.kernel.abi import Opcode
from regfs.mount.kernel.notifications import Notifications
from regfs.mount.kernel.requests import Requests
from regfs.mount.kernel.state import SessionState
from regfs.rootfs.file_tree import FileTree
from regfs.store.layers.content import Content, OpenContent
from regfs.store.tables.open_tables import OpenTables
from regfs.tree.inode_numbers import InodeNumbers
from regfs.tree.node import TableDirectory
from regfs.tree.table_slots import TableSlot, TableSlots
from tests.support.images import file, image_of, layer
from tests.support.served import Served
from tests.support.shown import Shown


def table(key: str) -> TableDirectory:
    def load() -> FileTree:
        raise AssertionError("no test here needs the table itself")

    return TableDirectory(key, key, load)


def slots_of(last_slot: int = LAST_SLOT) -> TableSlots:
    def open_content(_content: Content) -> OpenContent:
        raise AssertionError("no test here opens a file")

    return TableSlots(InodeNumbers(lambda _: 1), OpenTables(), open_content, last_slot=last_slot)


def number_of(slot: TableSlot) -> int:
    return slot.root >> SLOT_SHIFT


def test_a_node_id_that_was_forgotten_never_means_another_table() -> None:
    slots = slots_of()
    forgotten = set()
    for number in range(1000):
        slot = slots.admit(table(str(number % 3)), ROOT, None)
        assert slot.root not in forgotten
        assert slots.by_number[number_of(slot)] is slot
        forgotten.add(slot.root)
        slots.forget(slot.root, 1)
        assert number_of(slot) not in slots.by_number


def test_a_thousand_tables_at_once_have_slots_of_their_own_and_keep_them() -> None:
    slots = slots_of()
    admitted = [slots.admit(table(str(number)), ROOT, None) for number in range(1000)]
    assert len({slot.root for slot in admitted}) == 1000
    assert [slots.admit(table(str(number)), ROOT, None) for number in range(1000)] == admitted
    assert slots.admit(table("7"), ROOT, None).lookups == 3


def test_when_all_slots_were_used_those_in_use_stay_and_others_get_the_next_generation() -> None:
    slots = slots_of(last_slot=4)
    stays = slots.admit(table("stays"), ROOT, None)
    met = {(stays.root, stays.generation)}
    for number in range(20):
        slot = slots.admit(table(str(number)), ROOT, None)
        assert 1 <= number_of(slot) <= 4
        assert slot.root != stays.root
        assert (slot.root, slot.generation) not in met
        met.add((slot.root, slot.generation))
        slots.forget(slot.root, 1)
    assert slots.by_number[number_of(stays)] is stays
    assert LAST_SLOT > 1 << 20


def test_more_tables_at_once_than_there_are_slots_fail_instead_of_waiting_for_ever() -> None:
    slots = slots_of(last_slot=2)
    admitted = [slots.admit(table(str(number)), ROOT, None) for number in range(2)]
    with pytest.raises(CacheFailure):
        slots.admit(table("third"), ROOT, None)
    slots.forget(admitted[0].root, 1)
    assert slots.admit(table("third"), ROOT, None).root == admitted[0].root


def generation_told(requests: Requests, parent: int, name: bytes) -> int:
    """Return the generation in the answer to LOOKUP, and check that READDIRPLUS gives the same."""
    answer = requests.methods[Opcode.LOOKUP](parent, name + b"\0")
    assert answer is not None
    node, generation = struct.unpack_from("<QQ", answer)
    opened = requests.methods[Opcode.OPENDIR](parent, bytes(8))
    assert opened is not None
    read = struct.pack("<8sQI4xQI4x", opened[:8], 2, 1 << 16, 0, 0)
    listed = requests.methods[Opcode.READDIRPLUS](parent, read)
    assert listed is not None
    assert struct.unpack_from("<QQ", listed) == (node, generation)
    requests.methods[Opcode.RELEASEDIR](parent, opened)
    return int(generation)


def test_the_kernel_is_told_another_generation_of_a_node_id_that_means_another_table_now(served: Served) -> None:
    for number in range(3):
        served.push("app", str(number), image_of(layer(file("f", b"%d" % number))))
    shown: Shown = served.show()
    shown.tree._slots._last_slot = 1
    requests = Requests(shown.tree, SessionState(shown.tree, Notifications()))
    nodes, generations = set(), []
    for number in range(3):
        found = shown.find(f"app/{number}/rootfs")
        nodes.add(shown.tree.lookup(found.node, b"f").node)
        generations.append(generation_told(requests, found.node, b"f"))
        assert (shown.tree.attributes(found.node).generation, found.generation) == (generations[-1],) * 2
        shown.tree.forget(found.node, 1 << 20)
        with pytest.raises(StaleNode):
            shown.tree.attributes(found.node)
    assert len(nodes) == 1
    assert generations == [0, 1, 2]
