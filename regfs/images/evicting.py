"""Evicts from a cache what its user names: an image, or a part as `.regfs/cache/` calls it.

`regfs cache rm` and rm(1) in `.regfs/cache/` both come here. What any process has open, what the kernel has mounted and
what is pinned stays. Used by verbs/cache.py and app/control.py. Thread rule: functions; any thread and process; they
block on the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from regfs.errors import InUse, NotFound
from regfs.images.cached_images import CachedImage, cached_images
from regfs.images.holdings import KIND_OF_IMAGES, kind_of, name_of, short_name
from regfs.model.digest import Digest
from regfs.store.eviction.eviction import evict, units_of
from regfs.store.eviction.in_use import LivingUses
from regfs.store.eviction.inventory import BLOBS, take_inventory
from regfs.store.eviction.pins import pins
from regfs.store.files.failures import failures_of

_WHY = {
    "open": "a process has it open",
    "mounted": "the kernel has it mounted (regfs umount)",
    "pinned": "it is pinned (regfs unpin)",
}


class Gone(NamedTuple):
    """The result of an eviction: bytes freed, and the guards of what is in use and stays."""

    freed: int
    in_use: tuple[Path, ...]


def evict_images(
    root: Path, images: Sequence[CachedImage], wanted: Collection[Digest], *, only_say: bool = False
) -> Gone:
    """Evict what of all *images* of the cache only the *wanted* ones need. Raises InUse if one is pinned; CacheFailure.

    The documents of an image with parts in use stay: without them the rest would not be listed.
    """
    with failures_of(root):
        held = sorted(pin.name for pin in pins(root) if pin.digest in {str(digest) for digest in wanted})
    if held:
        raise InUse(f"pinned images stay: {', '.join(held)}; regfs unpin IMAGE unpins one")
    staying = frozenset[Path]().union(*(image.guards for image in images if image.digest not in wanted))
    chosen = frozenset[Path]().union(*(image.guards for image in images if image.digest in wanted)) - staying
    blobs = root / BLOBS
    parts = _evict(root, frozenset(path for path in chosen if blobs not in path.parents), only_say=only_say)
    if parts.in_use:
        return parts
    everything = _evict(root, chosen, only_say=only_say)
    return everything if only_say else everything._replace(freed=parts.freed + everything.freed)


def evict_named(root: Path, kind: str, name: str, *, let_go: Callable[[], object] = lambda: None) -> int:
    """Evict the part *name* of `.regfs/cache/KIND/`, all of it or nothing; return the bytes freed.

    *let_go* closes what this process used lately, and is called where that may be all that keeps the part. Raises
    NotFound where there is no such part, InUse with the reason, CacheFailure.
    """
    gone = _evict_named(root, kind, name, only_say=True)
    if gone.in_use:
        let_go()
        gone = _evict_named(root, kind, name, only_say=True)
    if not gone.in_use:
        gone = _evict_named(root, kind, name, only_say=False)
    if gone.in_use:
        raise InUse(f"{kind}/{name} stays in the cache: {_reasons(root, gone.in_use)}")
    return gone.freed


def _evict_named(root: Path, kind: str, name: str, *, only_say: bool) -> Gone:
    if kind == KIND_OF_IMAGES:
        images = cached_images(root)
        wanted = {image.digest for image in images if short_name(image) == name}
        if not wanted:
            raise NotFound(f"{kind}/{name} is not in the cache")
        return evict_images(root, images, wanted, only_say=only_say)
    return evict_part(root, kind, name, only_say=only_say)


def evict_part(root: Path, kind: str, name: str, *, only_say: bool = False) -> Gone:
    """Evict the part *name* of `.regfs/cache/KIND/`; it is no image. Raises NotFound, CacheFailure."""
    with failures_of(root):
        units = units_of(take_inventory(root))
    guards = frozenset(unit.guard.path for unit in units if name_of(unit) == name and kind_of(root, unit) == kind)
    if not guards:
        raise NotFound(f"{kind}/{name} is not in the cache")
    return _evict(root, guards, only_say=only_say)


def _evict(root: Path, guards: frozenset[Path], *, only_say: bool) -> Gone:
    with failures_of(root):
        evicted = evict(root, chosen=lambda unit: unit.guard.path in guards, only_say=only_say)
    return Gone(evicted.freed, evicted.in_use)


def _reasons(root: Path, guards: Iterable[Path]) -> str:
    """Return why *guards* stay, each reason once."""
    uses = LivingUses(root)
    with failures_of(root):
        uses.look()
    words = dict.fromkeys(word for guard in guards for word in uses.holders_of(guard))
    return "; ".join(_WHY[word] for word in words) or "a process had it open until now"
