"""What an ingest left of a layer, in the words of tests: paths, attributes, contents."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

from regfs.images.workers.ingest import Progress, ingest_here
from regfs.model.attributes import Attributes
from regfs.model.digest import Digest
from regfs.model.layer_entry import EntryFlag, Row, unpack_xattrs
from regfs.model.manifest import Descriptor
from regfs.store.layers.content import content_of
from regfs.store.layers.layer_store import LayerStore
from tests.support.images import BuiltLayer, TarEntry, layer, layer_of_tar
from tests.support.snapshot import Entry

MARKS = EntryFlag.WHITEOUT | EntryFlag.OPAQUE_MARKER | EntryFlag.AUFS


class Named(TypedDict):
    descriptor: Descriptor
    diff_id: Digest


def named(built: BuiltLayer, *, diff_id: Digest | None = None, **changed: Any) -> Named:
    """Return what an image says of *built*, but for what is *changed* of its descriptor."""
    descriptor = Descriptor(built.media_type, built.digest, len(built.blob))
    return {"descriptor": replace(descriptor, **changed), "diff_id": diff_id or built.diff_id}


def in_chunks(content: bytes, size: int = 1 << 16) -> Iterator[bytes]:
    return (content[at : at + size] for at in range(0, len(content), size))


class Ingested:
    """A layer that was ingested into a store of its own below *root*."""

    def __init__(self, root: Path, built: BuiltLayer, *, chunk: int = 1 << 16) -> None:
        self.diff_id = built.diff_id
        self.store = LayerStore(root)
        self.progress = Progress()
        ingest_here(
            in_chunks(built.blob, chunk), **named(built), store=self.store, progress=self.progress, report=ignore
        )
        self.index = self.store.open_index(built.diff_id)
        self.rows = dict(self._walk(0, b""))

    def _walk(self, row: int, path: bytes) -> Iterator[tuple[bytes, Row]]:
        for child in self.index.children(row):
            child_path = path + b"/" + child.name if path else child.name
            yield child_path, child
            if stat.S_ISDIR(Attributes.unpack(child.attributes).mode):
                yield from self._walk(child.row, child_path)

    def __getitem__(self, path: str | bytes) -> Row:
        return self.rows[os.fsencode(path)]

    def paths(self) -> list[bytes]:
        return sorted(self.rows)

    def attributes(self, path: str | bytes) -> Attributes:
        row = self[path] if path else self.index.row(0)
        return Attributes.unpack(row.attributes)

    def content(self, path: str | bytes) -> bytes:
        row = self[path]
        size = Attributes.unpack(row.attributes).size
        opened = self.store.open_content(content_of(self.diff_id, row.content, size))
        content = opened.read_at(0, size)
        opened.close()
        assert len(content) == size
        return content

    def flags(self, path: str | bytes) -> EntryFlag:
        return EntryFlag(self[path].flags if path else self.index.row(0).flags)

    def snapshot(self) -> dict[bytes, Entry]:
        """Return what an unpacker makes of this layer alone: of whiteouts and parents that only they imply, nothing."""
        entries = {b".": self._entry(b".", self.index.row(0))}
        files = {path: row for path, row in self.rows.items() if not row.flags & MARKS}
        real = {path for path, row in files.items() if not row.flags & EntryFlag.IMPLIED}
        for path, row in files.items():
            if path in real or any(other.startswith(path + b"/") for other in real):
                entries[path] = self._entry(path, row)
        return entries

    def _entry(self, path: bytes, row: Row) -> Entry:
        attributes = Attributes.unpack(row.attributes)
        regular, directory = stat.S_ISREG(attributes.mode), stat.S_ISDIR(attributes.mode)
        links = 1 if directory else attributes.nlink
        group = min(each for each, other in self.rows.items() if other.inode == row.inode) if links > 1 else path
        return Entry(
            kind=stat.filemode(attributes.mode)[0],
            mode=f"{stat.S_IMODE(attributes.mode):04o}",
            uid=attributes.uid,
            gid=attributes.gid,
            mtime_ns=attributes.mtime_ns,
            size=attributes.size if regular else 0,
            content=hashlib.sha256(self.content(path)).hexdigest() if regular else "",
            target=row.target or b"",
            device=os.makedev(*_device(attributes.rdev)) if attributes.rdev else 0,
            links=links,
            group=group,
            xattrs=tuple(sorted((name.decode(), value) for name, value in unpack_xattrs(row.xattrs).items())),
        )


def _device(packed: int) -> tuple[int, int]:
    return packed >> 8 & 0xFFF, packed & 0xFF | packed >> 12 & 0xFFF00


def ignore(_: Progress) -> None:
    pass


def ingested(root: Path, *entries: TarEntry, compression: str = "gzip") -> Ingested:
    return Ingested(root, layer(*entries, compression=compression))


def ingested_tar(root: Path, tar: bytes, *, compression: str = "none") -> Ingested:
    return Ingested(root, layer_of_tar(tar, compression=compression))


def left_behind(root: Path) -> list[str]:
    """Return what is below *root* of any ingest, visible or not."""
    files: Iterable[Path] = root.rglob("*")
    return sorted(str(path.relative_to(root)) for path in files if path.is_file())
