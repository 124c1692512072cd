"""Counters and gauges as Prometheus reads them: `.regfs/metrics`.

    # TYPE regfs_registry_bytes_total counter
    regfs_registry_bytes_total 1234
    # TYPE regfs_registry_ratelimit_remaining gauge
    regfs_registry_ratelimit_remaining{host="docker.io"} 97

A counter's name has its dots as `_`, `regfs_` before and `_total` behind it; what follows the second dot of a gauge is
the label `host`. node_exporter's textfile collector, or any program that reads a file, can take it.
Source: Prometheus, "Exposition formats", text format 0.0.4. Pure.
"""

from __future__ import annotations

from regfs.telemetry.stats import COUNTERS, Stats


def metrics_text(stats: Stats) -> str:
    """Return all counters and gauges of *stats*."""
    lines: list[str] = []
    typed: set[str] = set()
    for name, value in stats.snapshot().items():
        is_counter = name in COUNTERS
        words = name.split(".", 2)
        metric = "_".join(["regfs", *words[:2]]) + ("_total" if is_counter else "")
        if metric not in typed:
            typed.add(metric)
            lines.append(f"# TYPE {metric} {'counter' if is_counter else 'gauge'}")
        lines.append(f"{metric}{_label(words[2:])} {value:g}" if not is_counter else f"{metric} {int(value)}")
    return "\n".join(lines) + "\n"


def _label(rest: list[str]) -> str:
    """Return the label of a gauge that has a host in its name."""
    if not rest:
        return ""
    host = rest[0].replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'{{host="{host}"}}'
