"""How many workers there are: by the CPUs that this process may use, not by those that the machine has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from regfs.images.workers import own_process
from regfs.images.workers.own_process import MOST_WORKERS, usable_cpus, workers


def test_a_process_that_may_use_one_cpu_of_many_has_not_as_many_workers_as_the_machine_has_cpus() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert usable_cpus() == 1
        assert workers() == 2  # while one waits for its registry, the other works
    finally:
        os.sched_setaffinity(0, allowed)
    assert workers() <= MOST_WORKERS


@pytest.mark.parametrize(
    ("limit", "cpus"), [("max 100000", 64), ("150000 100000", 2), ("10000 100000", 1), ("nonsense", 64), (None, 64)]
)
def test_a_containers_quota_counts_as_its_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str | None, cpus: int
) -> None:
    group = tmp_path / "groups" / "pods" / "mine"
    group.mkdir(parents=True)
    if limit is not None:
        (tmp_path / "groups" / "pods" / "cpu.max").write_text(f"{limit}\n")  # set for the group above, as pods do
    (tmp_path / "own").write_text("0::/pods/mine\n")
    monkeypatch.setattr(own_process, "_CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(own_process, "_OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert usable_cpus() == cpus
    assert workers() == min(MOST_WORKERS, max(2, cpus))
