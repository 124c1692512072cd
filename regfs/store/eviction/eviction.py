"""Evicts from the cache: which files together, in which order, and what stays because a process uses it.

    a promoted file    first of all: its layer has its bytes too; it keeps its room until nothing has it open
    a layer's content  its data file, the parts of it, promoted files; its files can still be listed then. Of plain
                       layers alone
    a layer            all of it
    chunks             of a lazy layer that is in use, if the budget needs their room (chunk_eviction.py)
    a merged table     with its EROFS image
    a blob

What was used longest ago is evicted first (in the future, before the clock was set back, counts as now), and content
before names: an index, a merged table or a document counts as
if it had been used a day later than it was. Layers of an older release are evicted in any case. Used by the budget,
which makes room, and by the verbs of the cache, which evict what they are told to or only say what would be evicted.
Thread rule: any thread; any number of processes.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from regfs.store.eviction.in_use import LivingUses
from regfs.store.eviction.inventory import (
    CHUNKS,
    DATA,
    INDEX,
    MERGED,
    OLD_PACK,
    PARTS,
    CachedFile,
    Inventory,
    take_inventory,
)
from regfs.store.layers.chunk_eviction import evict_chunks
from regfs.store.locks.file_locks import changing, claimed, touch

_OF_NO_USE, _PROMOTED = 0, 1
_NAMES_OUTLIVE_NS = 24 * 3600 * 10**9
# Clocks of machines that share a cache differ by less.
_SKEW_NS = 60 * 10**9
# Blobs up to this size are manifests, configs and tables of contents: names, too.
_DOCUMENT = 4 << 20
_BYTES = (DATA, PARTS)
_MAPS = (CHUNKS, PARTS)


class Unit(NamedTuple):
    """Files that are evicted together: *guard* is the one that uses name (in_use.py), and is removed first.

    *turn* is 0 for useless files, 1 for those that are evicted before all others, 2 for the others. *content* are those
    of the *others* that may be evicted alone.
    """

    guard: CachedFile
    others: tuple[CachedFile, ...] = ()
    turn: int = 2
    content: tuple[CachedFile, ...] = ()

    @property
    def used_ns(self) -> int:
        """When it was used last: opened, or read chunk by chunk (chunk_map.py)."""
        return max(file.used_ns for file in (self.guard, *self.others) if file is self.guard or file.suffix in _MAPS)

    @property
    def size(self) -> int:
        """The bytes on the disk of the guard and the others."""
        return self.guard.size + sum(file.size for file in self.others)


class Evicted(NamedTuple):
    """What an eviction did: what was removed, with the bytes that each freed, and the guards that are in use.

    In bytes: *freed* in all, files without an owner included; *left* in the cache; *being_written* of these by living
    processes.
    """

    freed: int
    left: int
    being_written: int
    units: tuple[tuple[Path, int], ...]
    in_use: tuple[Path, ...]


def units_of(found: Inventory) -> list[Unit]:
    """Return what can be evicted of *found*."""
    units = [Unit(file) for file in found.blobs]
    units += [Unit(file, turn=_PROMOTED) for file in found.objects]
    for files in found.images.values():
        if MERGED in files:
            units.append(Unit(files[MERGED], _all_but(files, MERGED)))
    copies: dict[str, list[CachedFile]] = {}
    for file in found.objects:
        copies.setdefault(os.path.basename(file.directory), []).append(file)
    for name, files in found.layers.items():
        if INDEX in files:
            # A lazy layer is evicted as a whole: with a map that outlives its data file, or belongs to another one,
            # holes would count as content.
            own = copies.get(name, [])
            bytes_of_it = [files[suffix] for suffix in _BYTES if suffix in files and CHUNKS not in files]
            content = [*own, *bytes_of_it] if bytes_of_it else []
            turn = _OF_NO_USE if OLD_PACK in files else 2
            units.append(Unit(files[INDEX], (*_all_but(files, INDEX), *own), turn, tuple(content)))
    return units


class _Step(NamedTuple):
    """One step of an eviction: *files* of *unit* are removed. They count as last used at *as_if_used_ns*."""

    unit: Unit
    files: tuple[CachedFile, ...]
    as_if_used_ns: int

    @property
    def place(self) -> tuple[int, int]:
        """The sort key: steps are taken in this order."""
        return self.unit.turn, self.as_if_used_ns


def _steps(unit: Unit, now_ns: int) -> Iterator[_Step]:
    """Yield the steps in which *unit* is evicted."""
    used_ns, guard = min(unit.used_ns, now_ns), unit.guard
    if unit.content:
        yield _Step(unit, unit.content, used_ns)
    has_bytes = not unit.content and any(file.suffix in _BYTES for file in unit.others)
    has_names = not has_bytes and (guard.suffix in (INDEX, MERGED) or unit.size <= _DOCUMENT)
    later_ns = _NAMES_OUTLIVE_NS if has_names and unit.turn > _PROMOTED else 0
    yield _Step(unit, (guard, *unit.others), used_ns + later_ns)


def everything(_unit: Unit) -> bool:
    """Return True: choose every unit."""
    return True


def evict(
    root: Path,
    *,
    wanted: float = math.inf,
    keep: int = 0,
    chosen: Callable[[Unit], bool] = everything,
    unused_for_ns: int = 0,
    expired_ns: int = 0,
    with_chunks: bool = False,
    only_say: bool = False,
) -> Evicted:
    """Evict *chosen* units of the cache at *root*, those used longest ago first, and what has no owner.

    Stops when *wanted* bytes are freed, or no more than *keep* are held; what was not used since *expired_ns*
    (nanoseconds since 1970) is evicted in any case. What is in use stays, and what was used within *unused_for_ns*;
    *with_chunks*: but not the chunks of lazy layers, which their readers fetch again.
    *only_say* changes nothing and returns what would be evicted. Raises OSError, CacheFailure.
    """
    remove = _each_once(_size if only_say else _remove)
    freed, went = 0, list[tuple[Path, int]]()
    in_use: dict[Path, None] = {}
    now_ns, uses = time.time_ns(), LivingUses(root)
    with changing(root):
        found = take_inventory(root)
        freed += sum(_remove_dead(file, remove) for file in found.under_way)
        being_written = sum(file.size for file in found.under_way) - freed
        freed += sum(map(remove, _without_owner(found, uses)))
        wanted = min(wanted, found.size - keep)
        units = [unit for unit in units_of(found) if chosen(unit)]
        steps = [step for unit in units for step in _steps(unit, now_ns)]
        if not only_say:
            _age_from_now((unit.guard for unit in units), now_ns)
        for step in sorted(steps, key=lambda step: step.place):
            guard = step.unit.guard
            if step.unit.turn != _OF_NO_USE and step.unit.used_ns >= expired_ns:
                if freed >= wanted:
                    continue
                if 0 <= now_ns - step.unit.used_ns < unused_for_ns:
                    continue
            size = _evict_files(step, uses, remove)
            if size is None:
                in_use[guard.path] = None
                is_worth_it = with_chunks and freed < wanted
                size = _evict_chunks(step.unit, wanted - freed, uses, only_say=only_say) if is_worth_it else 0
            freed += size
            if size:
                went.append((step.files[0].path, size))
    return Evicted(freed, found.size - freed, being_written, tuple(went), tuple(in_use))


def _age_from_now(guards: Iterable[CachedFile], now_ns: int) -> None:
    """Let files that were used in the future be used now: else they would outlive all others until that time comes."""
    for guard in guards:
        if guard.used_ns > now_ns + _SKEW_NS:
            touch(guard.path)


def _evict_files(step: _Step, uses: LivingUses, remove: Callable[[CachedFile], int]) -> int | None:
    """Remove the files of *step*; return their bytes, or None where a process uses them. Raises OSError."""
    with uses.claimed(step.unit.guard.path) as is_ours:
        if not is_ours:
            return None
        size = remove(step.files[0])  # from here on other processes do not find it
    return size + sum(map(remove, step.files[1:]))


def _evict_chunks(unit: Unit, wanted: float, uses: LivingUses, *, only_say: bool) -> int:
    """Evict chunks of the layer *unit*, if it has some that may go; return the bytes. Raises OSError."""
    files = {file.suffix: file for file in unit.others}
    data, chunks = (files.get(DATA), files[CHUNKS]) if CHUNKS in files else (files.get(PARTS), files.get(PARTS))
    if data is None or chunks is None:
        return 0
    index, map_path = unit.guard.path, chunks.path
    if only_say:
        return 0 if uses.needs_whole(index, map_path) else data.size

    def may_begin() -> bool:
        return not uses.needs_whole(index, map_path)

    most = data.size if math.isinf(wanted) else int(wanted)
    return evict_chunks(index, min(most, data.size), may_begin=may_begin)


def _all_but(files: dict[str, CachedFile], suffix: str) -> tuple[CachedFile, ...]:
    return tuple(file for other, file in files.items() if other != suffix)


def _without_owner(found: Inventory, uses: LivingUses) -> Iterator[CachedFile]:
    """Yield files of a layer or image without its main file: a killed eviction or publication has left them.

    A main file that is in use is just being made again, an index from its archive. The caller removes each at once.
    """
    for tables, main in ((found.layers, INDEX), (found.images, MERGED)):
        for files in tables.values():
            if main not in files:
                with uses.claimed(next(iter(files.values())).path.with_suffix(main)) as is_ours:
                    yield from files.values() if is_ours else ()
    for file in found.objects:
        if INDEX not in found.layers.get(os.path.basename(file.directory), {}):
            yield file


def _remove_dead(file: CachedFile, remove: Callable[[CachedFile], int]) -> int:
    """Remove *file* if it is temporary and its writer has died; the layer store sweeps ingests."""
    if not file.is_temporary:
        return 0
    with claimed(file.path) as is_ours:
        return remove(file) if is_ours else 0


def _remove(file: CachedFile) -> int:
    try:
        file.path.unlink()
    except FileNotFoundError:
        return 0
    return file.size


def _size(file: CachedFile) -> int:
    return file.size


def _each_once(remove: Callable[[CachedFile], int]) -> Callable[[CachedFile], int]:
    """Return *remove*, called once for each file at most: a promoted file is in two units, its own and its layer's."""
    gone: set[CachedFile] = set()

    def once(file: CachedFile) -> int:
        if file in gone:
            return 0
        gone.add(file)
        return remove(file)

    return once
