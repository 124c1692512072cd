"""The threads that wait."""

from __future__ import annotations

import threading

from regfs.mount.waiting import WaitingThreads

TIMEOUT_S = 100.0


def test_jobs_that_wait_for_each_other_all_run() -> None:
    together = threading.Barrier(50)
    done = threading.Semaphore(0)

    def job() -> None:
        together.wait(TIMEOUT_S)
        done.release()

    threads = WaitingThreads()
    for _ in range(50):
        threads.submit(job)
    assert all(done.acquire(timeout=TIMEOUT_S) for _ in range(50))


def test_jobs_over_the_most_wait_for_a_thread() -> None:
    threads = WaitingThreads(most=2)
    done = threading.Semaphore(0)
    for _ in range(100):
        threads.submit(lambda: done.release())
    assert all(done.acquire(timeout=TIMEOUT_S) for _ in range(100))
    assert threads.running <= 2


def test_a_thread_that_has_nothing_to_do_ends() -> None:
    threads = WaitingThreads(idle_s=0.0)
    ran = []
    threads.submit(lambda: ran.append(threading.current_thread()))
    while not ran:
        pass
    ran[0].join(TIMEOUT_S)
    assert (ran[0].is_alive(), threads.running) == (False, 0)


def test_a_job_that_raises_does_not_take_its_thread_along() -> None:
    threads = WaitingThreads(most=1)
    done = threading.Event()
    threads.submit(lambda: [][0])
    threads.submit(done.set)
    assert done.wait(TIMEOUT_S)
