"""Threads for short jobs are used again, and none of them stays."""

from __future__ import annotations

import subprocess
import sys
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


IN_A_FORK = """
import os, threading
from regfs.process.threads import ReusedThreads

def done_by(threads):
    done = threading.Event()
    threads.start(done.set, name="job")
    return done.wait(20)

threads = ReusedThreads(idle_s=20)
assert done_by(threads)
while not threads._idle:
    pass
child = os.fork()
if child == 0:
    os._exit(0 if done_by(threads) else 1)
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_waits_for_no_thread_of_its_parent() -> None:
    assert subprocess.run([sys.executable, "-c", IN_A_FORK], check=False).returncode == 0


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
