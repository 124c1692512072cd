"""Describes for people what a cache holds, and what keeps each part from eviction, as `.regfs/cache/` shows it.

Used by tree/cached_parts.py and eviction_by_name.py. Thread rule: functions; files may come and go while they run.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from regfs.images.cached_images import CachedImage, cached_images
from regfs.model.dates import moment_text
from regfs.store.blobs import BlobStore
from regfs.store.eviction.eviction import Unit, units_of
from regfs.store.eviction.in_use import LivingUses
from regfs.store.eviction.inventory import BLOBS, IMAGES, INDEX, LAYERS, MERGED, take_inventory
from regfs.store.files.failures import failures_of

SHORT_DIGITS = 12
"""How many digits of its digest an image's name has, as in `regfs cache ls` and `regfs cache rm`."""
MOST = 10_000
"""How many parts of each kind are shown: those used last."""
KIND_OF_IMAGES = "images"
_KINDS = {LAYERS: "layers", IMAGES: "tables", BLOBS: "blobs"}
"""What each kind of parts is called here, by its directory in the cache."""
_SUFFIXES = (INDEX, MERGED)


class Held(NamedTuple):
    """One part of the cache: its description, a line for each fact, and when it was last used (ns since 1970).

    It is gone when *guard* is: the main file of its unit (eviction.py), of an image that of its manifest.
    """

    text: str
    used_ns: int
    guard: Path


class Holdings(NamedTuple):
    """The images of a cache by the beginnings of their digests, and its files by kind and name."""

    images: Mapping[str, Held]
    layers: Mapping[str, Held]
    tables: Mapping[str, Held]
    blobs: Mapping[str, Held]

    def without(self, guards: Collection[Path]) -> Holdings:
        """Return the holdings without those whose guards are among *guards*."""
        return Holdings(*({name: held for name, held in kind.items() if held.guard not in guards} for kind in self))


def holdings(root: Path) -> Holdings:
    """Return what the cache at *root* holds. Walks over it and reads all manifests. Raises CacheFailure."""
    images = cached_images(root)
    uses = LivingUses(root)
    with failures_of(root):
        uses.look()
        units = units_of(take_inventory(root))
    owners: dict[Path, list[str]] = {}
    for image in images:
        for guard in image.guards:
            owners.setdefault(guard, []).extend(image.names)
    by_kind: dict[str, list[Unit]] = {kind: [] for kind in _KINDS.values()}
    for unit in units:
        if kind := kind_of(root, unit):
            by_kind[kind].append(unit)
    shown = {short_name(image): _image(root, uses, image) for image in images[:MOST]}
    return Holdings(shown, **{kind: _parts(uses, owners, by_kind[kind]) for kind in by_kind})


def kind_of(root: Path, unit: Unit) -> str:
    """Return the directory of `.regfs/cache/` that *unit* is shown in: `layers`, `tables` or `blobs`; '' for none."""
    return _KINDS.get(unit.guard.path.relative_to(root).parts[0], "")


def name_of(unit: Unit) -> str:
    """Return the name that *unit* has there."""
    return unit.guard.stem if unit.guard.suffix in _SUFFIXES else unit.guard.name


def short_name(image: CachedImage) -> str:
    """Return the name of *image* in `.regfs/cache/images/`."""
    return image.digest.encoded[:SHORT_DIGITS]


def _parts(uses: LivingUses, owners: Mapping[Path, list[str]], units: list[Unit]) -> dict[str, Held]:
    latest = sorted(units, key=lambda unit: -unit.guard.used_ns)[:MOST]
    return {name_of(unit): _part(uses, owners.get(unit.guard.path, []), unit) for unit in latest}


def _part(uses: LivingUses, images: list[str], unit: Unit) -> Held:
    lines = _facts(unit.size, unit.guard.used_ns, uses.holders_of(unit.guard.path))
    if unit.guard.suffix == INDEX and not unit.content:
        lines.append("bytes of its files: evicted; they are fetched again when they are read")
    lines += [f"image: {name}" for name in sorted(images)]
    return Held(_text(lines), unit.guard.used_ns, unit.guard.path)


def _image(root: Path, uses: LivingUses, image: CachedImage) -> Held:
    holders = dict.fromkeys(word for guard in sorted(image.guards) for word in uses.holders_of(guard))
    lines = [
        *(f"name: {name}" for name in image.names),
        f"manifest: {image.digest}",
        *([f"platform: {image.platform}"] if image.platform else []),
        f"layers: {image.layers_here} of {image.layers}",
        *_facts(image.size, image.used_ns, list(holders)),
        f"size of what no other image needs: {image.unique_size}",
        *_paths(root, image),
    ]
    return Held(_text(lines), image.used_ns, BlobStore(root / BLOBS).path(image.digest))


def _paths(root: Path, image: CachedImage) -> Iterator[str]:
    for guard in sorted(image.guards):
        yield f"part: {guard.relative_to(root).as_posix()}"


def _facts(size: int, used_ns: int, holders: list[str]) -> list[str]:
    return [
        f"size: {size}",
        f"used: {moment_text(used_ns / 1e9)}",
        f"held: {', '.join(holders) or 'by nothing'}",
    ]


def _text(lines: list[str]) -> str:
    return "".join(f"{os.fsencode(line).decode(errors='replace')}\n" for line in lines)
