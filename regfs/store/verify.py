"""Looks through a cache for rot: every file against its name or its sums. What is wrong is dropped, and fetched again.

    blobs     the digest that they are named by
    layers    the sum of the index; the data file's diff id, which it is named by, and where the index says files are
    objects   the bytes of the data file that they are copies of
    images    the sums of merged tables and EROFS images

Takes a second for each gigabyte. Daemons may work meanwhile: what seems wrong is looked at again while nothing is
published or evicted. A daemon that has a damaged file open, or its bytes in the kernel's memory, goes on with them
until it is mounted again. Used by `regfs cache verify`. Thread rule: one thread.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path

from regfs.errors import InvalidName, RegfsError, Unsupported
from regfs.model.attributes import size_of
from regfs.model.digest import Digest, Hasher
from regfs.store.boot import boot_id
from regfs.store.cached_files import hash_file, open_file, take_away
from regfs.store.checksums import SUFFIX as SUMS
from regfs.store.checksums import load_sums, sha256_of
from regfs.store.chunks import ChunkMap
from regfs.store.content import BLOCK
from regfs.store.data_writer import TAR, DataLayout
from regfs.store.failures import failures_of
from regfs.store.inventory import CHUNKS, DATA, EROFS, INDEX, LAYERS, MERGED, CachedFile, take_inventory
from regfs.store.layer_index import LayerIndex
from regfs.store.layer_names import diff_id_of
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
        for files in _led_by(INDEX, found.layers):
            copies = found.promoted(files[0].stem)
            yield from _checked(root, [*files, *copies], partial(wrong_layer, root, files[0].path), drop=drop)
        # Copies after the layers: those of a layer that was wrong went with it.
        for each in found.objects:
            yield from _checked(root, [each], partial(_wrong_copy, root, each.path), drop=drop)
        for files in _led_by(MERGED, found.images):
            yield from _checked(root, files, partial(_wrong_image, root, files[0].path), drop=drop)
        for erofs in (files[EROFS] for files in found.images.values() if EROFS in files):
            yield from _checked(root, [erofs], partial(_wrong_erofs, root, erofs.path), drop=drop)


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
    found = hash_file(path, hasher)
    return None if found == digest.encoded else f"damaged: its {digest.algorithm} is {found}"


def _wrong_copy(root: Path, path: Path) -> str | None:
    offset, _, size = path.name.partition("-")
    if not (offset.isdigit() and size.isdigit()):
        return "its name is none of a copy"
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
            content = _read_exactly(data, min(_READ, left))
            if not content or content != _read_exactly(copy, len(content)):
                return f"damaged: it is not what lies in {data_path.name} at byte {offset}"
            left -= len(content)
        return "damaged: it is too long" if copy.read(1) else None


def _read_exactly(file: FileIO, size: int) -> bytes:
    content = b""
    while len(content) < size and (more := file.read(size - len(content))):
        content += more
    return content


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


def _wrong_erofs(root: Path, path: Path) -> str | None:
    path.stat()
    try:
        return _wrong_sum(root, path, load_sums(path.with_suffix(SUMS)))
    except FileNotFoundError:
        return "without its sums"
    except ValueError as error:
        return str(error)


def wrong_layer(root: Path, index_path: Path) -> str | None:
    """Return what is wrong with a layer, None for nothing. Reads all of it: a second for each gigabyte.

    Raises FileNotFoundError where there is no index, OSError.
    """
    index_path.stat()
    try:
        if (reason := _wrong_sum(root, index_path, load_sums(index_path.with_suffix(SUMS)))) is not None:
            return reason
    except FileNotFoundError:
        return "without its sums"
    except ValueError as error:
        return str(error)
    try:
        with closing(LayerIndex.open(index_path)) as index:
            data = index_path.with_suffix(DATA)
            if index.layout().source == TAR:
                return _wrong_data(data, index.layout()) or _wrong_contents(index)
            return _wrong_chunks(data, index) or _wrong_contents(index)
    except FileNotFoundError:
        return "incomplete: its data file is missing"
    except RegfsError as error:
        return str(error)


def _wrong_sum(root: Path, path: Path, sums: dict[str, str]) -> str | None:
    name = path.relative_to(root).as_posix()
    return None if sha256_of(path) == sums.get(name) else f"damaged: {name} has another sum than it was written with"


def _wrong_data(path: Path, layout: DataLayout) -> str | None:
    """Return what is wrong with a data file: its tar stream, what was expanded, or its size."""
    try:
        diff_id = diff_id_of(path.stem)
    except (InvalidName, Unsupported) as error:
        return f"its name is no digest: {error}"
    with open(open_file(path), "rb", buffering=0) as file:
        size = file.seek(0, 2)
        if size != layout.size:
            return f"damaged: {path.name} has {size} bytes, not {layout.size}"
        found = _digest_of(file, 0, layout.tar_size, diff_id.hasher())
        if found != diff_id.encoded:
            return f"damaged: the {diff_id.algorithm} of the tar stream in {path.name} is {found}"
        found = _digest_of(file, layout.expanded_offset, layout.expanded_size, hashlib.sha256())
        if layout.expanded_size and found != layout.expanded_sha256:
            return f"damaged: the sha256 of the sparse files in {path.name} is {found}"
    return None


def _wrong_chunks(path: Path, index: LayerIndex) -> str | None:
    """Return what is wrong with a data file that is fetched chunk by chunk: its size, or a chunk that is here."""
    chunks = ChunkMap(path.with_suffix(CHUNKS), boot=boot_id())
    with open(open_file(path), "rb", buffering=0) as file:
        size = file.seek(0, 2)
        if size != index.layout().size:
            return f"damaged: {path.name} has {size} bytes, not {index.layout().size}"
        for chunk in index.chunks_by_place():
            if chunk.number >= chunks.count:
                return f"damaged: {path.stem}{CHUNKS} has no place for chunk {chunk.number}"
            # The digests of SOCI are of what is stored in the blob, which is not here any more.
            if chunks.is_here(chunk.number) and index.layout().source != "SOCI":
                file.seek(chunk.start)
                if not chunk.digest.matches(_read_exactly(file, chunk.size)):
                    return f"damaged: the chunk at byte {chunk.start} of {path.name} is not what its digest says"
    return None


def _digest_of(file: FileIO, offset: int, size: int, hasher: Hasher) -> str:
    """Return the hexadecimal digest of *size* bytes from *offset*."""
    file.seek(offset)
    while size and (content := file.read(min(_READ, size))):
        hasher.update(content)
        size -= len(content)
    return hasher.hexdigest()


def _wrong_contents(index: LayerIndex) -> str | None:
    """Return what the index says about files that is not so."""
    end = index.layout().size
    for offset, attributes in index.contents():
        size = size_of(attributes)
        if offset < 0 or offset % BLOCK or offset + size > end:
            return f"wrong: a file of {size} bytes at byte {offset} of a data file of {end}"
    return None
