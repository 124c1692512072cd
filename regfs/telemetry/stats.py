"""Counters and gauges of one mount, passed down from the composition root; not global.

Every claim about laziness is a counter here, and tests assert on counters, never on time. Names are dotted words,
`registry.requests`, `registry.bytes`, `cache.hits`, `layers.ingests`, `bugs`; the first word is the package that
counts. COUNTERS has all names, so that each counter reads 0 before its first event. Thread rule: one lock, held for an
addition; any thread may count and read.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict

COUNTERS = (
    "blobs.measured",
    "bugs",
    "cache.damaged",
    "cache.hits",
    "cache.scrubbed_bytes",
    "chunks.background_requests",
    "chunks.bytes",
    "chunks.kept",
    "chunks.refused_ranges",
    "chunks.requests",
    "chunks.rests",
    "chunks.streams",
    "chunks.whole_layers",
    "errors",
    "images.merges",
    "layers.bytes",
    "layers.compared",
    "layers.ingests",
    "layers.tables",
    "mount.interrupts",
    "mount.waits",
    "registry.bytes",
    "registry.errors",
    "registry.pieces",
    "registry.redirects",
    "registry.refused_pieces",
    "registry.requests",
    "registry.retries",
    "registry.stale_answers",
    "registry.token_requests",
    "starts.programs",
    "starts.replayed_bytes",
    "starts.replays",
)

MOST_GAUGES = 200
"""The bound on gauges: some have a host in their name, and a mirror file or a crawler may name any number."""


class Stats:
    """Counts events by name; gauges are set, counters only grow. The 200 gauges that were set last are kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))
        self._gauges: OrderedDict[str, float] = OrderedDict()

    def count(self, name: str, amount: int = 1) -> None:
        """Add *amount* to the counter *name*."""
        with self._lock:
            self._counters[name] += amount

    def gauge(self, name: str, value: float) -> None:
        """Set the gauge *name* to *value*."""
        with self._lock:
            self._gauges[name] = value
            self._gauges.move_to_end(name)
            while len(self._gauges) > MOST_GAUGES:
                self._gauges.popitem(last=False)

    def value(self, name: str) -> float:
        """Return a counter or gauge; 0 where nothing was counted yet."""
        with self._lock:
            return self._gauges.get(name, self._counters[name])

    def snapshot(self) -> dict[str, float]:
        """Return all counters and gauges by name, sorted."""
        with self._lock:
            return dict(sorted({**self._counters, **self._gauges}.items()))
