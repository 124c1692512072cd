"""Computes st_ino and d_ino. Node ids do not serve: programs drop high bits of inode numbers and compare the rest.

    1                                           the mount's root
    table (20 bits) << 32 | 16                  the directory that a table is shown as: rootfs/, layers/N/tree/
    table (20 bits) << 32 | 17 + row            its entries; rows are numbered through all layers
    1 << 52 | hash (52 bits)                    an invented node: the hash in its node id

cpio's newc format keeps the lower 32 bits, JavaScript 53, bsdtar 63. These programs regard two files with equal numbers
as hard links of one file; GNU diff and tar do so for any two files below one mount. The cache keeps the number of each
table (store/images/image_numbers.py), so an image has the same numbers in every mount of the cache.

A 32-bit program fails with EOVERFLOW where a number has more bits. --inode32 drops the upper 32 bits: numbers are then
unique within an image only. Used by invented.py and table_slots.py. Any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from regfs.model.node_id import HASH_BITS, LAYER_SHIFT, ROOT

_HALF_BITS = 32
_HALF = (1 << _HALF_BITS) - 1
# Programs know the lower numbers: none, bad blocks, the root of a file system.
_TABLE_ROOT = 16
_FIRST_ROW = _TABLE_ROOT + 1
_INVENTED = 1 << HASH_BITS


class InodeNumbers:
    """Computes inode numbers; *number_of* returns the number that the cache keeps for a table."""

    def __init__(self, number_of: Callable[[str], int], *, only_32_bits: bool = False) -> None:
        self._number_of = number_of
        self._only_32_bits = only_32_bits

    def of_invented(self, node: int) -> int:
        """Return the number of the invented node *node*."""
        if node == ROOT:
            return ROOT
        return node & _HALF if self._only_32_bits else _INVENTED | node & (_INVENTED - 1)

    def of_table(self, identity: str) -> int:
        """Return the number of the directory that the table *identity* (of an image or a layer) is shown as."""
        return self._upper(identity) | _TABLE_ROOT

    def of_layers(self, identity: str, first_rows: Mapping[int, int]) -> dict[int, int]:
        """Return, for each layer of a table, the inode number minus the key; *first_rows* is FileTree.first_rows()."""
        first = self._upper(identity) + _FIRST_ROW
        return {layer: first + before - (layer << LAYER_SHIFT) for layer, before in first_rows.items()}

    def _upper(self, identity: str) -> int:
        return 0 if self._only_32_bits else self._number_of(identity) << _HALF_BITS
