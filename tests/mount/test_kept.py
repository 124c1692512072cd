"""What outlives a daemon: another one that maps the same memory finds every request, open file and node."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from regfs.errors import BadHandle, MountFailure
from regfs.mount.kernel import abi
from regfs.mount.kernel.abi import Opcode
from regfs.mount.kernel.kept.node_records import NodeRecords
from regfs.mount.kernel.kept.open_files import KeptFile, KeptHandles
from regfs.mount.kernel.kept.pending import DONE_AT, Left, Pending
from regfs.mount.kernel.kept.state_file import StateFile
from regfs.mount.kernel.notifications import Notifications
from regfs.mount.kernel.state import SessionState
from regfs.mount.kernel.unanswered_requests import answer_left
from regfs.tree.node import OpenBytes
from regfs.tree.snapshot import KeptNode, Snapshot, TagImage
from tests.mount.memory_tree import SuiteTree

NODE = KeptNode(1 << 63 | 5, 0, "/library/debian", "", 1, "debian", 2)
TABLE = KeptNode(7 << 42, 3, "/library/debian/12@sha256:aa/rootfs", "/library/debian/12", 9, None, 1, "sha256:bb")
IMAGE = TagImage(1 << 63 | 6, "sha256:cc", "application/vnd.oci.image.manifest.v1+json", 700)


@pytest.fixture
def state() -> StateFile:
    return StateFile.new()


def another(state: StateFile) -> StateFile:
    """Return the state as another process maps it."""
    return StateFile(os.dup(state.descriptor))


def read_into(buffer: memoryview, opcode: int, unique: int, body: bytes) -> None:
    """Put a request into *buffer*, as the kernel does."""
    request = abi.IN_HEADER.pack(40 + len(body), opcode, unique, 5, 0, 0, 0, 0, 0) + body
    buffer[: len(request)] = request


def without_slots(left: list[Left]) -> list[tuple[int, int, int, bytes]]:
    return sorted(each[:4] for each in left)


def test_requests_that_were_read_and_not_answered_are_found(state: StateFile) -> None:
    pending = Pending(state)
    first, second, third, *_ = pending.buffers()
    read_into(first, Opcode.LOOKUP, 10, b"name\0")
    read_into(second, Opcode.GETATTR, 12, b"")
    second[DONE_AT] = 1
    read_into(third, Opcode.RELEASE, 14, bytes(24))
    slot = pending.keep(Opcode.READ, 16, 8, b"x" * 40)
    pending.done(pending.keep(Opcode.READ, 18, 8, b"y" * 40))
    assert slot
    left = Pending(another(state)).left()
    assert without_slots(left) == [
        (Opcode.LOOKUP, 10, 5, b"name\0"),
        (Opcode.READ, 16, 8, b"x" * 40),
        (Opcode.RELEASE, 14, 5, bytes(24)),
    ]
    assert all(each.slot for each in left)


def test_a_request_that_was_handed_over_just_before_the_end_is_found_once(state: StateFile) -> None:
    pending = Pending(state)
    read_into(pending.buffers()[0], Opcode.OPEN, 20, bytes(8))
    pending.keep(Opcode.OPEN, 20, 5, bytes(8))
    assert without_slots(Pending(another(state)).left()) == [(Opcode.OPEN, 20, 5, bytes(8))]


def test_what_is_found_stays_until_it_is_answered(state: StateFile) -> None:
    read_into(Pending(state).buffers()[0], Opcode.OPEN, 20, bytes(8))
    for _ in range(3):
        pending = Pending(another(state))
        (found,) = pending.left()
    pending.done(found.slot)
    assert Pending(another(state)).left() == []


def test_a_request_keeps_its_age(state: StateFile) -> None:
    slot = Pending(state).keep(Opcode.LOOKUP, 30, 5, b"name\0")
    (since,) = struct.unpack_from("<Q", state.memory, slot)
    struct.pack_into("<Q", state.memory, slot, since - 100_000)
    for _ in range(2):
        assert 100 <= Pending(another(state)).left()[0].age_s < 200


class Answered:
    """Takes answers, and hands nothing over."""

    def __init__(self) -> None:
        self.errnos: dict[int, int] = {}
        self.ages: dict[int, float] = {}

    def answer_error(self, unique: int, number: int) -> None:
        self.errnos[unique] = number

    def answer_or_hand_over(
        self, _opcode: int, unique: int, _node: int, _body: bytes, _slot: int, age_s: float
    ) -> bool:
        self.ages[unique] = age_s
        return True


def answered(state: StateFile, left: list[Left]) -> Answered:
    """Return how a session answers *left* whose requests may wait for ten seconds."""
    answers = Answered()
    answer_left(left, SessionState(SuiteTree(), Notifications(), state), answers, timeout_s=10.0)
    return answers


def test_what_has_waited_for_too_long_is_given_up_and_the_rest_waits_on(state: StateFile) -> None:
    left = [Left(Opcode.LOOKUP, 1, 5, b"a\0", 0, 4.0), Left(Opcode.LOOKUP, 2, 5, b"b\0", 0, 10.5)]
    answers = answered(state, left)
    assert (answers.errnos, answers.ages) == ({2: errno.ETIMEDOUT}, {1: 4.0})


def test_daemons_that_end_at_once_again_and_again_answer_nothing_of_what_was_left(state: StateFile) -> None:
    state._write(104, 8)  # the holder counts them
    answers = answered(state, [Left(Opcode.LOOKUP, 1, 5, b"a\0", 0, 1.0)])
    assert (answers.errnos, answers.ages) == ({1: errno.EIO}, {})


def test_a_close_that_the_last_daemon_has_done_is_answered_again(state: StateFile) -> None:
    answers = answered(state, [Left(Opcode.RELEASE, 1, 5, bytes(24), 0, 0.0)])
    assert answers.errnos == {1: 0}


def test_more_requests_than_there_is_room_for_are_not_kept_and_harm_nothing(state: StateFile) -> None:
    pending = Pending(state)
    slots = [pending.keep(Opcode.READ, unique, 5, b"") for unique in range(9000)]
    assert slots.count(0) == 9000 - 8192
    assert len(set(slots)) == 8193
    assert pending.keep(Opcode.SETXATTR, 1, 5, bytes(4000)) == 0
    for slot in slots:
        pending.done(slot)
    assert Pending(another(state)).left() == []


def test_a_thread_that_hangs_keeps_its_buffers(state: StateFile) -> None:
    pending = Pending(state)
    hanging = pending.buffers()
    read_into(hanging[0], Opcode.READ, 40, bytes(40))
    others = pending.buffers()
    read_into(others[0], Opcode.READ, 42, bytes(40))
    assert [each[1] for each in without_slots(Pending(another(state)).left())] == [40, 42]


def answer(handle: int, flags: int = 0, backing_id: int = 0) -> bytes:
    return abi.OPEN_OUT.pack(handle, flags, backing_id)


def test_open_files_are_found_and_no_handle_is_given_out_twice(state: StateFile) -> None:
    handles = KeptHandles(state)
    first, second, third = (handles.add(OpenBytes(b"")) for _ in range(3))
    handles.record(70, 1, answer(first, abi.FOPEN_PASSTHROUGH, 9))
    handles.record(71, 2, answer(second))
    handles.record(72, 3, answer(third))
    handles.take(second)
    handles.closed(second)
    state._write(24, 1)  # the holder counts restarts
    later = KeptHandles(another(state))
    found = list(later.read())
    assert found == [KeptFile(70, 1, abi.FOPEN_PASSTHROUGH, 9, first), KeptFile(72, 3, 0, 0, third)]
    for file in found:
        later.restore(file.handle, OpenBytes(b""))
    numbers = {later.add(OpenBytes(b"")) for _ in range(100)}
    assert not numbers & {first, second, third}
    later.take(first)
    later.closed(first)
    with pytest.raises(BadHandle):
        later.take(first)


def test_a_handle_that_the_kernel_was_not_told_of_leaves_no_record(state: StateFile) -> None:
    handles = KeptHandles(state)
    handles.add(OpenBytes(b""))
    assert list(KeptHandles(another(state)).read()) == []


def plain(snapshot: Snapshot) -> Snapshot:
    """Return *snapshot* without the numbers of records."""
    nodes = sorted(each._replace(record=0) for each in snapshot.nodes)
    return snapshot._replace(nodes=tuple(nodes), images=tuple(each._replace(record=0) for each in snapshot.images))


def test_nodes_and_images_of_tags_are_found_with_their_last_values(state: StateFile) -> None:
    records = NodeRecords(state)
    node, table = records.keep(NODE), records.keep(TABLE)
    records.keep(IMAGE)
    records.drop(records.keep(NODE._replace(node=99)))
    records.count(node, 5)
    records.free_slot(8, 3)
    assert 0 not in (node, table)
    found = NodeRecords(another(state)).read()
    assert plain(found) == Snapshot((TABLE, NODE._replace(lookups=5)), (IMAGE,), 8, 3)
    assert {each.record for each in found.nodes} == {node, table}


def test_of_two_records_for_one_node_the_later_one_counts(state: StateFile) -> None:
    """A daemon may be killed between the new record and the end of the old one."""
    records = NodeRecords(state)
    records.drop(records.keep(IMAGE))  # the next record takes the place of this one, before the first
    records.keep(NODE)
    records.keep(NODE._replace(tag="/library/debian"))
    assert plain(NodeRecords(another(state)).read()).nodes == (NODE._replace(tag="/library/debian"),)
    assert len(NodeRecords(another(state)).read().nodes) == 1


def test_the_place_of_a_record_that_was_dropped_is_used_again(state: StateFile) -> None:
    records = NodeRecords(state)
    for _ in range(3):
        first, long = records.keep(NODE), records.keep(NODE._replace(key="k" * 3000))
        records.drop(first)
        records.drop(long)
    later = NodeRecords(another(state))
    assert later.read().nodes == ()
    assert {later.keep(NODE), later.keep(NODE._replace(key="l" * 3000))} == {first, long}
    assert records.keep(NODE._replace(key="m" * 70_000)) == 0


def test_names_of_any_bytes_are_kept(state: StateFile) -> None:
    odd = NODE._replace(changing=os.fsdecode(b"\xff\xfe \n\"'"), key=os.fsdecode(b"/a\xff"))
    NodeRecords(state).keep(odd)
    assert plain(NodeRecords(another(state)).read()).nodes == (odd,)


def test_the_state_of_another_release_is_refused_with_its_version(state: StateFile) -> None:
    state._write(8, 77)
    with pytest.raises(MountFailure, match="version 77"):
        another(state)


def test_texts_are_whole_or_refused(state: StateFile) -> None:
    state.describe("é" * 1000)
    state.fail("x" * 5000)
    assert (another(state).description, len(another(state).failure)) == ("é" * 1000, 1016)
    with pytest.raises(MountFailure):
        state.describe("y" * 70_000)
