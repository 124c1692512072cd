"""Counters and gauges."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import regfs
from regfs.telemetry.metrics import metrics_text
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
        if isinstance(call.args[0].value, str)
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


def test_metrics_are_what_prometheus_reads() -> None:
    stats = Stats()
    stats.count("registry.bytes", 3_000_000_000)
    stats.gauge('registry.ratelimit_remaining.a"b.c:5000', 97)
    stats.gauge("registry.ratelimit_remaining.docker.io", 5)
    lines = metrics_text(stats).splitlines()
    assert "regfs_registry_bytes_total 3000000000" in lines
    assert (
        lines[lines.index("regfs_registry_bytes_total 3000000000") - 1] == "# TYPE regfs_registry_bytes_total counter"
    )
    assert r'regfs_registry_ratelimit_remaining{host="a\"b.c:5000"} 97' in lines
    assert lines.count("# TYPE regfs_registry_ratelimit_remaining gauge") == 1
    pattern = re.compile(r'[a-z_]+(\{host="([^"\\\n]|\\.)*"\})? [0-9.e+]+')
    assert all(pattern.fullmatch(line) for line in lines if not line.startswith("#"))
    assert len([line for line in lines if line.startswith("# TYPE")]) == len(COUNTERS) + 1
