"""Counters and gauges."""

from __future__ import annotations

import ast
from pathlib import Path

import regfs
from regfs.telemetry.stats import COUNTERS, MOST_GAUGES, Stats


def test_counters_grow_and_gauges_are_set() -> None:
    stats = Stats()
    stats.count("registry.requests")
    stats.count("registry.requests", 2)
    stats.gauge("queue", 5)
    stats.gauge("queue", 1)
    assert {name: value for name, value in stats.snapshot().items() if value} == {"queue": 1, "registry.requests": 3}
    assert stats.value("never") == 0


def test_every_counter_is_there_before_anything_happened() -> None:
    """A script that watches a counter must not have to guess whether its absence means 0 or a wrong name."""
    counted = {
        call.args[0].value
        for module in Path(regfs.__file__).parent.rglob("*.py")
        for call in ast.walk(ast.parse(module.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "count"
        if ast.unparse(call.func.value).endswith("stats") and isinstance(call.args[0], ast.Constant)
    }
    assert len(counted) > 10
    assert sorted(counted - set(COUNTERS)) == [], "add these to COUNTERS in regfs/stats.py"
    assert Stats().snapshot() == dict.fromkeys(COUNTERS, 0)


def test_a_gauge_for_each_of_many_hosts_does_not_fill_the_memory() -> None:
    stats = Stats()
    stats.gauge("registry.ratelimit_remaining.often", 1)
    for number in range(MOST_GAUGES * 3):
        stats.gauge(f"registry.ratelimit_remaining.host{number}", number)
        stats.gauge("registry.ratelimit_remaining.often", 2)
    assert len(stats.snapshot()) == len(COUNTERS) + MOST_GAUGES
    assert stats.value("registry.ratelimit_remaining.often") == 2
    assert stats.value(f"registry.ratelimit_remaining.host{MOST_GAUGES * 3 - 1}") == MOST_GAUGES * 3 - 1
    assert stats.value("registry.ratelimit_remaining.host0") == 0
