"""The threads that wait."""

from __future__ import annotations

import threading

import pytest

from regfs.errors import OutOfThreads
from regfs.mount.kernel.thread_pool import ThreadPool
from tests.support.no_threads import no_threads

TIMEOUT_S = 100.0


def test_jobs_that_wait_for_each_other_all_run() -> None:
    together = threading.Barrier(50)
    done = threading.Semaphore(0)

    def job() -> None:
        together.wait(TIMEOUT_S)
        done.release()

    threads = ThreadPool()
    for _ in range(50):
        threads.submit(job)
    assert all(done.acquire(timeout=TIMEOUT_S) for _ in range(50))


def test_jobs_over_the_most_wait_for_a_thread() -> None:
    threads = ThreadPool(most=2)
    done = threading.Semaphore(0)
    for _ in range(100):
        threads.submit(lambda: done.release())
    assert all(done.acquire(timeout=TIMEOUT_S) for _ in range(100))
    assert threads.running <= 2


def test_a_thread_that_has_nothing_to_do_ends() -> None:
    threads = ThreadPool(idle_s=0.0)
    ran = []
    threads.submit(lambda: ran.append(threading.current_thread()))
    while not ran:
        pass
    ran[0].join(TIMEOUT_S)
    assert (ran[0].is_alive(), threads.running) == (False, 0)


def test_a_job_that_raises_does_not_take_its_thread_along() -> None:
    threads = ThreadPool(most=1)
    done = threading.Event()
    threads.submit(lambda: [][0])
    threads.submit(done.set)
    assert done.wait(TIMEOUT_S)


def test_a_job_that_gets_no_thread_is_refused_and_leaves_nothing_behind() -> None:
    threads, done = ThreadPool(most=1), threading.Event()
    refused: list[None] = []
    with no_threads(), pytest.raises(OutOfThreads):
        threads.submit(lambda: refused.append(None))
    assert threads.running == 0
    threads.submit(done.set)
    assert done.wait(TIMEOUT_S)
    assert refused == []


def test_a_job_that_gets_no_thread_waits_for_one_that_runs() -> None:
    threads, begun, go_on, done = ThreadPool(), threading.Event(), threading.Event(), threading.Event()

    def job() -> None:
        begun.set()
        go_on.wait(TIMEOUT_S)

    threads.submit(job)
    assert begun.wait(TIMEOUT_S)
    with no_threads():
        threads.submit(done.set)
        go_on.set()
        assert done.wait(TIMEOUT_S)
    assert threads.running == 1
