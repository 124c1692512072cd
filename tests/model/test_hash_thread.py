"""A big transfer is hashed beside it: by one thread, in order, not far behind, and nothing is left of it."""

from __future__ import annotations

import gc
import hashlib
import itertools
import random
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from regfs.errors import DigestMismatch
from regfs.model.digest import Digest
from regfs.model.hash_thread import HashThread
from regfs.model.verification import verified
from tests.support.no_threads import no_threads

CONTENT = random.Random(1).randbytes(9 << 20)
DIGEST = Digest.of(CONTENT)


def hash_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "hash of a transfer"]


def assert_that_none_is_left() -> None:
    for thread in hash_threads():
        thread.join(10)
    assert hash_threads() == []


def cut(content: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(content), size):
        yield content[at : at + size]


@pytest.mark.parametrize("size", [7_000, 16 << 10, 1 << 18, (1 << 20) + 1, 5 << 20])
def test_a_big_blob_passes_as_it_is_in_chunks_of_any_size(size: int) -> None:
    assert b"".join(verified(cut(CONTENT, size), DIGEST, len(CONTENT))) == CONTENT
    assert_that_none_is_left()


@pytest.mark.parametrize("at", [0, 4 << 20, len(CONTENT) - 1])
def test_wherever_a_big_blob_is_wrong_its_last_chunk_is_not_given(at: int) -> None:
    wrong = bytearray(CONTENT)
    wrong[at] ^= 1
    chunks = iter(verified(cut(bytes(wrong), 1 << 18), DIGEST, len(CONTENT)))
    given = b"".join(itertools.islice(chunks, len(CONTENT) // (1 << 18) - 1))
    assert len(given) == len(CONTENT) - (1 << 18)
    with pytest.raises(DigestMismatch, match="have the digest"):
        next(chunks)
    assert_that_none_is_left()


def test_an_empty_chunk_behind_the_last_byte_changes_nothing() -> None:
    chunks = [CONTENT, b"", b""]
    assert list(verified(chunks, DIGEST, len(CONTENT))) == chunks


def test_a_transfer_that_is_closed_before_its_end_leaves_no_thread() -> None:
    chunks = verified(cut(CONTENT, 1 << 20), DIGEST, len(CONTENT))
    assert next(iter(chunks)) == CONTENT[: 1 << 20]
    assert hash_threads()
    chunks.close()
    assert_that_none_is_left()


def test_a_transfer_that_is_forgotten_leaves_no_thread() -> None:
    chunks = verified(cut(CONTENT, 1 << 20), DIGEST, len(CONTENT))
    next(iter(chunks))
    assert hash_threads()
    del chunks
    gc.collect()
    assert_that_none_is_left()


def test_a_blob_is_verified_where_no_thread_can_be_started() -> None:
    with no_threads():
        assert b"".join(verified(cut(CONTENT, 1 << 18), DIGEST, len(CONTENT))) == CONTENT
        with pytest.raises(DigestMismatch):
            list(verified(cut(CONTENT[:-1] + b"?", 1 << 18), DIGEST, len(CONTENT)))


class HashOnDemand:
    """A hasher that hashes one chunk for each permission."""

    def __init__(self) -> None:
        self.permissions = threading.Semaphore(0)
        self.hash = hashlib.sha256()

    def update(self, chunk: bytes | bytearray | memoryview, /) -> None:
        self.permissions.acquire()
        self.hash.update(chunk)

    def hexdigest(self) -> str:
        return self.hash.hexdigest()


def test_a_thread_that_is_slow_is_waited_for() -> None:
    """Or a whole layer would be in memory where the network is faster than the hash."""
    slow = HashOnDemand()
    chunks = list(cut(CONTENT, 1 << 18))
    given = threading.Semaphore(0)
    most_behind = 8
    with closing(HashThread(slow)) as hashing:

        def give() -> None:
            for chunk in chunks:
                hashing.update(chunk)
                given.release()

        giver = threading.Thread(target=give)
        giver.start()
        for hashed in range(len(chunks)):
            if hashed <= len(chunks) - most_behind:
                assert given.acquire(timeout=10)
                if not hashed:
                    for _ in range(most_behind - 1):
                        assert given.acquire(timeout=10)
            assert not given.acquire(blocking=False)
            slow.permissions.release()
        giver.join(10)
        assert hashing.hexdigest() == DIGEST.encoded
    assert_that_none_is_left()


class BrokenHash:
    def update(self, chunk: bytes | bytearray | memoryview, /) -> None:
        raise MemoryError

    def hexdigest(self) -> str:
        return DIGEST.encoded


def test_a_hash_that_fails_in_its_thread_fails_the_transfer() -> None:
    with closing(HashThread(BrokenHash())) as hashing:
        hashing.update(CONTENT)
        with pytest.raises(MemoryError):
            hashing.hexdigest()
    assert_that_none_is_left()
