"""ByteRoom: work waits for the memory that others take."""

from __future__ import annotations

import threading

import pytest

from regfs.errors import WouldBlock
from regfs.process.waiting.byte_room import ByteRoom
from regfs.process.waiting.deadline import NON_BLOCKING, under


def test_work_that_finds_no_room_waits_for_its_turn_and_small_work_does_not_overtake() -> None:
    room, began, order = ByteRoom(10), threading.Event(), list[int]()

    def work(size: int) -> None:
        with room.taken(size):
            order.append(size)

    with room.taken(6):
        big = threading.Thread(target=work, args=(8,))
        big.start()
        while not room._queue:
            began.wait(0.001)
        small = threading.Thread(target=work, args=(3,))
        small.start()
        while len(room._queue) < 2:
            began.wait(0.001)
        assert order == []
    big.join()
    small.join()
    assert order == [8, 3]  # not both at once


def test_work_larger_than_the_room_takes_all_of_it_and_a_thread_that_may_not_wait_goes() -> None:
    room = ByteRoom(10)
    with room.taken(1 << 40), under(NON_BLOCKING), pytest.raises(WouldBlock), room.taken(1):
        pass
    with room.taken(10):
        pass
