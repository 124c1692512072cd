"""`.diff/A..B/` in a mount, by either driver: its trees are what a walk of both images finds."""

from __future__ import annotations

import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from regfs.model.dates import moment_text
from tests.e2e.conftest import becomes
from tests.support.snapshot import Entry, snapshot

Snapshot = dict[bytes, Entry]


def bare(entry: Entry) -> Entry:
    return replace(entry, group=b"")


def test_the_trees_of_a_comparison_are_those_of_a_walk(reg: Path) -> None:
    both = reg / "demo/real/.diff/v1..v2"
    a, b = snapshot(reg / "demo/real/v1/rootfs"), snapshot(reg / "demo/real/v2/rootfs")
    added, removed, changed = (snapshot(both / kind) for kind in ("added", "removed", "changed"))
    assert a.keys() - b.keys() <= removed.keys() <= a.keys()
    assert b.keys() - a.keys() <= added.keys() <= b.keys()
    assert all(bare(entry) == bare(b[path]) for path, entry in added.items())
    assert all(bare(entry) == bare(a[path]) for path, entry in removed.items())
    files = [path for path in a.keys() & b.keys() if a[path].kind == b[path].kind == "-"]
    differing = {path for path in files if a[path].content != b[path].content}
    assert differing
    for path in differing:
        assert bare(changed[path + b"/a"]) == bare(a[path])
        assert bare(changed[path + b"/b"]) == bare(b[path])
    same = {path for path in files if bare(replace(a[path], mtime_ns=0)) == bare(replace(b[path], mtime_ns=0))}
    assert not {path + b"/a" for path in same} & changed.keys()


def test_tools_copy_and_compare_the_trees(reg: Path, tmp_path: Path) -> None:
    both = reg / "demo/real/.diff/v1..v2"
    subprocess.run(["cp", "-a", f"{both}/.", tmp_path / "copy"], check=True)
    assert subprocess.run(["diff", "-r", "--no-dereference", both, tmp_path / "copy"], check=False).returncode == 0


@pytest.mark.parametrize("driver", ["kernel"], indirect=True)  # it waits for the next second
def test_a_tag_opens_as_it_was_at_a_time_and_not_before_it_was_seen(reg: Path) -> None:
    digest = (reg / "demo/real/v2/digest").read_text()
    name = next((reg / ".regfs/history").iterdir()).name
    line = (reg / f".regfs/history/{name}/demo/real/v2").read_text().splitlines()[-1].split()
    assert line[2] == digest.strip()
    now = moment_text(time.time() + 1)  # a moment has whole seconds, and the tag may have been seen within this one
    becomes((reg / f"demo/real/v2@{now}").exists, wanted=True)  # once that is past
    assert (reg / f"demo/real/v2@{now}/digest").read_text() == digest
    assert not (reg / "demo/real/v2@2020-01-01").exists()
