"""Writes the EROFS image of an image's names (names.py); layout.py has the byte layout.

    0x400, 0x480    superblock; device slots: the image itself, then the layers' data files, base first
    blocks          shared xattrs; directories and long links, each once it is complete
    metadata        inodes in the order of the names

Everything that an inode points to has the number of a device, also what is in the image itself, its own first device:
the kernel looks for what is addressed without a number in one device after the other, at each block of a directory.

The names are read twice: once to give each inode its place, once to write. Between the two, memory holds 8 bytes for
each name, some 200 for each directory and 100 for each inode that has several names. The file is written from front to
back in two places, and the same names give the same bytes. One thread; blocks on the disk alone.
"""

from __future__ import annotations

import os
import struct
from array import array
from bisect import insort
from itertools import groupby
from operator import itemgetter
from typing import BinaryIO, NamedTuple

from regfs.export.erofs import layout
from regfs.export.erofs.layout import BLOCK, BLOCK_BITS, Dirent
from regfs.export.erofs.names import Device, Entry, Names
from regfs.export.erofs.xattrs import count as xattr_count

VOLUME = b"regfs"
_OWN_DEVICE = 1
# Of the 80 bytes of model/attributes.py: size, mtime, its nanoseconds, mode, nlink, uid, gid, rdev.
_ATTRIBUTES = struct.Struct("<Q16xq12xI4xIIIII8x")
_ONE_NAME = (1).to_bytes(4, "little")
_HAS_PLACE = 1 << 63
"""In a nid that is kept: a further name of an inode."""
_ROOT_NID = 1
"""Not 0: programs take the inode number 0 for no file, and readdir(3) leaves it out."""


class _Placed(NamedTuple):
    """Where a directory or a long link is: its first block, its size in bytes."""

    block: int
    size: int


def write_image(fd: int, names: Names) -> None:
    """Write the image of *names* to the empty file *fd*, which stays open. Raises OSError, and what *names* raises."""
    writer = _Writer(names)
    path = f"/proc/self/fd/{fd}"
    with open(path, "r+b") as blocks, open(path, "r+b", buffering=1 << 20) as inodes:
        writer.write(blocks, inodes)


