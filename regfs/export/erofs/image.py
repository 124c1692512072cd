"""Writes the EROFS image of an image's names (names.py); layout.py has the byte layout.

    0x400, 0x480    superblock; device slots: the layers' data files, base first
    blocks          shared xattrs
    metadata        inodes in the order of the names
    blocks          directories and long links, each once it is complete

The names are read once. A directory's inode is written before the directory, and gets its offset and size at the end;
until then, directories are in a file without a name. Meanwhile memory holds some 250 bytes for each directory, and 100
for each inode that has several names. The same names give the same bytes. One thread; blocks on the disk alone.
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from array import array
from bisect import insort
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import IO

from regfs.errors import CacheDamaged
from regfs.export.erofs import layout
from regfs.export.erofs.layout import BLOCK, BLOCK_BITS, Dirent
from regfs.export.erofs.names import Entry, Names
from regfs.export.erofs.xattrs import count as xattr_count

VOLUME = b"regfs 2"
"""Changes with what this module writes: an image with another one is written again."""
# Of the 80 bytes of model/attributes.py: size, mtime, its nanoseconds, mode, nlink, uid, gid, rdev.
_ATTRIBUTES = struct.Struct("<Q16xq12xI4xIIIII8x")
_ONE_NAME = (1).to_bytes(4, "little")
_SIZE_AND_PLACE = struct.Struct("<QI")
_SIZE_AT = 8
_ROOT_NID = 1
"""Not 0: programs take the inode number 0 for no file, and readdir(3) leaves it out."""
_BUFFER = 1 << 20


def write_image(fd: int, names: Names, *, scratch: Path) -> None:
    """Write the image of *names* to the empty file *fd*, which stays open. Raises OSError, and what *names* raises.

    The directory *scratch* gets a file that has no name, of the size of all directories.
    """
    xattrs = names.shared_xattrs
    slots_end = layout.SLOTS_AT + len(names.devices) * layout.DEVICE_SLOT.size
    xattrs_block = layout.blocks(slots_end)
    metadata_block = xattrs_block + layout.blocks(len(xattrs))
    with (
        open(f"/proc/self/fd/{fd}", "r+b", buffering=_BUFFER) as image,
        tempfile.TemporaryFile(dir=scratch, buffering=_BUFFER) as listings,
    ):
        image.seek(xattrs_block << BLOCK_BITS)
        image.write(xattrs)
        image.seek(metadata_block << BLOCK_BITS)
        writer = _Writer(names, image, listings)
        writer.write()
        first = metadata_block + layout.blocks(writer.size)
        image.seek(first << BLOCK_BITS)
        listings.seek(0)
        shutil.copyfileobj(listings, image, _BUFFER)
        image.flush()
        writer.place_listings(fd, metadata_block, first)
        total = first + writer.listed_blocks
        os.ftruncate(fd, total << BLOCK_BITS)
        os.pwrite(fd, _head(names, writer.inodes, total, metadata_block, xattrs_block), layout.SUPERBLOCK_AT)


def is_current(fd: int) -> bool:
    """Whether write_image() of this release has written the image *fd*. Raises OSError."""
    return os.pread(fd, layout.VOLUME_SIZE, layout.VOLUME_AT).rstrip(b"\0") == VOLUME


def _head(names: Names, inodes: int, total: int, metadata_block: int, xattrs_block: int) -> bytes:
    """Return superblock and device slots of an image of *total* blocks."""
    slots = [
        layout.DEVICE_SLOT.pack(device.name.encode()[: layout.TAG_SIZE], layout.blocks(device.size), device.block)
        for device in names.devices
    ]
    first_slot = layout.SLOTS_AT // layout.DEVICE_SLOT.size
    superblock = layout.SUPERBLOCK.pack(
        layout.MAGIC, 0, layout.COMPAT_MTIME, BLOCK_BITS, 0, _ROOT_NID, inodes, 0, 0, total, metadata_block,
        xattrs_block, bytes(16), VOLUME, layout.INCOMPAT_DEVICE_TABLE, 0, len(slots), first_slot, 0, 0, 0, 0,
    )  # fmt: skip
    return superblock + b"".join(slots)


class _Writer:
    """Writes the metadata to *image*, from its position on, and directories and long links to *listings*."""

    def __init__(self, names: Names, image: IO[bytes], listings: IO[bytes]) -> None:
        self._names = names
        self._image = image
        self._listings = listings
        self._batch: list[bytes] = [bytes(_ROOT_NID << layout.SLOT_BITS)]
        self._linked: dict[int, int] = {}
        self._directories: dict[int, tuple[int, int]] = {}  # nid, and that of the parent, until it is listed
        self._placed = array("Q")  # nid, size and block of each directory and long link, one after the other
        self.size = len(self._batch[0])
        self.listed_blocks = 0
        self.inodes = 0

    def write(self) -> None:
        """Write all inodes and directories."""
        directories, linked, inode = self._directories, self._linked, self._inode
        root = self._names.root()
        directories[root.node] = inode(root), _ROOT_NID
        for parent, group in groupby(self._names.entries(), key=itemgetter(0)):
            if parent not in directories:
                raise CacheDamaged(f"node {parent:#x} has entries before it has a name, or is not a directory")
            above = directories[parent][0]
            children: list[Dirent] = []
            for entry in group:
                _, name, node, attributes, *_ = entry
                kind = attributes[53] >> 4
                if kind == layout.DIRECTORY:
                    nid = inode(entry)
                    directories[node] = nid, above
                elif attributes[56:60] == _ONE_NAME:
                    nid = inode(entry)
                elif node in linked:
                    nid = linked[node]
                else:
                    nid = linked[node] = inode(entry)
                children.append((name, nid, kind))
            self._write_directory(parent, children)
            self._image.writelines(self._batch)
            self._batch.clear()
        for node in sorted(directories):
            self._write_directory(node, [])
        self._image.writelines(self._batch)

    def place_listings(self, fd: int, metadata_block: int, first: int) -> None:
        """Write into the inodes in *fd* where their directories and long links are, from the block *first* on."""
        metadata = (metadata_block << BLOCK_BITS) + _SIZE_AT
        placed = iter(self._placed)
        for nid, size, block in zip(placed, placed, placed, strict=True):
            os.pwrite(fd, _SIZE_AND_PLACE.pack(size, first + block), metadata + (nid << layout.SLOT_BITS))

    def _write_directory(self, node: int, children: list[Dirent]) -> None:
        nid, parent = self._directories.pop(node)
        insort(children, (b".", nid, layout.DIRECTORY))
        insort(children, (b"..", parent, layout.DIRECTORY))
        blocks, size = layout.directory_blocks(children)
        self._listings.writelines(blocks)
        self._place(nid, size)

    def _place(self, nid: int, size: int) -> None:
        """Remember that the next *size* bytes of the listings belong to the inode *nid*."""
        self._placed.extend((nid, size, self.listed_blocks))
        self.listed_blocks += layout.blocks(size)

    def _inode(self, entry: Entry) -> int:
        """Add the inode of *entry*, with everything that follows it, to the batch, and return its nid."""
        _, _, _, attributes, place, target, xattrs = entry
        size, seconds, nanoseconds, mode, nlink, uid, gid, rdev = _ATTRIBUTES.unpack(attributes)
        form, start, length, behind = layout.FLAT_PLAIN, self.size, layout.INODE.size + len(xattrs), xattrs
        if target:
            size = len(target)
            if length + size <= BLOCK:
                form, behind, length = layout.FLAT_INLINE, xattrs + target, length + size
                # The kernel takes a target outside the block of its inode for corruption.
                if start % BLOCK + length > BLOCK:
                    self._batch.append(bytes(-start % BLOCK))
                    start += -start % BLOCK
            else:
                self._listings.write(target + bytes(-size % BLOCK))
                self._place(start >> layout.SLOT_BITS, size)
        elif rdev and mode >> 12 in (layout.CHARACTER, layout.BLOCK_DEVICE):
            place = rdev
        self.inodes += 1
        self._batch.append(
            layout.INODE.pack(
                form, xattr_count(len(xattrs)), mode & 0xFFFF, 0, size, place, self.inodes & 0xFFFFFFFF, uid, gid,
                seconds & 0xFFFFFFFFFFFFFFFF, nanoseconds, nlink,
            )
        )  # fmt: skip
        if behind:
            padding = -length % layout.SLOT
            self._batch.append(behind + bytes(padding))
            length += padding
        self.size = start + length
        return start >> layout.SLOT_BITS
