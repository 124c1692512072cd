"""What a process uses is announced in one file, which dies with the process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from regfs.errors import NotFound
from regfs.store.eviction.in_use import LivingUses, Uses, sweep_uses
from tests.support.mounted import REPOSITORY_ROOT


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "images/chain.merged"
    path.parent.mkdir()
    path.touch()
    return path


def is_free(root: Path, path: Path) -> bool:
    with LivingUses(root).claimed(path) as is_ours:
        return is_ours


def test_a_file_is_in_use_until_the_last_use_of_it_has_ended(tmp_path: Path, table: Path) -> None:
    uses = Uses(tmp_path)
    assert is_free(tmp_path, table)
    first, second = uses.announce(table), uses.announce(table)
    first.release()
    first.release()
    assert not is_free(tmp_path, table)
    del second
    assert is_free(tmp_path, table)


def test_what_is_not_there_is_not_used(tmp_path: Path) -> None:
    uses = Uses(tmp_path)
    path = tmp_path / "images/none.merged"
    with pytest.raises(NotFound):
        uses.announce(path)
    assert is_free(tmp_path, path)


def test_one_file_tells_of_all_uses_and_does_not_grow_with_those_that_ended(tmp_path: Path, table: Path) -> None:
    uses = Uses(tmp_path)
    lasting = uses.announce(table)
    for _ in range(5000):
        uses.announce(table).release()
    (file,) = (tmp_path / "uses").iterdir()
    assert file.stat().st_size < 1 << 17
    assert not is_free(tmp_path, table)
    del lasting
    assert is_free(tmp_path, table)


def test_a_cache_that_was_deleted_is_announced_in_again(tmp_path: Path, table: Path) -> None:
    uses = Uses(tmp_path)
    old = uses.announce(table)
    shutil.rmtree(tmp_path / "uses")
    assert is_free(tmp_path, table)
    new = uses.announce(table)
    assert not is_free(tmp_path, table)
    new.release()
    assert not is_free(tmp_path, table)
    old.release()
    assert is_free(tmp_path, table)


def test_a_link_in_the_place_of_the_file_leads_no_line_into_another_file(tmp_path: Path, table: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    uses = Uses(tmp_path)
    first = uses.announce(table)
    (file,) = (tmp_path / "uses").iterdir()
    file.unlink()
    file.symlink_to(victim)
    second = uses.announce(table)
    assert victim.read_bytes() == b"precious"
    assert not file.is_symlink()
    assert not is_free(tmp_path, table)
    del first, second
    assert is_free(tmp_path, table)


def test_a_line_that_is_half_written_ends_no_other_use(tmp_path: Path, table: Path) -> None:
    uses = Uses(tmp_path)
    use = uses.announce(table)
    (file,) = (tmp_path / "uses").iterdir()
    with file.open("ab") as half:
        half.write(b"-1")
    assert not is_free(tmp_path, table)
    use.release()


USING = """
import sys
from pathlib import Path
from regfs.store.eviction.in_use import Uses
root = Path(sys.argv[1])
use = Uses(root).announce(root / "images/chain.merged")
print("used", flush=True)
sys.stdin.read()
"""


def test_the_uses_of_a_killed_process_end_and_its_file_is_removed(tmp_path: Path, table: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", USING, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY_ROOT
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"used\n"
        own = Uses(tmp_path)
        use = own.announce(table)
        use.release()
        assert not is_free(tmp_path, table)
        os.kill(other.pid, signal.SIGKILL)
    assert is_free(tmp_path, table)
    sweep_uses(tmp_path)
    assert len(list((tmp_path / "uses").iterdir())) == 1
    own.close()
    assert list((tmp_path / "uses").iterdir()) == []


def test_a_file_is_either_kept_for_its_user_or_gone_before_it_is_used(tmp_path: Path, table: Path) -> None:
    uses, outcomes = Uses(tmp_path), list[str]()
    gone = threading.Event()

    def evict() -> None:
        while not gone.is_set():
            with LivingUses(tmp_path).claimed(table) as is_ours:
                if is_ours:
                    table.unlink(missing_ok=True)

    evictor = threading.Thread(target=evict)
    evictor.start()
    try:
        for _ in range(300):
            table.touch()
            try:
                use = uses.announce(table)
            except NotFound:
                outcomes.append("gone")
                continue
            assert table.exists()
            outcomes.append("kept")
            use.release()
    finally:
        gone.set()
        evictor.join(60)
    assert set(outcomes) <= {"gone", "kept"}
    assert "kept" in outcomes


@pytest.mark.parametrize("is_seen", [False, True])
def test_a_process_that_ends_while_it_is_looked_at_stops_no_eviction(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch, is_seen: bool
) -> None:
    uses, scandir = Uses(tmp_path), os.scandir
    uses.announce(table)

    @contextmanager
    def ending(path: Path) -> Iterator[Iterator[os.DirEntry[str]]]:
        with scandir(path) as entries:
            found = list(entries)
        assert len(found) == 1
        if is_seen:
            found[0].stat(follow_symlinks=False)  # which the entry remembers
        uses.close()
        yield iter(found)

    monkeypatch.setattr("regfs.store.eviction.in_use.os.scandir", ending)
    assert is_free(tmp_path, table)
