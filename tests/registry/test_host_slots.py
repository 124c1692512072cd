"""Slots: how many requests a host gets at once, and how the others wait."""

from __future__ import annotations

import threading

import pytest

from regfs.errors import Interrupted, RegistryTimeout, WouldBlock
from regfs.process.waiting.deadline import NON_BLOCKING, Deadline, under
from regfs.process.waiting.semaphore import Slots
from regfs.registry.http.host_slots import HostSlots


def test_a_slot_that_is_given_back_twice_is_free_once() -> None:
    slots = Slots(1)
    slot = slots.take()
    slot.give_back()
    slot.give_back()
    slots.take()
    with under(Deadline(0.01)), pytest.raises(RegistryTimeout):
        slots.take()


def test_a_thread_that_gives_up_leaves_the_queue_to_the_next() -> None:
    slots = Slots(1)
    held = slots.take()
    for _ in range(3):
        with under(Deadline(0.01)), pytest.raises(RegistryTimeout):
            slots.take()
    held.give_back()
    with under(Deadline(60)):
        slots.take().give_back()


def test_a_waiting_thread_gets_the_slot_that_is_given_back() -> None:
    slots = Slots(1)
    held = slots.take()
    got = threading.Event()

    def wait() -> None:
        slots.take()
        got.set()

    thread = threading.Thread(target=wait)
    thread.start()
    held.give_back()
    thread.join(60)
    assert got.is_set()


def test_a_cancelled_thread_stops_waiting() -> None:
    slots = Slots(1)
    slots.take()
    deadline = Deadline()
    threading.Timer(0.02, deadline.cancel).start()
    with under(deadline), pytest.raises(Interrupted):
        slots.take()


def test_a_thread_that_may_not_wait_gets_no_slot() -> None:
    with under(NON_BLOCKING), pytest.raises(WouldBlock):
        HostSlots(documents=1, transfers=1).take("host", bulk=False)


def test_transfers_do_not_take_the_slots_of_documents_nor_hosts_each_others() -> None:
    slots = HostSlots(documents=1, transfers=1)
    with under(Deadline(60)):
        taken = [slots.take(host, bulk=bulk) for host in ("a", "b") for bulk in (False, True)]
    assert len(taken) == 4


def test_many_threads_never_have_more_slots_than_there_are() -> None:
    slots, lock = Slots(3), threading.Lock()
    present, most = [0], [0]

    def work() -> None:
        for _ in range(50):
            slot = slots.take()
            with lock:
                present[0] += 1
                most[0] = max(most[0], present[0])
            with lock:
                present[0] -= 1
            slot.give_back()

    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] <= 3


def test_idle_hosts_are_forgotten_and_busy_ones_are_not() -> None:
    slots = HostSlots(documents=1, transfers=1)
    held = slots.take("busy", bulk=False)
    for number in range(3000):
        slots.take(f"host{number}", bulk=False).give_back()
    with under(Deadline(0.01)), pytest.raises(RegistryTimeout):
        slots.take("busy", bulk=False)
    held.give_back()
    slots.take("busy", bulk=False)
