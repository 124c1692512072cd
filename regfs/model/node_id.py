"""Node ids: the numbers by which the kernel names what a mount shows (FUSE's nodeid), and what their bits mean.

    1                                            the mount's root
    1 << 63 | hash (52 bits)                     an invented node: a registry, a tag, `digest`, `layers/` …
    place (27 bits) << 36 | key (36 bits)        an entry of a table (rootfs/, layers/N/tree/) at one place

    key = layer (12 bits) << 24 | row (24 bits)      the layer that decides, base first, and the row in its index

The key of layer INVENTED_LAYER belongs to directories that the merge invented, and TABLE_ROOT to the directory that a
table is shown as, whichever row that is. st_ino is another number: tree/inode_numbers.py. Pure.
"""

from __future__ import annotations

ROOT = 1
INVENTED = 1 << 63
HASH_BITS = 52

PLACE_SHIFT = 36
KEY_MASK = (1 << PLACE_SHIFT) - 1
LAST_PLACE = (INVENTED >> PLACE_SHIFT) - 1

LAYER_SHIFT = 24
ROW_MASK = (1 << LAYER_SHIFT) - 1
INVENTED_LAYER = 4095
LAST_ROW = ROW_MASK - 1
TABLE_ROOT = KEY_MASK


def node_key(layer: int, row: int) -> int:
    """Return the key of *row* of the layer number *layer*."""
    return layer << LAYER_SHIFT | row


def is_entry(node: int) -> bool:
    """Tell whether *node* is an entry of a table or the directory it is shown as: what is in it never changes."""
    return ROOT < node < INVENTED
