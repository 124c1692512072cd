"""`regfs cache du|ls|rm|prune|verify`: what is in the cache, less of it, and whether it is what it was.

All of them may run while daemons use the cache. The command line gives the words and prints what is said.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from regfs.config import Config, parse_cache_size
from regfs.errors import InvalidOption, NotFound
from regfs.images.cached import CachedImage, cached_images, unnamed_size
from regfs.mount.mountpoint import mounts
from regfs.store.budget import Standing
from regfs.store.eviction import Unit, evict
from regfs.store.failures import failures_of
from regfs.store.inventory import take_inventory
from regfs.store.layer_store import LayerStore
from regfs.store.verify import verify
from regfs.store.work_locks import LOCKS, WorkLocks
from regfs.telemetry.units import in_units
from regfs.verbs.images import read_reference
from regfs.verbs.progress import in_words

Say = Callable[[str], None]

FAILED = 1
BAD_CONTENT = 6
WORDS = ("du", "ls", "rm", "prune", "verify")
_LOOK_S = 60.0
_SHORT = 12
_WORTH_A_LINE = 1 << 20
_HEX = re.compile(rf"(?:sha256:)?([0-9a-f]{{{_SHORT},64}})")


# Kinds of files that people would take for something else.
_KINDS = {"images": "merged tables"}


def run(given: argparse.Namespace, config: Config, *, say: Say, warn: Say) -> int:
    """Do what the words ask for, and return the exit code. Raises InvalidOption, NotFound, CacheFailure."""
    _refuse_strangers(given)
    root = config.cache_dir
    with failures_of(root):
        is_there = root.is_dir()
    if not is_there:
        warn(f"there is no cache at {root} yet; --cache-dir names another")
    if given.what == "du":
        say(_usage(config, as_json=given.format == "json"))
        return 0
    if given.what == "ls":
        for line in _listing(root, as_json=given.format == "json"):
            say(line)
        return 0
    if given.what == "rm":
        return _remove(given.images, config, only_say=given.dry_run, say=say)
    if not is_there:
        return 0
    if given.what == "prune":
        return _prune(given, config, say)
    return _verify(root, drop=not given.dry_run, say=say)


def _refuse_strangers(given: argparse.Namespace) -> None:
    """Refuse options of another word: a user who writes `du --all` thinks of something that will not happen."""
    strangers = {
        "--format": given.format != "text" and given.what not in ("du", "ls"),
        "--all": given.all and given.what != "prune",
        "--to": given.to is not None and given.what != "prune",
        "--dry-run": given.dry_run and given.what not in ("rm", "prune", "verify"),
        "--to beside --all": given.all and given.to is not None,
        "an image": bool(given.images) and given.what != "rm",
    }
    for option, is_strange in strangers.items():
        if is_strange:
            raise InvalidOption(f"{option} means nothing to regfs cache {given.what}")
    if given.to is not None:
        parse_cache_size(given.to)
    if given.what == "rm" and not given.images:
        raise InvalidOption("regfs cache rm needs an image; regfs cache ls shows those that are here")


# What is here.


def _usage(config: Config, *, as_json: bool) -> str:
    root = config.cache_dir
    with failures_of(root):
        found = take_inventory(root)
    sizes, counts, images = found.sizes(), found.counts(), len(cached_images(root))
    standing = LayerStore(root, limit=config.cache_size).budget.standing(wait_s=_LOOK_S) if root.is_dir() else None
    if as_json:
        kinds = {kind.replace(" ", "_"): {"files": counts[kind], "bytes": sizes[kind]} for kind in sizes}
        told = {
            "path": str(root),
            "exists": root.is_dir(),
            "bytes": found.size,
            "limit_bytes": standing.limit if standing is not None else None,
            "free_bytes": standing.free if standing is not None else None,
            "images": images,
            "kinds": kinds,
        }
        return json.dumps(told, indent=1)
    rows = [(_KINDS.get(kind, kind), str(counts[kind]), in_units(size)) for kind, size in sizes.items()]
    rows.append(("total", "", in_units(found.size)))
    rows += _limit_rows(standing)
    rows.append(("images", str(images), "(list them: regfs cache ls)"))
    return "\n".join([str(root), *(f"{kind:<14}{count:>8}  {size:>12}".rstrip() for kind, count, size in rows)])


def _limit_rows(standing: Standing | None) -> list[tuple[str, str, str]]:
    if standing is None:
        return []
    limit = in_units(standing.limit) if standing.limit else "0: in use only"
    return [("limit", "", limit), ("free", "", in_units(standing.free))]


def _listing(root: Path, *, as_json: bool) -> list[str]:
    images = cached_images(root)
    if as_json:
        return [json.dumps([_as_json(image) for image in images], indent=1)]
    rows = [("DIGEST", "SIZE", "UNIQUE", "LAYERS", "USED", "IMAGE")]
    now_ns = time.time_ns()
    for image in images:
        used = in_words(max(0, now_ns - image.used_ns) // 10**9)
        layers = f"{image.layers_here}/{image.layers}"
        sizes = in_units(image.size), in_units(image.unique_size)
        rows.append((image.digest.encoded[:_SHORT], *sizes, layers, used, ", ".join(_shown_names(image))))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = ["  ".join([*(cell.ljust(w) for cell, w in zip(row[:5], widths, strict=True)), row[5]]) for row in rows]
    unnamed = unnamed_size(root, images)
    if unnamed >= _WORTH_A_LINE:
        lines.append(
            f"{in_units(unnamed)} more belong to no image that is known by name; regfs cache prune removes them"
        )
    return lines


def _shown_names(image: CachedImage) -> list[str]:
    """Return the names of *image*, digests shortened: the digest has a column of its own."""
    return [re.sub(rf"(@\w+:[0-9a-f]{{{_SHORT}}})[0-9a-f]+", r"\1…", name) for name in image.names]


def _as_json(image: CachedImage) -> dict[str, object]:
    return {
        "digest": str(image.digest),
        "names": list(image.names),
        "platform": image.platform,
        "layers": image.layers,
        "layers_here": image.layers_here,
        "bytes": image.size,
        "unique_bytes": image.unique_size,
        "used": image.used_ns / 10**9,
    }


# Less of it.


def _remove(asked: Sequence[str], config: Config, *, only_say: bool, say: Say) -> int:
    """Evict what only the images *asked* for need. Raises NotFound, before anything goes, where one is not here."""
    root = config.cache_dir
    images = cached_images(root)
    going: dict[str, list[CachedImage]] = {text: _matching(text, images, config.default_registry) for text in asked}
    wanted = {image.digest for found in going.values() for image in found}
    staying = frozenset[Path]().union(*(image.guards for image in images if image.digest not in wanted))
    chosen = frozenset[Path]().union(*(image.guards for image in images if image.digest in wanted)) - staying
    blobs = root / "blobs"
    with failures_of(root):
        parts = evict(root, chosen=_among({path for path in chosen if blobs not in path.parents}), only_say=only_say)
        freed = parts.freed
        if not parts.in_use:  # else its documents stay as well: they are what shows that the rest is here
            freed += evict(root, chosen=_among(chosen), only_say=only_say).freed - (parts.freed if only_say else 0)
    others = sorted({name for image in images if image.digest in wanted for name in _shown_names(image)} - set(asked))
    also = f" (also {', '.join(others)})" if others else ""
    size = in_units(freed) if freed else "nothing"
    told = f"{', '.join(asked)}{also}: {size} {'would be freed' if only_say else 'freed'}"
    count = len(parts.in_use)
    say(f"{told}: {count} part{' is' if count == 1 else 's are'} in use by a mount (regfs umount)" if count else told)
    return FAILED if parts.in_use else 0


def _among(paths: Collection[Path]) -> Callable[[Unit], bool]:
    return lambda unit: unit.guard.path in paths


def _matching(text: str, images: Collection[CachedImage], default_registry: str) -> list[CachedImage]:
    """Return the images that *text* names: by a digest or its beginning, or as the tree and the verbs read it."""
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


def _prune(given: argparse.Namespace, config: Config, say: Say) -> int:
    store = LayerStore(config.cache_dir, limit=config.cache_size)
    to = 0 if given.all else parse_cache_size(given.to) if given.to is not None else store.budget.effective_limit()
    if not given.dry_run:
        store.sweep()
        WorkLocks(store.root / LOCKS).sweep()
    with failures_of(config.cache_dir):
        evicted = evict(config.cache_dir, keep=to, only_say=given.dry_run)
    if given.dry_run:
        for path, size in evicted.units:
            say(f"{in_units(size):>10}  {path.relative_to(config.cache_dir)}")
    in_use = "; what is in use stays" if evicted.in_use and evicted.left > to else ""
    freed, left = ("would be freed", "would be left") if given.dry_run else ("freed", "left")
    say(f"{in_units(evicted.freed)} {freed}, {in_units(evicted.left)} {left}{in_use}")
    return 0


def _verify(root: Path, *, drop: bool, say: Say) -> int:
    count = 0
    for problem in verify(root, drop=drop):
        say(str(problem))
        count += 1
    if not count:
        say("all is well")
        return 0
    what_then = (
        "dropped; a mount that has them open shows them until it is mounted again" if drop else "left as they are"
    )
    say(f"{count} damaged: {what_then}")
    return BAD_CONTENT
