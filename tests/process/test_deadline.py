"""How long a thread may wait, and who may call it back."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from regfs.errors import Interrupted, NotFound, RegistryTimeout, WouldBlock
from regfs.process.waiting.deadline import NON_BLOCKING, Deadline, current, under


def test_without_patience_nothing_waits() -> None:
    with pytest.raises(WouldBlock):
        NON_BLOCKING.wait_for(Future())


def test_an_answer_that_is_there_needs_no_patience() -> None:
    future: Future[int] = Future()
    future.set_result(7)
    assert NON_BLOCKING.wait_for(future) == 7


def test_a_passed_deadline_is_a_timeout() -> None:
    with pytest.raises(RegistryTimeout):
        Deadline(-1.0).remaining_s(5.0)


def test_a_wait_ends_with_its_deadline() -> None:
    with pytest.raises(RegistryTimeout):
        Deadline(0.01).wait_for(Future())


class LayerIngest(Deadline):
    """Has a deadline that passes when a wait has begun, and never before it."""

    def _pause(self, seconds: float) -> None:
        self.end_s = 0.0
        super()._pause(min(seconds, 0.01))


def test_a_wait_for_content_outlasts_its_deadline_while_content_comes() -> None:
    future: Future[int] = Future()
    finisher = threading.Timer(0.2, future.set_result, [1])
    finisher.start()
    assert LayerIngest(60.0).wait_for(future, stalled_since=lambda: math.inf) == 1
    finisher.join()


def test_a_wait_for_content_ends_once_nothing_has_come_for_as_long_as_it_may_take() -> None:
    long_ago = time.monotonic() - 3600
    with pytest.raises(RegistryTimeout, match="no progress"):
        LayerIngest(60.0).wait_for(Future(), stalled_since=lambda: long_ago)


def test_a_wait_for_content_is_cancelled_like_any_other() -> None:
    deadline = Deadline(60.0)
    threading.Timer(0.01, deadline.cancel).start()
    with pytest.raises(Interrupted):
        deadline.wait_for(Future(), stalled_since=lambda: math.inf)


def test_content_that_is_watched_makes_progress_when_a_chunk_is_asked_for_and_when_it_comes() -> None:
    deadline = Deadline()
    long_ago = deadline.stalled_since = time.monotonic() - 3600
    seen: list[bool] = []

    def chunks() -> Iterator[bytes]:
        seen.append(deadline.stalled_since > long_ago)
        deadline.stalled_since = long_ago
        yield b"a"

    for _chunk in deadline.watch(chunks()):
        seen.append(deadline.stalled_since > long_ago)
        deadline.stalled_since = long_ago
        break
    assert seen == [True, True]
    assert deadline.stalled_since == long_ago


def test_cancelling_wakes_whoever_waits() -> None:
    deadline = Deadline()
    future: Future[int] = Future()
    threading.Timer(0.01, deadline.cancel).start()
    with pytest.raises(Interrupted):
        deadline.wait_for(future)


def test_cancelling_ends_a_sleep() -> None:
    deadline = Deadline()
    threading.Timer(0.01, deadline.cancel).start()
    with pytest.raises(Interrupted):
        deadline.sleep(3600)


def test_the_error_of_the_work_reaches_who_waits() -> None:
    future: Future[int] = Future()
    threading.Timer(0.01, future.set_exception, [NotFound("gone")]).start()
    with pytest.raises(NotFound, match="gone"):
        Deadline(60.0).wait_for(future)


def test_the_former_patience_comes_back() -> None:
    before = current()
    with under(NON_BLOCKING):
        assert current() is NON_BLOCKING
    assert current() is before


def test_a_patience_is_of_its_thread_alone() -> None:
    seen = []
    with under(NON_BLOCKING):
        thread = threading.Thread(target=lambda: seen.append(current()))
        thread.start()
        thread.join()
    assert seen[0] is not NON_BLOCKING
