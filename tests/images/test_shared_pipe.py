"""The pipe through shared memory, from the daemon to a worker, brings every byte in order and ends with either side."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress

import pytest

from regfs.images.workers.shared_pipe import SIZE, PipeWriter, pieces


@contextmanager
def pipe_to(read: Callable[[Iterator[memoryview]], bytes]) -> Iterator[tuple[PipeWriter, Callable[[], bytes]]]:
    """Yield a pipe, and what returns the result of *read*, which gets its pieces in another thread."""
    with closing(PipeWriter()) as pipe, ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read, pieces(os.dup(pipe.memory_fd), os.dup(pipe.reader_end.fileno())))
        pipe.leave_to_reader()
        try:
            yield pipe, reader.result
        finally:
            pipe.end()


def write_all(pipe: PipeWriter, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[pipe.write(view, 60.0) :]


@pytest.mark.parametrize("largest", [1, 5000, 3 * SIZE])
def test_all_bytes_come_in_order_whatever_sizes_they_are_written_in(largest: int) -> None:
    chance = random.Random(largest)
    chunks = [chance.randbytes(chance.randint(1, largest)) for _ in range(4 if largest > SIZE else 4000)]
    with pipe_to(lambda found: b"".join(map(bytes, found))) as (pipe, result):
        for chunk in chunks:
            write_all(pipe, chunk)
        pipe.end()
        assert result() == b"".join(chunks)


def test_nothing_is_written_over_what_is_not_read() -> None:
    with closing(PipeWriter()) as pipe:
        write_all(pipe, b"x" * SIZE)
        assert pipe.write(memoryview(b"y"), 0.0) == 0
        pipe.leave_to_reader()


def test_small_writes_that_are_not_read_wait_and_are_not_lost() -> None:
    with closing(PipeWriter()) as pipe:
        count = 0
        while pipe.write(memoryview(b"z"), 0.0):
            count += 1
        assert 0 < count < SIZE
        found = pieces(os.dup(pipe.memory_fd), os.dup(pipe.reader_end.fileno()))
        pipe.leave_to_reader()
        pipe.end()
        assert b"".join(map(bytes, found)) == b"z" * count


def test_a_writer_hears_that_its_reader_has_ended() -> None:
    with pipe_to(lambda found: bytes(next(found)[:0])) as (pipe, result):
        pipe.write(memoryview(b"first"), 60.0)
        result()
        with pytest.raises(BrokenPipeError):
            write_all(pipe, bytes(2 * SIZE))


def test_a_reader_comes_to_the_end_where_its_writer_is_gone() -> None:
    def read_and_wait(found: Iterator[memoryview]) -> bytes:
        return b"".join(map(bytes, found))

    with pipe_to(read_and_wait) as (pipe, result):
        write_all(pipe, bytes(2 * SIZE))
        with suppress(OSError):
            pipe.close()
        assert len(result()) <= 2 * SIZE
