"""Node ids: the 64-bit numbers by which the kernel names what a mount shows (FUSE's nodeid), bit by bit.

    1                              the mount's root
    1 << 63 | hash (52 bits)       an invented node: a registry, a tag, `digest`, `layers/` …; the hash is of its key
    slot << 42 | key               an entry of a table (rootfs/, layers/N/tree/)

    bit 63        0 for a table's entry, 1 for an invented node
    bits 42–62    slot (21 bits): the directory that the table is shown as; 0 is none. Slots are used again
    bits 34–41    view (8 bits): 0; which tree a row is from, where a table shows more than one
    bits 22–33    layer (12 bits): the layer that decides, base first; INVENTED_LAYER for directories of the merge
    bits 0–21     row (22 bits): the row in that layer's index

The lower 42 bits are the *key*, which identifies an entry in its FileTree, and which a merged table stores. A key of
all ones, TABLE_ROOT, is the directory that a table is shown as, whatever its row. A slot that is used again has another
*generation* (entry_out's), so that a kernel that still holds an inode of the earlier one, for an open file, does not
confuse the two. st_ino is another number: tree/inode_numbers.py. Pure.
"""

from __future__ import annotations

import hashlib

ROOT = 1
INVENTED = 1 << 63
HASH_BITS = 52

ROW_BITS, LAYER_BITS, VIEW_BITS = 22, 12, 8
LAYER_SHIFT = ROW_BITS
SLOT_SHIFT = ROW_BITS + LAYER_BITS + VIEW_BITS
KEY_MASK = (1 << SLOT_SHIFT) - 1
LAST_SLOT = (INVENTED >> SLOT_SHIFT) - 1

MAX_ROWS = 1 << ROW_BITS
"""How many rows a layer may have, including implied directories and replaced names."""
ROW_MASK = MAX_ROWS - 1
INVENTED_LAYER = (1 << LAYER_BITS) - 1
LAST_INVENTED_ROW = ROW_MASK - 1
TABLE_ROOT = KEY_MASK


def node_key(layer: int, row: int) -> int:
    """Return the key of *row* of the layer number *layer*."""
    return layer << LAYER_SHIFT | row


def is_entry(node: int) -> bool:
    """Tell whether *node* is an entry of a table, or the directory that a table is shown as. Both never change."""
    return ROOT < node < INVENTED


def invented_node(key: str) -> int:
    """Return the id of the invented node *key*. If another node has that id, use next_invented()."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return _invented(int.from_bytes(digest, "little"))


def next_invented(node: int) -> int:
    """Return the id to try after *node*, if two keys have the same hash."""
    return _invented(node + 1)


def _invented(number: int) -> int:
    # One bit of the lower 32 is always set: programs that read only these must not find 0, which means no inode.
    return INVENTED | 1 << 31 | number & (1 << HASH_BITS) - 1
