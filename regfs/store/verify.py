"""Looks through a cache for rot: every file against its name or its sums. What is wrong is dropped, and fetched again.

    blobs     the digest that they are named by
    objects   the sha256 that they are named by
    layers    their sums; every file of theirs is there, and where the index says, with the size that it says
    images    their sums

Takes a second for each gigabyte. Daemons may work meanwhile: what seems wrong is looked at again while nothing is
published or evicted. A daemon that has a damaged file open, or its bytes in the kernel's memory, goes on with them
until its mount is made anew. Used by `regfs cache verify`. Thread rule: one thread.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from regfs.errors import InvalidName, RegfsError, Unsupported
from regfs.model.attributes import Attributes
from regfs.model.digest import Digest
from regfs.store.cached_files import open_file, take_away
from regfs.store.checksums import SUFFIX as SUMS
from regfs.store.checksums import load_sums, sha256_of
from regfs.store.failures import failures_of
from regfs.store.inventory import INDEX, MERGED, PACK, CachedFile, take_inventory
from regfs.store.layer_index import LayerIndex
from regfs.store.locks import changing
from regfs.store.merged_index import MergedIndex

_READ = 1 << 20


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a file of the cache."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def verify(root: Path, *, drop: bool) -> Iterator[Problem]:
    """Yield what is wrong in the cache at *root*, and *drop* it. Raises CacheFailure."""
    with failures_of(root):
        found = take_inventory(root)
        for blob in found.blobs:
            yield from _checked(root, [blob], partial(_wrong_blob, blob.path), drop=drop)
        for each in found.objects.values():
            yield from _checked(root, [each], partial(_wrong_object, each.path), drop=drop)
        # Layers after the objects: one that lost an object by that is to be passed again.
        for files in _led_by(INDEX, found.layers):
            yield from _checked(root, files, partial(_wrong_layer, root, files[0].path), drop=drop)
        for files in _led_by(MERGED, found.images):
            yield from _checked(root, files, partial(_wrong_image, root, files[0].path), drop=drop)


def _led_by(suffix: str, tables: dict[str, dict[str, CachedFile]]) -> Iterator[list[CachedFile]]:
    """Yield the files of each layer or image, the one with *suffix*, which makes the others visible, first."""
    for files in tables.values():
        if suffix in files:
            yield [files[suffix], *(file for other, file in files.items() if other != suffix)]


def _checked(
    root: Path, files: Sequence[CachedFile], wrong: Callable[[], str | None], *, drop: bool
) -> Iterator[Problem]:
    """Yield the problem that *wrong* finds, if any, and remove *files*, the first of which it is told about."""
    if _unless_gone(wrong) is None:
        return
    with changing(root):
        reason = _unless_gone(wrong)
        if reason is not None and drop:
            for file in files:
                with failures_of(file.path):
                    take_away(file.path)
    if reason is not None:
        yield Problem(files[0].path, reason)


def _unless_gone(wrong: Callable[[], str | None]) -> str | None:
    try:
        return wrong()
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):  # that says nothing about the file
            raise
        return f"cannot be read: {error.strerror}"


# Each of these returns what is wrong, and raises FileNotFoundError where the file itself is gone.


def _wrong_blob(path: Path) -> str | None:
    try:
        digest = Digest.parse(f"{path.parent.parent.name}:{path.name}")
        hasher = digest.hasher()
    except (InvalidName, Unsupported) as error:
        return f"its name is no digest: {error}"
    with open(open_file(path), "rb", buffering=0) as file:
        while chunk := file.read(_READ):
            hasher.update(chunk)
    return None if hasher.hexdigest() == digest.encoded else f"damaged: its {digest.algorithm} is {hasher.hexdigest()}"


def _wrong_object(path: Path) -> str | None:
    found = sha256_of(path)
    return None if found == path.name else f"damaged: its sha256 is {found}"


def _wrong_image(root: Path, path: Path) -> str | None:
    path.stat()
    try:
        sums = load_sums(path.with_suffix(SUMS))
        reason = _wrong_sum(root, path, sums)
        if reason is None:
            MergedIndex.open(path).close()
    except FileNotFoundError:
        return "without its sums"
    except (ValueError, RegfsError) as error:
        return str(error)
    return reason


def _wrong_layer(root: Path, index_path: Path) -> str | None:
    index_path.stat()
    pack_path = index_path.with_suffix(PACK)
    try:
        sums = load_sums(index_path.with_suffix(SUMS))
        missing = [name for name in sums if not (root / name).is_file()]
        if missing:
            return f"incomplete: {missing[0]} is missing"
        for path in (index_path, pack_path):
            if (reason := _wrong_sum(root, path, sums)) is not None:
                return reason
        return _wrong_content(root, index_path, sums)
    except FileNotFoundError:
        return "without its sums"
    except (ValueError, RegfsError) as error:
        return str(error)


def _wrong_sum(root: Path, path: Path, sums: dict[str, str]) -> str | None:
    name = path.relative_to(root).as_posix()
    return None if sha256_of(path) == sums.get(name) else f"damaged: {name} has another sum than it was written with"


def _wrong_content(root: Path, index_path: Path, sums: dict[str, str]) -> str | None:
    """Return what the index says about files that is not so."""
    pack_size = index_path.with_suffix(PACK).stat().st_size
    index = LayerIndex.open(index_path)
    try:
        for content, attributes in index.contents():
            size = Attributes.unpack(attributes).size
            if isinstance(content, int):
                if content + size > pack_size:
                    return f"wrong: bytes {content} to {content + size} of a pack of {pack_size}"
                continue
            name = f"objects/{content.hex()[:2]}/{content.hex()}"
            if name not in sums or (root / name).stat().st_size != size:
                return f"wrong: no {name} of {size} bytes"
    finally:
        index.close()
    return None
