"""How long a thread may wait, and who may call it back."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from regfs.errors import Interrupted, MustWait, NotFound, RegistryTimeout
from regfs.patience import NO_PATIENCE, Patience, current, patient


def test_without_patience_nothing_waits() -> None:
    with pytest.raises(MustWait):
        NO_PATIENCE.wait_for(Future())


def test_an_answer_that_is_there_needs_no_patience() -> None:
    future: Future[int] = Future()
    future.set_result(7)
    assert NO_PATIENCE.wait_for(future) == 7


def test_a_passed_deadline_is_a_timeout() -> None:
    with pytest.raises(RegistryTimeout):
        Patience(-1.0).remaining_s(5.0)


def test_a_wait_ends_with_its_deadline() -> None:
    with pytest.raises(RegistryTimeout):
        Patience(0.01).wait_for(Future())


def test_work_that_bounds_itself_may_outlast_the_deadline() -> None:
    future: Future[int] = Future()
    patience = Patience(1.0)
    finisher = threading.Timer(1.2, future.set_result, [1])
    finisher.start()
    assert patience.wait_for(future, past_deadline=True) == 1
    finisher.join()


def test_cancelling_wakes_whoever_waits() -> None:
    patience = Patience()
    future: Future[int] = Future()
    threading.Timer(0.01, patience.cancel).start()
    with pytest.raises(Interrupted):
        patience.wait_for(future)


def test_cancelling_ends_a_sleep() -> None:
    patience = Patience()
    threading.Timer(0.01, patience.cancel).start()
    with pytest.raises(Interrupted):
        patience.sleep(3600)


def test_the_error_of_the_work_reaches_who_waits() -> None:
    future: Future[int] = Future()
    threading.Timer(0.01, future.set_exception, [NotFound("gone")]).start()
    with pytest.raises(NotFound, match="gone"):
        Patience(60.0).wait_for(future)


def test_the_former_patience_comes_back() -> None:
    before = current()
    with patient(NO_PATIENCE):
        assert current() is NO_PATIENCE
    assert current() is before


def test_a_patience_is_of_its_thread_alone() -> None:
    seen = []
    with patient(NO_PATIENCE):
        thread = threading.Thread(target=lambda: seen.append(current()))
        thread.start()
        thread.join()
    assert seen[0] is not NO_PATIENCE
