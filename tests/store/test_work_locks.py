"""Locks by name between processes: others see the holder, and a holder that dies or stands still loses its lock."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from regfs.store.locks.work_locks import Standing, WorkLocks

DEADLINE_S = 60.0
HOLD = """
import sys
from pathlib import Path
from regfs.store.locks.work_locks import Standing, WorkLocks
with WorkLocks(Path(sys.argv[1])).claim("work") as claim:
    claim.tell(Standing(received=7))
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def locks(tmp_path: Path) -> WorkLocks:
    return WorkLocks(tmp_path / "locks")


@contextmanager
def holder(locks: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a process that holds the lock `work` until its standard input is closed; kill it in the end.

    No signal ends its block: one that comes between Python's last look at signals and the wait itself is seen after the
    wait, and a process that is stopped as soon as it has begun is often stopped there.
    """
    command = [sys.executable, "-c", HOLD, str(locks)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], DEADLINE_S)[0], "the holder did not begin"
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()  # also a stopped one, which would never end


def test_work_that_another_does_cannot_be_claimed(locks: WorkLocks, tmp_path: Path) -> None:
    with locks.claim("work") as mine:
        assert mine is not None
        with locks.claim("work") as second, locks.claim("other work") as other:
            assert second is None
            assert other is not None
    with locks.claim("work") as again:
        assert again is not None
    assert list((tmp_path / "locks").iterdir()) == []


def test_those_that_wait_see_how_far_the_work_is(locks: WorkLocks) -> None:
    seen = []
    with locks.claim("work") as mine:
        assert mine is not None
        standings = locks.standings("work", stalled_after_s=60.0)
        seen.append(next(standings))
        mine.tell(Standing(received=5, entries=2))
        seen.append(next(standings))
    assert seen == [Standing(), Standing(received=5, entries=2)]
    assert list(standings) == []


def test_the_lock_of_a_killed_process_is_free_at_once(locks: WorkLocks, tmp_path: Path) -> None:
    with holder(tmp_path / "locks") as process:
        standings = locks.standings("work", stalled_after_s=DEADLINE_S)
        assert next(standings) == Standing(received=7)
        process.kill()
        process.wait(DEADLINE_S)
        assert list(standings) in ([], [Standing(received=7)])
    with locks.claim("work") as mine:
        assert mine is not None


def test_a_process_that_stands_still_loses_its_lock_and_takes_none_away_when_it_goes_on(
    locks: WorkLocks, tmp_path: Path
) -> None:
    with holder(tmp_path / "locks") as process:
        os.kill(process.pid, signal.SIGSTOP)
        assert set(locks.standings("work", stalled_after_s=0.2)) == {Standing(received=7)}
        with locks.claim("work") as mine:
            assert mine is not None
            assert process.stdin is not None
            process.stdin.close()  # ends its block, once it goes on
            os.kill(process.pid, signal.SIGCONT)
            assert process.wait(DEADLINE_S) == 0
            with locks.claim("work") as third:
                assert third is None


def test_what_killed_processes_left_is_swept_and_what_is_held_is_not(locks: WorkLocks, tmp_path: Path) -> None:
    with holder(tmp_path / "locks") as process:
        process.kill()
        process.wait(DEADLINE_S)
    with locks.claim("mine"):
        assert sorted(path.name for path in (tmp_path / "locks").iterdir()) == ["mine", "work"]
        locks.sweep()
        assert [path.name for path in (tmp_path / "locks").iterdir()] == ["mine"]


def test_without_a_directory_to_be_written_everybody_may_work(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("in the way")
    locks = WorkLocks(tmp_path / "locks")
    with locks.claim("work") as first, locks.claim("work") as second:
        assert first is not None
        assert second is not None
        first.tell(Standing(received=1))
    assert list(locks.standings("work", stalled_after_s=60.0)) == []


def test_a_link_in_the_place_of_a_lock_gives_way(locks: WorkLocks, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    with locks.claim("work") as work:
        assert work is not None
    directory = next(path for path in tmp_path.iterdir() if path.is_dir())
    (directory / "work").symlink_to(victim)
    with locks.claim("work") as work:
        assert work is not None
        assert not (directory / "work").is_symlink()
    assert victim.read_bytes() == b"precious"


def test_a_lock_whose_file_was_deleted_is_no_lock_any_more(locks: WorkLocks, tmp_path: Path) -> None:
    with locks.claim("work"):
        (tmp_path / "locks" / "work").unlink()
        with locks.claim("work") as second:
            assert second is not None
    assert list((tmp_path / "locks").iterdir()) == []
