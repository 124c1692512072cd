"""What differs between two merged trees, path by path: both tables are walked in step.

The same row of the same layer is the same file. An unshared directory of a layer that both images have is the same with
all that is below it; directories that list the same rows on both sides are recognised by one comparison of two lists.
Other entries are compared by their attributes. If these do not decide it (a file of the same size, extended attributes,
a link's text), the difference is undecided, and rows_differ() decides it. Times and link counts are not compared: these
differ in each build. Used by images/comparing/.

Memory holds 150 bytes for each directory that layers share, and a page of names for each level. Thread rule: any
thread; a walk belongs to one. Nothing waits for a network; everything may raise CacheFailure.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import IntFlag
from itertools import chain
from typing import Literal, NamedTuple

from regfs.model.attributes import is_directory, mode_of, size_of
from regfs.model.node_id import INVENTED_LAYER, LAYER_SHIFT, ROW_MASK
from regfs.rootfs.rootfs import Rootfs
from regfs.store.layers.content import Content, content_of
from regfs.store.layers.layer_index import Beyond

Kind = Literal["added", "removed", "changed"]
Child = tuple[bytes, int, bytes]
"""An entry of a directory: name, node, attributes."""
Pair = tuple[Child | None, Child | None]

_PAGE = 4096
# Offsets in the packed attributes (model/attributes.py): uid and gid, then rdev, after mode and nlink.
_OWNER, _DEVICE = slice(60, 68), slice(68, 72)
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)


class Field(IntFlag):
    """What differs at a path. It fits a byte, because the cache stores it in one."""

    TYPE = 1
    MODE = 2
    OWNER = 4
    SIZE = 8
    CONTENT = 16
    TARGET = 32
    XATTRS = 64
    DEVICE = 128

    def words(self) -> tuple[str, ...]:
        """Return the names of the fields, in lower case."""
        return tuple((field.name or "").lower() for field in Field if field in self)


NONE = Field(0)


class Difference(NamedTuple):
    """One path that differs; *path* has no slash in front, and the root's is empty.

    *a* and *b* are the entries on both sides, None where there is none. *is_undecided*: attributes do not tell
    whether more differs than *fields*, which may be none.
    """

    path: bytes
    kind: Kind
    fields: Field
    a: Child | None
    b: Child | None
    is_undecided: bool = False


def differences(
    a: Rootfs, b: Rootfs, *, path: bytes = b"", nodes: tuple[int | None, int | None] | None = None
) -> Iterator[Difference]:
    """Yield what differs from *a* to *b*, directories before what is in them, names in the order of their bytes.

    *nodes* are the two nodes to compare, by default the roots; *path* is their path in the results.
    """
    walk = _Walk(a, b)
    left, right = nodes if nodes is not None else (a.root, b.root)
    name = path.rpartition(b"/")[2]
    top = (
        None if left is None else (name, left, a.attributes(left)),
        None if right is None else (name, right, b.attributes(right)),
    )
    return walk.run(path, top)


class _Walk:
    """One walk over both trees."""

    def __init__(self, a: Rootfs, b: Rootfs) -> None:
        self._a, self._b = a, b
        self._spans_a, self._spans_b = a.spans(), b.spans()
        numbers = {digest: number for number, digest in enumerate(a.diff_ids)}
        self._number_in_a = {number: numbers[digest] for number, digest in enumerate(b.diff_ids) if digest in numbers}
        self._shared_until = shared_layers(a, b) << LAYER_SHIFT

    def run(self, path: bytes, top: Pair) -> Iterator[Difference]:
        found = self._difference(path, top)
        if found is not None:
            yield found
        # An explicit stack: paths can be deeper than Python's recursion limit.
        below = [(path + b"/" if path else b"", self._below(top))]
        while below:
            prefix, pairs = below[-1]
            for pair in pairs:
                child = pair[0] or pair[1]
                assert child is not None
                path = prefix + child[0]
                found = self._difference(path, pair)
                if found is not None:
                    yield found
                if self._has_directory(pair):
                    below.append((path + b"/", self._below(pair)))
                    break
            else:
                below.pop()

    def _has_directory(self, pair: Pair) -> bool:
        a, b = pair
        return (a is not None and is_directory(a[2])) or (b is not None and is_directory(b[2]))

    def _below(self, pair: Pair) -> Iterator[Pair]:
        """Return an iterator over the entries below *pair*, without equal ones that are not directories."""
        a, b = pair
        if self._is_same_unshared(a, b):
            return iter(())
        pages_a, pages_b = _pages(self._a, self._spans_a, a), _pages(self._b, self._spans_b, b)
        listed_a, listed_b = next(pages_a, []), next(pages_b, [])
        if max(len(listed_a), len(listed_b)) == _PAGE:  # there may be more
            return _in_step(
                chain(listed_a, chain.from_iterable(pages_a)), chain(listed_b, chain.from_iterable(pages_b))
            )
        if listed_a == listed_b and all(child[1] < self._shared_until for child in listed_a):
            return ((child, child) for child in listed_a if is_directory(child[2]))
        return _in_step(listed_a, listed_b)

    def _is_same_unshared(self, a: Child | None, b: Child | None) -> bool:
        """Whether both are the same directory of a layer, which no other layer of either image has."""
        if a is None or b is None or a[1] != b[1] or a[1] >= self._shared_until:
            return False
        return is_directory(a[2]) and a[1] not in self._spans_a and b[1] not in self._spans_b

    def _difference(self, path: bytes, pair: Pair) -> Difference | None:
        a, b = pair
        if a is None or b is None:
            return Difference(path, "added" if a is None else "removed", NONE, a, b)
        (_, node_a, left), (_, node_b, right) = a, b
        layer_a, layer_b = node_a >> LAYER_SHIFT, node_b >> LAYER_SHIFT
        if (node_a ^ node_b) & ROW_MASK == 0 and self._number_in_a.get(layer_b) == layer_a:
            return None
        fields, mode = _fields(left, right), mode_of(left)
        is_undecided = Field.TYPE not in fields and (layer_a != INVENTED_LAYER or layer_b != INVENTED_LAYER)
        if not fields and not is_undecided:
            return None
        if Field.SIZE in fields and stat.S_ISREG(mode):
            fields |= Field.CONTENT
        return Difference(path, "changed", fields, a, b, is_undecided)


def shared_layers(a: Rootfs, b: Rootfs) -> int:
    """Return how many layers, counted from the base, both trees share."""
    pairs = zip(a.diff_ids, b.diff_ids, strict=False)
    return next(
        (number for number, (left, right) in enumerate(pairs) if left != right), min(len(a.diff_ids), len(b.diff_ids))
    )


def rows_differ(a: Rootfs, b: Rootfs, found: Difference, contents_differ: Callable[[Content, Content], bool]) -> Field:
    """Return what differs of the undecided *found* beyond its attributes: CONTENT, TARGET, XATTRS.

    *contents_differ* compares the bytes of two files of equal size; it is called for no other pair.
    """
    assert found.a is not None
    assert found.b is not None
    left, right = _beyond(a, found.a[1]), _beyond(b, found.b[1])
    fields = NONE
    if left.xattrs != right.xattrs:
        fields |= Field.XATTRS
    if stat.S_ISLNK(mode_of(found.a[2])) and left.target != right.target:
        fields |= Field.TARGET
    if has_bytes_to_compare(found) and contents_differ(
        _content(a, found.a, left.content), _content(b, found.b, right.content)
    ):
        fields |= Field.CONTENT
    return fields


def has_bytes_to_compare(found: Difference) -> bool:
    """Tell whether *found* is undecided because both are files of the same size, and not empty."""
    if not found.is_undecided or found.a is None or found.b is None:
        return False
    left, right = found.a[2], found.b[2]
    return stat.S_ISREG(mode_of(left)) and 0 < size_of(left) == size_of(right)


def _fields(left: bytes, right: bytes) -> Field:
    """Return what differs in the attributes alone. A link's size is the length of its target."""
    if left[:8] == right[:8] and left[52:56] == right[52:56] and left[60:72] == right[60:72]:
        return NONE
    fields, mode, other = NONE, mode_of(left), mode_of(right)
    if stat.S_IMODE(mode) != stat.S_IMODE(other):
        fields |= Field.MODE
    if left[_OWNER] != right[_OWNER]:
        fields |= Field.OWNER
    if stat.S_IFMT(mode) != stat.S_IFMT(other):
        return fields | Field.TYPE
    if stat.S_ISREG(mode) and left[:8] != right[:8]:
        fields |= Field.SIZE
    if stat.S_ISLNK(mode) and left[:8] != right[:8]:
        fields |= Field.TARGET
    if stat.S_IFMT(mode) in _DEVICES and left[_DEVICE] != right[_DEVICE]:
        fields |= Field.DEVICE
    return fields


