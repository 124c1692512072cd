"""Inode numbers (st_ino, d_ino), and why they are no node ids: programs drop bits of them, and compare them.

    1                                           the mount's root
    table (20 bits) << 32 | 16                  the directory that a table is shown as: rootfs/, layers/N/tree/
    table (20 bits) << 32 | 17 + row            its entries, the rows of all layers counted through
    1 << 52 | hash (52 bits)                    an invented node: the hash in its node id

cpio's newc format keeps the lower 32 bits, JavaScript has 53, bsdtar some 63, and all of them take files of equal
numbers for links of one file; so do GNU diff and tar, of any two files below one mount. A table's number is kept in the
cache (store/image_numbers.py), so that an image has the same numbers wherever and whenever it is shown.

Programs of 32 bits fail with EOVERFLOW where a number has more bits. For them the upper half can be left out; then
numbers tell files of one image apart, and no longer those of two.
Used by tree.py and listings.py. Thread rule: any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from regfs.model.node_id import HASH_BITS, LAYER_SHIFT, ROOT

_HALF_BITS = 32
_HALF = (1 << _HALF_BITS) - 1
# Below are numbers with a meaning of their own elsewhere: none, bad blocks, the root of a file system.
_TABLE_ROOT = 16
_FIRST_ROW = _TABLE_ROOT + 1
_INVENTED = 1 << HASH_BITS


class InodeNumbers:
    """What numbers are made of: *number_of* gives a table's number in the cache."""

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
        """Return, for each layer of a table, what its keys must be raised by to be inode numbers; see FileTree."""
        first = self._upper(identity) + _FIRST_ROW
        return {layer: first + before - (layer << LAYER_SHIFT) for layer, before in first_rows.items()}

    def _upper(self, identity: str) -> int:
        return 0 if self._only_32_bits else self._number_of(identity) << _HALF_BITS
