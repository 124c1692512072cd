"""Counters and gauges."""

from __future__ import annotations

from regfs.stats import Stats


def test_counters_grow_and_gauges_are_set() -> None:
    stats = Stats()
    stats.count("registry.requests")
    stats.count("registry.requests", 2)
    stats.gauge("queue", 5)
    stats.gauge("queue", 1)
    assert stats.snapshot() == {"queue": 1, "registry.requests": 3}
    assert stats.value("never") == 0
