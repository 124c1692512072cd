"""The work of `regfs cache du|ls|rm|prune|verify`: lists, shrinks and checks the cache.

All may run while daemons use the cache. Used by cli/verbs/cache.py, which prints what these functions return.
One thread; blocks on the disk.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from regfs.app.config import Config
from regfs.errors import NotFound
from regfs.images.cached_images import CachedImage, cached_images, unnamed_size
from regfs.images.eviction_by_name import evict_images, evict_part
from regfs.images.holdings import SHORT_DIGITS
from regfs.mount.mountpoint import mounts
from regfs.store.eviction.budget import Standing
from regfs.store.eviction.eviction import Evicted, evict
from regfs.store.eviction.inventory import take_inventory
from regfs.store.files.failures import failures_of
from regfs.store.layers.layer_store import LayerStore
from regfs.store.locks.work_locks import LOCKS, WorkLocks
from regfs.store.verify import Problem, verify
from regfs.verbs.image_argument import read_reference

_LOOK_S = 60.0
_PART = re.compile(r"(?:.*/)?\.regfs/cache/(layers|tables|blobs)/([0-9a-f]+)")
_HEX = re.compile(rf"(?:sha256:|(?:.*/)?\.regfs/cache/images/)?([0-9a-f]{{{SHORT_DIGITS},64}})")


@dataclass(frozen=True, slots=True)
class Usage:
    """What the cache holds: bytes and numbers of files by kind. *standing* is None where there is no cache yet."""

    sizes: Mapping[str, int]
    counts: Mapping[str, int]
    size: int
    images: int
    standing: Standing | None


@dataclass(frozen=True, slots=True)
class Removed:
    """The result of removing images: bytes freed, parts that stay because they are in use, other names removed."""

    freed: int
    parts_in_use: int
    other_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was evicted, or would be; *is_over*: more is left than the limit allows."""

    evicted: Evicted
    is_over: bool


def is_there(config: Config) -> bool:
    """Tell whether the cache directory exists. Raises CacheFailure where the user may not look."""
    with failures_of(config.cache_dir):
        return config.cache_dir.is_dir()


def usage(config: Config) -> Usage:
    """Return how much the cache holds. Raises CacheFailure."""
    root = config.cache_dir
    with failures_of(root):
        found = take_inventory(root)
    standing = LayerStore(root, limits=config.limits).budget.standing(wait_s=_LOOK_S) if root.is_dir() else None
    return Usage(found.sizes(), found.counts(), found.size, len(cached_images(root)), standing)


def listing(config: Config) -> tuple[list[CachedImage], int]:
    """Return the images that the cache holds, and the bytes that belong to none of them. Raises CacheFailure."""
    images = cached_images(config.cache_dir)
    return images, unnamed_size(config.cache_dir, images)


def remove(asked: Sequence[str], config: Config, *, dry_run: bool) -> Removed:
    """Evict what only the images *asked* for need, and the parts whose paths in `.regfs/cache/` are asked for.

    Raises NotFound, before any eviction, where one is not here; InUse where an image is pinned, or a part is in use.
    """
    root = config.cache_dir
    images = cached_images(root)
    parts = [match.groups() for match in map(_PART.fullmatch, asked) if match is not None]
    named = [text for text in asked if not _PART.fullmatch(text)]
    wanted = {image.digest for text in named for image in images_named(text, images, config.default_registry)}
    for kind, name in parts:
        evict_part(root, kind, name, only_say=True)
    gone = [evict_images(root, images, wanted, only_say=dry_run)]
    gone += [evict_part(root, kind, name, only_say=dry_run) for kind, name in parts]
    names = {name for image in images if image.digest in wanted for name in shown_names(image)} - set(asked)
    freed, in_use = sum(each.freed for each in gone), sum(len(each.in_use) for each in gone)
    return Removed(freed, in_use, tuple(sorted(names)))


def prune(config: Config, *, keep: int | None, dry_run: bool) -> Pruned:
    """Evict what was used longest ago until *keep* bytes are left; None: those of --cache-size.

    What was not used for --cache-age is evicted in any case. Raises CacheFailure.
    """
    store = LayerStore(config.cache_dir, limits=config.limits)
    if keep is None:
        keep = store.budget.effective_limit()
    if not dry_run:
        store.sweep()
        WorkLocks(store.root / LOCKS).sweep()
    with failures_of(config.cache_dir):
        evicted = evict(config.cache_dir, keep=keep, expired_ns=config.limits.expired_ns, only_say=dry_run)
    return Pruned(evicted, evicted.left > keep)


def problems(config: Config, *, drop: bool) -> Iterator[Problem]:
    """Yield what is wrong in the cache, and *drop* it: see store/verify.py. Raises CacheFailure."""
    return verify(config.cache_dir, drop=drop)


def images_named(text: str, images: Collection[CachedImage], default_registry: str) -> list[CachedImage]:
    """Return the images that *text* names. Raises NotFound.

    *text* is a digest or its beginning, the path of an image in `.regfs/cache/images/`, or what other verbs take.
    """
    digits = _HEX.fullmatch(text)
    if digits is not None:
        found = [each for each in images if any(digest.encoded.startswith(digits[1]) for digest in each.digests)]
    else:
        reference = read_reference(text, default_registry, mounts())
        wanted = reference.digest
        name = f"{reference.repository}:{reference.tag}"
        found = [each for each in images if (wanted in each.digests if wanted is not None else name in each.names)]
    if not found:
        raise NotFound(f"{text} is not in the cache; regfs cache ls shows what is")
    return found


def shown_names(image: CachedImage) -> list[str]:
    """Return the names of *image* with their digests shortened, for people."""
    return [re.sub(rf"(@\w+:[0-9a-f]{{{SHORT_DIGITS}}})[0-9a-f]+", r"\1…", name) for name in image.names]
