"""A ring hands each block to all readers, in order, and is filled again only where all have let go."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

from regfs.layers.ring_buffer import RingBuffer, private_memory

BLOCK = 4096


def test_every_reader_gets_all_that_was_given_in_order() -> None:
    ring = RingBuffer(private_memory(3 * BLOCK), BLOCK, readers=3)
    pieces = [random.Random(number).randbytes(1 + number * 37 % BLOCK) for number in range(200)]
    with ThreadPoolExecutor() as pool:
        read = [pool.submit(lambda reader: [bytes(block) for block in ring.blocks(reader)], n) for n in range(3)]
        for piece in pieces:
            number, block = ring.begin()
            block[: len(piece)] = piece
            ring.give(number, len(piece))
        ring.end()
        assert [each.result() for each in read] == [pieces] * 3


def test_a_block_is_filled_again_when_the_last_reader_has_let_go_of_it() -> None:
    ring = RingBuffer(private_memory(BLOCK), BLOCK, readers=2)
    number, _ = ring.begin()
    ring.give(number, 10)
    ring.end()
    begun = threading.Event()

    def begin() -> None:
        ring.begin()
        begun.set()

    filler = threading.Thread(target=begin)
    filler.start()
    ring.drain(0)
    assert not begun.is_set()
    ring.drain(1)
    filler.join(60)
    assert begun.is_set()


def test_a_block_that_nothing_came_into_is_free_again() -> None:
    ring = RingBuffer(private_memory(BLOCK), BLOCK, readers=1)
    for _ in range(5):
        number, _ = ring.begin()
        ring.give(number, 0)
    ring.end()
    assert list(ring.blocks(0)) == []


def test_a_reader_that_gave_up_half_way_can_pass_over_the_rest() -> None:
    ring = RingBuffer(private_memory(2 * BLOCK), BLOCK, readers=1)
    for _ in range(2):
        number, _ = ring.begin()
        ring.give(number, 1)
    ring.end()
    blocks = ring.blocks(0)
    next(blocks)
    blocks.close()
    ring.drain(0)
    ring.drain(0)
    assert {ring.begin()[0], ring.begin()[0]} == {0, 1}
