"""What `.regfs/` shows in every tree: the app seen from inside. Used by composition.py. Any thread."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from regfs import __version__
from regfs.images.layers.layer_cache import LayerCache
from regfs.images.pinned_images import Images
from regfs.store.layers.layer_store import LayerStore
from regfs.store.references.tag_history import TagHistory
from regfs.telemetry.journal import Journal
from regfs.telemetry.metrics import metrics_text
from regfs.telemetry.request_log import RequestLog
from regfs.telemetry.stats import Stats
from regfs.tree import tag_history
from regfs.tree.cached_parts import NAME as CACHE
from regfs.tree.cached_parts import CachedParts, Ids
from regfs.tree.control import ControlDirectory

if TYPE_CHECKING:
    from regfs.images.holdings import Holdings


def control_directory(
    texts: Mapping[str, Callable[[], str]],
    history: TagHistory,
    default_registry: str,
    *,
    layers: LayerStore,
    images: Images,
    owner: Ids,
) -> ControlDirectory:
    """Return the directory with the files *texts*, the moves of tags, and what the cache of *layers* holds.

    *owner* may evict parts of the cache, which *images* then forget.
    """
    cache = CachedParts(lambda: _holdings(layers.root), lambda kind, name: _evict(layers, images, kind, name), owner)
    return ControlDirectory(
        texts, {tag_history.NAME: tag_history.HistoryDirectory(history, default_registry), CACHE: cache}
    )


def control_texts(
    stats: Stats, journal: Journal, requests: RequestLog, layer_cache: LayerCache
) -> dict[str, Callable[[], str]]:
    """Return the files of `.regfs/` that every tree has, by name."""
    return {
        "version": lambda: f"regfs {__version__}\n",
        "stats.json": lambda: json.dumps(stats.snapshot(), indent=1) + "\n",
        "metrics": lambda: metrics_text(stats),
        "errors": journal.text,
        "requests": requests.text,
        "fetching.json": lambda: _fetching(layer_cache),
    }


def _holdings(cache: Path) -> Holdings:
    from regfs.images.holdings import holdings  # imported here: few processes list the holders

    return holdings(cache)


def _evict(layers: LayerStore, images: Images, kind: str, name: str) -> frozenset[Path]:
    from regfs.images.eviction_by_name import evict_named  # imported here, as above

    gone = evict_named(layers.root, kind, name, let_go=layers.tables.close_idle)
    images.forget()
    return gone


def _fetching(layer_cache: LayerCache) -> str:
    """Return the layers that are being fetched and unpacked now, as JSON, for `regfs status`."""
    layers = [
        {
            "origin": each.blob.origin,
            "digest": str(each.blob.descriptor.digest),
            "size": each.blob.descriptor.size,
            "received": each.progress.received,
            "entries": each.progress.entries,
        }
        for each in layer_cache.under_way()
    ]
    return json.dumps(layers, indent=1) + "\n"
