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
    return _evict(root, _needed_alone(root, images, wanted), only_say=only_say)


def evict_part(root: Path, kind: str, name: str, *, only_say: bool = False) -> Gone:
    """Evict the part *name* of `.regfs/cache/KIND/`; it is no image. Raises NotFound, InUse, CacheFailure."""
    guards = _part(root, kind, name)
    if held := _holders(root, guards):
        raise _in_use(kind, name, held)
    return _evict(root, guards, only_say=only_say)


def evict_named(root: Path, kind: str, name: str, *, let_go: Callable[[], object] = lambda: None) -> frozenset[Path]:
    """Evict the part *name* of `.regfs/cache/KIND/`, all of it or nothing; return the guards of what is gone.

    *let_go* closes what this process used lately, and is called where that may be all that keeps the part. Raises
    NotFound where there is no such part, InUse with the reason, CacheFailure.
    """
    guards = _image(root, name) if kind == KIND_OF_IMAGES else _part(root, kind, name)
    if _holders(root, guards):
        let_go()
    held = _holders(root, guards)
    # What begins to be used from here on is not removed, either.
    if held or _evict(root, guards).in_use:
        raise _in_use(kind, name, held or _holders(root, guards))
    return guards


def _image(root: Path, name: str) -> frozenset[Path]:
    """Return the guards of what the image *name* alone needs. Raises NotFound, InUse, CacheFailure."""
    images = cached_images(root)
    wanted = {image.digest for image in images if short_name(image) == name}
    if not wanted:
        raise NotFound(f"{KIND_OF_IMAGES}/{name} is not in the cache")
    return _needed_alone(root, images, wanted)


def _needed_alone(root: Path, images: Sequence[CachedImage], wanted: Collection[Digest]) -> frozenset[Path]:
    """Return the guards of what of all *images* only the *wanted* ones need. Raises InUse if one is pinned."""
    with failures_of(root):
        held = sorted(pin.name for pin in pins(root) if pin.digest in {str(digest) for digest in wanted})
    if held:
        raise InUse(f"pinned images stay: {', '.join(held)}; regfs unpin IMAGE unpins one")
    staying = frozenset[Path]().union(*(image.guards for image in images if image.digest not in wanted))
    return frozenset[Path]().union(*(image.guards for image in images if image.digest in wanted)) - staying


def _part(root: Path, kind: str, name: str) -> frozenset[Path]:
    with failures_of(root):
        units = units_of(take_inventory(root))
    guards = frozenset(unit.guard.path for unit in units if name_of(unit) == name and kind_of(root, unit) == kind)
    if not guards:
        raise NotFound(f"{kind}/{name} is not in the cache")
    return guards


def _evict(root: Path, guards: frozenset[Path], *, only_say: bool = False) -> Gone:
    """Evict the units of *guards*, the documents among them only if nothing else is in use."""
    parts = _evict_all(root, frozenset(path for path in guards if root / BLOBS not in path.parents), only_say=only_say)
    if parts.in_use:
        return parts
    everything = _evict_all(root, guards, only_say=only_say)
    return everything if only_say else everything._replace(freed=parts.freed + everything.freed)


def _evict_all(root: Path, guards: frozenset[Path], *, only_say: bool) -> Gone:
    with failures_of(root):
        evicted = evict(root, chosen=lambda unit: unit.guard.path in guards, only_say=only_say)
    return Gone(evicted.freed, evicted.in_use)


def _holders(root: Path, guards: Iterable[Path]) -> list[str]:
    """Return what keeps one of *guards* from eviction now, each word of _WHY once."""
    uses = LivingUses(root)
    with failures_of(root):
        uses.look()
    return list(dict.fromkeys(word for guard in guards for word in uses.holders_of(guard)))


def _in_use(kind: str, name: str, held: Iterable[str]) -> InUse:
    reasons = "; ".join(_WHY[word] for word in held) or "a process had it open until now"
    return InUse(f"{kind}/{name} stays in the cache: {reasons}")