def _in_step(a: Iterable[Child], b: Iterable[Child]) -> Iterator[Pair]:
    """Yield the entries of two directories in the order of their names, as pairs of equal names."""
    rest_a, rest_b = iter(a), iter(b)
    left, right = next(rest_a, None), next(rest_b, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left[0] < right[0]):
            yield left, None
            left = next(rest_a, None)
        elif left is None or right[0] < left[0]:
            yield None, right
            right = next(rest_b, None)
        else:
            yield left, right
            left, right = next(rest_a, None), next(rest_b, None)


def _pages(tree: Rootfs, spans: Mapping[int, tuple[int, int]], of: Child | None) -> Iterator[list[Child]]:
    """Yield the entries of the directory *of*, a page at a time; *spans* are the tree's."""
    if of is None or not is_directory(of[2]):
        return
    span, start = spans.get(of[1]), 0
    while page := tree.page(of[1], span, start, _PAGE):
        yield page
        start += _PAGE


def _beyond(tree: Rootfs, node: int) -> Beyond:
    """Return target and xattrs of the row of *node*; empty ones for a directory that no layer has a row for."""
    layer = node >> LAYER_SHIFT
    return Beyond() if layer == INVENTED_LAYER else tree.layers[layer].beyond(node & ROW_MASK)


def _content(tree: Rootfs, child: Child, content: int | None) -> Content:
    return content_of(tree.diff_ids[child[1] >> LAYER_SHIFT], content, size_of(child[2]))
