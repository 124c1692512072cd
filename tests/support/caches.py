"""Layers of any size for tests of the cache, and caches on file systems of any size."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from regfs.model.attributes import Attributes
from regfs.model.digest import Digest
from regfs.store.eviction.inventory import take_inventory
from regfs.store.layers.chunks import StoredChunk
from regfs.store.layers.layer_index import Row
from regfs.store.layers.layer_store import LayerStore

MIB = 1 << 20


def file_row(number: int, size: int, content: int) -> Row:
    attributes = Attributes(0o100644, size).pack()
    return Row(number, 0, f"file{number}".encode(), number, 0, attributes, content, None, None)


def keep_layer(store: LayerStore, name: str, *, files: Sequence[bytes] = (), small: bytes = b"small") -> Digest:
    """Publish a layer that has *name* in it, a small file, and these; return its diff id.

    What stands for its tar stream is each of them from a multiple of 512 on.
    """
    stream = bytearray()
    with store.begin_layer() as writer:
        writer.rows.add(Row(0, 0, b"", 0, 1, Attributes(0o40755).pack(), None, None, None))
        for number, content in enumerate([name.encode(), small, *files]):
            if number:
                writer.rows.add(file_row(number, len(content), len(stream)))
            stream += content + bytes(-len(content) % 512)
        writer.write(bytes(stream))
        diff_id = Digest.of(bytes(stream))
        store.publish(writer, diff_id)
    return diff_id


def keep_lazy_layer(store: LayerStore, name: str, files: Sequence[bytes]) -> tuple[Digest, list[StoredChunk]]:
    """Publish a lazy layer of *files*, a chunk each, none of which is here; return what it is stored as, and those."""
    layer = Digest.of(name.encode())
    with store.begin_partial_layer("eStargz") as writer:
        writer.rows.add(Row(0, 0, b"", 0, 1, Attributes(0o40755).pack(), None, None, None))
        for number, content in enumerate(files, start=1):
            start = writer.begin_file(len(content))
            writer.rows.add(file_row(number, len(content), start))
            size = len(content)
            writer.add_chunk(start, size, at=number * 100, stored=100, inner=0, digest=str(Digest.of(content)))
        store.publish(writer, layer)
    index = store.index(layer)
    return layer, sorted(index.chunks_by_place())


def used_before(path: Path, seconds: int) -> None:
    """Let the file seem to have been used so long ago."""
    then_ns = path.stat().st_mtime_ns - seconds * 10**9
    os.utime(path, ns=(then_ns, then_ns))


def size_of(root: Path) -> int:
    return take_inventory(root).size


@contextmanager
def tmpfs(at: Path, options: str) -> Iterator[Path]:
    """Mount an empty tmpfs with *options* at *at*."""
    at.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(at)], check=True, capture_output=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def full_directory(path: Path) -> None:
    """Make a directory with something in it."""
    (path / "below").mkdir(parents=True)
    (path / "below/file").write_bytes(b"x")


def link_to_itself(path: Path) -> None:
    """Make a symbolic link that leads nowhere."""
    path.symlink_to(path)
