"""Threads for short jobs are used again, and none of them stays."""

from __future__ import annotations

import threading

from regfs.process.threads import ReusedThreads


def run_one_after_the_other(threads: ReusedThreads, times: int) -> list[threading.Thread]:
    """Run *times* jobs, and return the thread of each."""
    used: list[threading.Thread] = []
    for number in range(times):
        done = threading.Event()

        def job(done: threading.Event = done) -> None:
            used.append(threading.current_thread())
            done.set()

        threads.start(job, name=f"job {number}")
        assert done.wait(30)
    return used


def test_jobs_that_follow_each_other_share_threads_which_end_when_nothing_comes() -> None:
    used = run_one_after_the_other(ReusedThreads(), 50)
    assert len(set(used)) < 25
    for thread in used:
        thread.join(30)
        assert not thread.is_alive()


def test_jobs_at_the_same_time_have_a_thread_each() -> None:
    together = threading.Barrier(8)
    names: list[str] = []

    def job() -> None:
        together.wait(30)
        names.append(threading.current_thread().name)

    threads = ReusedThreads()
    for number in range(7):
        threads.start(job, name=f"job {number}")
    together.wait(30)
    for thread in threading.enumerate():
        if thread.name.startswith(("job ", "regfs-idle")):
            thread.join(30)
    assert sorted(names) == [f"job {number}" for number in range(7)]
