"""Counters and gauges."""

from __future__ import annotations

import ast
from pathlib import Path

import regfs
from regfs.telemetry.stats import COUNTERS, Stats


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
