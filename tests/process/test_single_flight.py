"""Each thing is computed once, however many ask."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import TypeVar

import pytest

from regfs.errors import Interrupted, OutOfThreads, RegistryTimeout, RegistryUnavailable, WouldBlock
from regfs.process.waiting.deadline import NON_BLOCKING, Deadline, current, under
from regfs.process.waiting.single_flight import Flights
from tests.support.no_threads import no_threads

T = TypeVar("T")


class AnnouncedDeadline(Deadline):
    """Tells that somebody begins to wait."""

    def __init__(self, waiting: threading.Semaphore) -> None:
        super().__init__()
        self._waiting = waiting

    def wait_for(self, future: Future[T], *, stalled_since: Callable[[], float] | None = None) -> T:
        self._waiting.release()
        return super().wait_for(future, stalled_since=stalled_since)


class SpentDeadline(Deadline):
    """Begins a wait, and has no time left for it."""

    def wait_for(self, future: Future[T], *, stalled_since: Callable[[], float] | None = None) -> T:
        raise RegistryTimeout("no answer within 1 s")


def test_many_who_ask_at_once_share_one_computation() -> None:
    flights, waiting, calls, results = Flights(), threading.Semaphore(0), [], []

    def compute() -> int:
        for _ in range(20):
            waiting.acquire()
        calls.append(1)
        return 42

    def ask() -> None:
        with under(AnnouncedDeadline(waiting)):
            results.append(flights.run("key", compute))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [42] * 20
    assert calls == [1]


def test_without_patience_no_computation_is_begun() -> None:
    calls: list[int] = []
    with under(NON_BLOCKING), pytest.raises(WouldBlock):
        Flights().run("key", lambda: calls.append(1))
    assert not calls


def test_an_error_is_told_and_then_forgotten() -> None:
    flights = Flights()

    def fail() -> None:
        raise RegistryUnavailable("down")

    with pytest.raises(RegistryUnavailable):
        flights.run("key", fail)
    assert flights.run("key", lambda: "up again") == "up again"


def test_the_computation_outlives_whoever_began_it() -> None:
    flights, go, done = Flights(), threading.Event(), threading.Event()

    def compute() -> str:
        go.wait()
        done.set()
        return "landed"

    impatient = Deadline()
    impatient.cancel()
    with under(Deadline()) as begun:
        threading.Timer(0.01, begun.cancel).start()
        with pytest.raises(Interrupted):
            flights.run("key", compute)
    go.set()
    assert done.wait(60)


def test_who_runs_out_of_time_is_told_what_was_waited_for() -> None:
    with under(SpentDeadline()), pytest.raises(RegistryTimeout, match=r"^tag example/app:v1: "):
        Flights().run(("tag", "example/app", "v1"), current)


def test_who_has_run_out_of_time_before_is_told_what_he_asked_for() -> None:
    with under(Deadline(0.0)), pytest.raises(RegistryTimeout, match=r"^tag example/app:v1: "):
        Flights().run(("tag", "example/app", "v1"), lambda: 1)


def trickle(go: threading.Event) -> Iterator[bytes]:
    """Give one chunk, and another when *go* is set."""
    yield b"first"
    go.wait(60)
    yield b"second"


def test_content_that_does_not_come_costs_who_waits_for_it_the_deadline() -> None:
    go, flights = threading.Event(), Flights()

    def receive() -> bytes:
        return b"".join(current().watch(trickle(go)))

    def join() -> bytes:
        return flights.run("key", receive, streams=True)

    # On a machine that stands still the deadline may have passed before anything was begun.
    told = r"key: no (progress for|answer within) 0.2 s"
    with under(Deadline(0.2)), pytest.raises(RegistryTimeout, match=told):
        join()
    threading.Timer(0.05, go.set).start()
    with under(Deadline(60.0)):
        assert join() == b"firstsecond"


def test_parts_that_do_not_come_cost_who_waits_for_the_whole_the_deadline() -> None:
    go, flights = threading.Event(), Flights()

    def whole() -> bytes:
        parts = [flights.begin(part, lambda: b"".join(current().watch(trickle(go))), streams=True) for part in "ab"]
        return b"".join(part.result().result() for part in parts)

    with under(Deadline(0.2)), pytest.raises(RegistryTimeout, match="whole: no "):
        flights.run("whole", whole, streams=True, parts=["a", "b"])
    go.set()


def test_a_flight_has_a_patience_of_its_own() -> None:
    with under(Deadline(5.0)) as mine:
        assert Flights(timeout_s=1.0).run("key", current) is not mine


def frames(traceback: TracebackType | None) -> int:
    return 0 if traceback is None else 1 + frames(traceback.tb_next)


def test_an_error_that_many_wait_for_does_not_collect_their_frames() -> None:
    flights, waiting, errors = Flights(), threading.Semaphore(0), []

    def fail() -> None:
        for _ in range(20):
            waiting.acquire()
        raise RegistryUnavailable("down")

    def ask() -> None:
        with under(AnnouncedDeadline(waiting)):
            try:
                flights.run("key", fail)
            except RegistryUnavailable as error:
                errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {str(error) for error in errors} == {"down"}
    assert max(frames(error.__traceback__) for error in errors) < 8


def test_a_failed_flight_leaves_no_circle_for_the_garbage_collector() -> None:
    flights = Flights()

    def fail() -> None:
        raise RegistryUnavailable("down")

    gc.collect()
    gc.disable()
    try:
        for _ in range(100):
            with contextlib.suppress(RegistryUnavailable):
                flights.run("key", fail)
        for thread in threading.enumerate():
            if thread.name.startswith("flight "):
                thread.join(60)  # those of the last flights may still be on their way out
        assert sum(type(found) is RegistryUnavailable for found in gc.get_objects()) < 20
    finally:
        gc.enable()


def test_the_cause_of_an_error_is_told_to_whoever_waits() -> None:
    def fail() -> None:
        try:
            raise OSError("no route")
        except OSError as error:
            raise RegistryUnavailable("down") from error

    with pytest.raises(RegistryUnavailable) as raised:
        Flights().run("key", fail)
    assert isinstance(raised.value.__cause__, OSError)


def test_a_flight_that_cannot_start_does_not_keep_the_next_ones_waiting() -> None:
    flights = Flights()
    with no_threads(), pytest.raises(OutOfThreads):
        flights.run("key", lambda: 1)
    assert flights.run("key", lambda: 2) == 2


def late(timeout_s: float = 0.0) -> Deadline:
    """Return the deadline of a caller for whose --timeout of *timeout_s* any flight has lasted too long; it waits."""
    deadline = Deadline(100.0, is_users=True)
    deadline.timeout_s = timeout_s
    return deadline


def test_a_request_that_hangs_does_not_keep_later_callers_from_an_answer() -> None:
    """With --timeout 2s one request that was never answered made a tag ETIMEDOUT for 30 s."""
    flights, hangs, ended = Flights(), threading.Event(), threading.Event()
    answers = iter(["late", "in time"])

    def compute() -> str:
        answer = next(answers)
        if answer == "late":
            hangs.set()
            try:
                current().sleep(1000.0)
            finally:
                ended.set()
        return answer

    first = flights.begin("key", compute)
    assert hangs.wait(100)
    with under(late()):
        assert flights.run("key", compute) == "in time"
    assert first.result(100).result() == "in time"  # those who wait for the first attempt have it too
    assert ended.wait(100)  # and that is given up
    assert flights._flights == {}


def test_a_slow_answer_that_comes_first_after_all_is_the_answer_of_all() -> None:
    flights, began, go = Flights(), threading.Semaphore(0), threading.Event()
    answers = iter(["slow", "slower"])

    def compute() -> str:
        answer = next(answers)
        began.release()
        if answer == "slow":
            assert go.wait(100)
        else:
            current().sleep(1000.0)
        return answer

    first = flights.begin("key", compute)
    with under(late()):
        second = flights.begin("key", compute)
    assert began.acquire(timeout=100)
    assert began.acquire(timeout=100)
    go.set()
    assert (first.result(100).result(), second.result(100).result()) == ("slow", "slow")


def test_an_attempt_that_fails_leaves_the_answer_to_the_other() -> None:
    flights, began, go = Flights(), threading.Event(), threading.Event()
    answers = iter(["slow", "fails"])

    def compute() -> str:
        answer = next(answers)
        if answer == "fails":
            raise RegistryUnavailable("no route")
        began.set()
        assert go.wait(100)
        return answer

    first = flights.begin("key", compute)
    assert began.wait(100)
    with under(late()):
        second = flights.begin("key", compute)
    while len(flights._flights["key"].attempts) == 2:  # until the other has failed
        pass
    go.set()
    assert (first.result(100).result(), second.result(100).result()) == ("slow", "slow")


def test_a_registry_that_never_answers_is_asked_by_few_attempts_however_many_callers_come() -> None:
    """Each attempt gets twice the time of the one before: six of them in the first minute of --timeout 1s."""
    flights = Flights()
    future = flights.begin("key", lambda: current().sleep(1000.0))
    attempts = flights._flights["key"].attempts
    for _ in range(61):
        for attempt in attempts:
            attempt.stalled_since -= 1.0  # a second passes
        with under(late(1.0)):
            flights.begin("key", lambda: current().sleep(1000.0))
    assert 5 <= len(attempts) <= 6
    for attempt in list(attempts):
        attempt.cancel()
    with pytest.raises(Interrupted):
        future.result(100).result()


def test_only_the_time_that_the_user_allows_makes_another_attempt() -> None:
    """Some callers wait two seconds for what may be missing: a registry that takes three is no reason to ask again."""
    flights, calls = Flights(), []

    def compute() -> None:
        calls.append(1)
        current().sleep(1000.0)

    flights.begin("key", compute)
    for deadline in (Deadline(1e-9), Deadline(), Deadline(100.0, is_users=True)):
        deadline.end_s = None
        with under(deadline):
            flights.begin("key", compute)
    (attempt,) = flights._flights["key"].attempts
    attempt.cancel()
