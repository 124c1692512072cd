"""Checks a cache for rot: every file against its name or its checksum. What is wrong is dropped, and fetched again.

    blobs     the digest that is their name
    layers    the sum of the index; the data file's diff id, which is its name, and where the index says files are;
              the sum of the digests of files
    objects   the bytes of the data file that they are copies of
    images    the sums of merged tables, of what differs between two, and of EROFS images

Takes a second for each gigabyte. Daemons may work meanwhile: what seems wrong is checked again while nothing is
published or evicted. A mount that has a damaged file open, or its bytes in the page cache, shows them until it is
mounted again. Used by `regfs cache verify`, and by scrub.py. Thread rule: one thread.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from regfs.errors import InvalidName, RegfsError, Unsupported
from regfs.model.digest import Digest
from regfs.store.eviction.inventory import DATA, DIGESTS, EROFS, INDEX, LAYERS, MERGED, CachedFile, take_inventory
from regfs.store.files.cached_files import hash_file, open_file, take_away
from regfs.store.files.checksums import SUFFIX as SUMS
from regfs.store.files.checksums import load_sums
from regfs.store.files.failures import failures_of
from regfs.store.images.merged_table import MergedTable
from regfs.store.images.tables_of_differences import is_differing, sums_of
from regfs.store.layers.content_digests import read_digests
from regfs.store.layers.wrong_layers import read_exactly, wrong_layer, wrong_sum
from regfs.store.locks.file_locks import changing

_READ = 1 << 20


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a file of the cache."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class Check(NamedTuple):
    """Files that are checked together: the first of *files* makes the others visible; *find* returns what is wrong."""

    root: Path
    files: tuple[CachedFile, ...]
    find: Callable[[], str | None]

    @property
    def path(self) -> Path:
        """The first of the files."""
        return self.files[0].path

    @property
    def size(self) -> int:
        """The bytes on the disk of all of them."""
        return sum(file.size for file in self.files)

    def run(self, *, drop: bool) -> Problem | None:
        """Read the files; return what is wrong, if anything. *drop* removes them then. Raises OSError, CacheFailure."""
        return _checked(self.root, self.files, self.find, drop=drop)


def checks(root: Path) -> Iterator[Check]:
    """Yield the checks of all that is in the cache at *root* now, each before it is run. Raises OSError."""
    found = take_inventory(root)
    for blob in found.blobs:
        yield Check(root, (blob,), partial(_wrong_blob, blob.path))
    for files in _led_by(INDEX, found.layers):
        copies = found.promoted(files[0].stem)
        yield Check(root, (*files, *copies), partial(wrong_layer, root, files[0].path))
        for each in (file for file in files if file.suffix == DIGESTS):
            yield Check(root, (each,), partial(_wrong_digests, each.path))
    # Copies after the layers: those of a wrong layer were dropped with it.
    for each in found.objects:
        yield Check(root, (each,), partial(_wrong_copy, root, each.path))
    for files in _led_by(MERGED, found.images):
        yield Check(root, tuple(files), partial(_wrong_image, root, files[0].path))
    for files_of_one in found.images.values():
        for suffix, each in files_of_one.items():
            if suffix == EROFS:
                yield Check(root, (each,), partial(_wrong_erofs, root, each.path))
            elif is_differing(suffix):
                yield Check(root, (each,), partial(_wrong_comparison, root, each.path))


def verify(root: Path, *, drop: bool) -> Iterator[Problem]:
    """Yield what is wrong in the cache at *root*; *drop* removes it. Raises CacheFailure."""
    with failures_of(root):
        for check in checks(root):
            if (problem := check.run(drop=drop)) is not None:
                yield problem


def _led_by(suffix: str, tables: dict[str, dict[str, CachedFile]]) -> Iterator[list[CachedFile]]:
    """Yield the files of each layer or image; the first has *suffix* and makes the others visible."""
    for files in tables.values():
        if suffix in files:
            yield [files[suffix], *(file for other, file in files.items() if other != suffix)]


def _checked(root: Path, files: Sequence[CachedFile], wrong: Callable[[], str | None], *, drop: bool) -> Problem | None:
    """Return the problem that *wrong* finds in the first of *files*, if any, and remove *files* then."""
    if _unless_gone(wrong) is None:
        return None
    with changing(root):
        reason = _unless_gone(wrong)
        if reason is not None and drop:
            for file in files:
                with failures_of(file.path):
                    take_away(file.path)
    return None if reason is None else Problem(files[0].path, reason)


def _unless_gone(wrong: Callable[[], str | None]) -> str | None:
    try:
        return wrong()
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):  # this says nothing about the file
            raise
        return f"cannot be read: {error.strerror}"


# Each of these returns what is wrong, and raises FileNotFoundError where the file itself is gone.


def _wrong_blob(path: Path) -> str | None:
    try:
        digest = Digest.parse(f"{path.parent.parent.name}:{path.name}")
        hasher = digest.hasher()
    except (InvalidName, Unsupported) as error:
        return f"its name is not a digest: {error}"
    found = hash_file(path, hasher)
    return None if found == digest.encoded else f"damaged: its {digest.algorithm} is {found}"


def _wrong_copy(root: Path, path: Path) -> str | None:
    offset, _, size = path.name.partition("-")
    if not (offset.isdigit() and size.isdigit()):
        return "its name is not that of a copy"
    data_path = root / LAYERS / f"{path.parent.name}{DATA}"
    with ExitStack() as stack:
        copy = stack.enter_context(open(open_file(path), "rb", buffering=0))
        try:
            data = stack.enter_context(open(open_file(data_path), "rb", buffering=0))
        except FileNotFoundError:
            return "without its layer"
        data.seek(int(offset))
        left = int(size)
        while left:
            content = read_exactly(data, min(_READ, left))
            if not content or content != read_exactly(copy, len(content)):
                return f"damaged: it differs from {data_path.name} at byte {offset}"
            left -= len(content)
        return "damaged: it is too long" if copy.read(1) else None


def _wrong_image(root: Path, path: Path) -> str | None:
    path.stat()
    try:
        sums = load_sums(path.with_suffix(SUMS))
        reason = wrong_sum(root, path, sums)
        if reason is None:
            MergedTable.open(path).close()
    except FileNotFoundError:
        return "without its sums"
    except (ValueError, RegfsError) as error:
        return str(error)
    return reason


def _wrong_digests(path: Path) -> str | None:
    path.stat()
    return None if read_digests(path) is not None else "damaged: it has another sum than it was written with"


def _wrong_erofs(root: Path, path: Path) -> str | None:
    return _wrong_by_sums(root, path, path.with_suffix(SUMS))


def _wrong_comparison(root: Path, path: Path) -> str | None:
    return _wrong_by_sums(root, path, sums_of(path))


def _wrong_by_sums(root: Path, path: Path, sums: Path) -> str | None:
    path.stat()
    try:
        return wrong_sum(root, path, load_sums(sums))
    except FileNotFoundError:
        return "without its sums"
    except ValueError as error:
        return str(error)