class _Writer:
    def __init__(self, names: Names) -> None:
        self._names = names
        self._root = names.root()
        self._nids = array("Q")
        self._linked: dict[int, int] = {}
        self._directories: dict[int, tuple[int, int]] = {}  # nid and parent
        self._placed: dict[int, _Placed] = {}
        slots_end = layout.SLOTS_AT + (1 + len(names.devices)) * layout.DEVICE_SLOT.size
        self._first_block = self._next_block = layout.blocks(slots_end)
        self._metadata_size = _ROOT_NID << layout.SLOT_BITS
        self._inodes = 0

    def write(self, blocks: BinaryIO, inodes: BinaryIO) -> None:
        xattrs = self._names.shared_xattrs
        self._next_block += layout.blocks(len(xattrs))
        self._plan()
        total = self._next_block + layout.blocks(self._metadata_size)
        os.ftruncate(blocks.fileno(), total << BLOCK_BITS)
        blocks.write(self._head(total))
        blocks.seek(self._first_block << BLOCK_BITS)
        blocks.write(xattrs + bytes(-len(xattrs) % BLOCK))
        inodes.seek((self._next_block << BLOCK_BITS) + (_ROOT_NID << layout.SLOT_BITS))
        self._emit(blocks, inodes)

    def _head(self, total: int) -> bytes:
        """Return superblock and device slots of an image of *total* blocks."""
        slots, start = [], 0
        for name, size in (Device("", total << BLOCK_BITS), *self._names.devices):
            tag = name.encode()[: layout.TAG_SIZE]
            slots.append(layout.DEVICE_SLOT.pack(tag, layout.blocks(size), start & layout.NO_BLOCK))
            start += layout.blocks(size)
        first_slot = layout.SLOTS_AT // layout.DEVICE_SLOT.size
        features = layout.INCOMPAT_CHUNKED_FILE | layout.INCOMPAT_DEVICE_TABLE
        superblock = layout.SUPERBLOCK.pack(
            layout.MAGIC, 0, layout.COMPAT_MTIME, BLOCK_BITS, 0, _ROOT_NID, self._inodes, 0, 0, total,
            self._next_block, self._first_block, bytes(16), VOLUME, features, 0, len(slots), first_slot, 0, 0, 0, 0,
        )  # fmt: skip
        return bytes(layout.SUPERBLOCK_AT) + superblock + b"".join(slots)

    # Places.

    def _plan(self) -> None:
        """Give all inodes, directories and long links their places."""
        nids, linked, directories = self._nids, self._linked, self._directories
        directories[self._root.node] = self._place_inode(self._root), self._root.node
        for parent, group in groupby(self._names.entries(), key=itemgetter(0)):
            lengths_of = [b".", b".."]
            for entry in group:
                _, name, node, attributes, *_ = entry
                # Some names come before these two.
                insort(lengths_of, name) if name < b".." else lengths_of.append(name)
                if attributes[53] >> 4 == layout.DIRECTORY:
                    nid = self._place_inode(entry)
                    directories[node] = nid, parent
                elif attributes[56:60] == _ONE_NAME:
                    nid = self._place_inode(entry)
                elif node in linked:
                    nid = linked[node] | _HAS_PLACE
                else:
                    nid = linked[node] = self._place_inode(entry)
                nids.append(nid)
            self._place_blocks(parent, layout.directory_size(map(len, lengths_of)))
        for node in self._empty_directories():
            self._place_blocks(node, layout.directory_size((1, 2)))

    def _empty_directories(self) -> list[int]:
        self._empty = [node for node in self._directories if node not in self._placed]
        return self._empty

    def _place_inode(self, entry: Entry) -> int:
        """Give the inode of *entry*, with all that follows it, the next place that it fits in; return its nid."""
        self._inodes += 1
        at = self._metadata_size
        size = layout.INODE.size + len(entry.xattrs)
        target = len(entry.target)
        if target and size + target <= BLOCK:
            # The target is in the same block as the whole inode: all else is corrupt to the kernel.
            if at % BLOCK + size + target > BLOCK:
                at += -at % BLOCK
            size += target
        elif target or entry.device or entry.attributes[53] >> 4 == layout.DIRECTORY:
            if target:
                self._place_blocks(entry.node, target)
            size += -size % layout.CHUNK_INDEX.size + layout.CHUNK_INDEX.size
        end = at + size
        self._metadata_size = end + (-end & 31)
        return at >> layout.SLOT_BITS

    def _place_blocks(self, node: int, size: int) -> None:
        self._placed[node] = _Placed(self._next_block, size)
        self._next_block += layout.blocks(size)

    # Writing.

    def _emit(self, blocks: BinaryIO, inodes: BinaryIO) -> None:
        """Write all that _plan() gave a place, in the same order."""
        nids, number = iter(self._nids), 1
        first = self._inode(self._root, number)
        inodes.write(first)
        written = (_ROOT_NID << layout.SLOT_BITS) + len(first)
        for parent, group in groupby(self._names.entries(), key=itemgetter(0)):
            children: list[Dirent] = []
            batch: list[bytes] = []
            for entry in group:
                nid = next(nids)
                if nid & _HAS_PLACE:
                    nid ^= _HAS_PLACE
                else:
                    number += 1
                    at = nid << layout.SLOT_BITS
                    inode = self._inode(entry, number)
                    batch += bytes(at - written), inode
                    written = at + len(inode)
                    if entry.target and entry.node in self._placed:
                        blocks.write(entry.target + bytes(-len(entry.target) % BLOCK))
                children.append((entry.name, nid, entry.attributes[53] >> 4))
            inodes.write(b"".join(batch))
            self._write_directory(blocks, parent, children)
        for node in self._empty:
            self._write_directory(blocks, node, [])

    def _write_directory(self, blocks: BinaryIO, node: int, children: list[Dirent]) -> None:
        nid, parent = self._directories[node]
        insort(children, (b".", nid, layout.DIRECTORY))
        insort(children, (b"..", self._directories[parent][0], layout.DIRECTORY))
        blocks.writelines(layout.directory_blocks(children))

    def _inode(self, entry: Entry, number: int) -> bytes:
        """Return the inode of *entry* with all that follows it."""
        _, _, node, attributes, device, offset, target, xattrs = entry
        size, seconds, nanoseconds, mode, nlink, uid, gid, rdev = _ATTRIBUTES.unpack(attributes)
        kind = mode >> 12
        form, place, behind, block = layout.FLAT_PLAIN, 0, b"", offset >> BLOCK_BITS
        if kind == layout.DIRECTORY or target:
            placed = self._placed.get(node)
            if placed is None:
                form, size, behind = layout.FLAT_INLINE, len(target), target
            else:
                size, device, block = placed.size, _OWN_DEVICE, placed.block
        elif kind in (layout.CHARACTER, layout.BLOCK_DEVICE):
            place = rdev
        if device:  # one chunk holds all
            form, place = layout.CHUNK_BASED, layout.CHUNK_INDEXES | (size - 1 >> BLOCK_BITS).bit_length()
            behind = bytes(-len(xattrs) % layout.CHUNK_INDEX.size) + layout.CHUNK_INDEX.pack(0, device, block)
        return b"".join((
            layout.INODE.pack(
                form, xattr_count(len(xattrs)), mode & 0xFFFF, 0, size, place, number & 0xFFFFFFFF,
                uid, gid, seconds & 0xFFFFFFFFFFFFFFFF, nanoseconds, nlink,
            ),
            xattrs,
            behind,
        ))  # fmt: skip
