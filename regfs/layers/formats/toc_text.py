"""Finds the plain entries of a table of contents, which nearly all are, in its text: a pattern reads and checks one.

A plain entry is a file, a chunk of it, a directory or a symbolic link, without extended attributes, whose strings are
printable ASCII without escapes, and whose keys are in the order of one of the two writers that there are: Go encodes
the fields of a struct in order, and leaves out those that are zero. Any other entry is decoded as JSON (toc_json.py),
which reads plain ones too and comes to the same values, in twice the time; tests hold one against the other.

Sources: stargz-snapshotter, estargz/types.go, TOCEntry; containers/storage, pkg/chunked/internal/minimal, FileMetadata.
Pure; any thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property, lru_cache, partial
from itertools import chain, compress
from typing import NamedTuple

from regfs.model.names import NAME_MAX

Fields = dict[str, object]
"""One object of a table in JSON."""
Columns = Mapping[str, Sequence[str | None]]

_CHARACTER = r"[ !#-\[\]-~]"
_NUMBER = "[1-9][0-9]{0,17}"
_TYPE = '"(reg|dir|symlink|chunk)"'
_TARGET = f'"({_CHARACTER}{{1,4095}})"'
_TIME = '"([0-9TZ:.+-]{1,40})"'
_PASSED_TIME = '"[0-9TZ:.+-]{1,40}"'
_PASSED_TEXT = f'"{_CHARACTER}{{0,255}}"'
# Quick patterns: `[^"]` is matched in a quarter of the time of a set, so what a run has matched is checked at once.
_ANY_NAME, _ANY_SHA256 = f'[^"]{{1,{NAME_MAX}}}', 'sha256:[^"]{64}'
_EXACT_NAME, _EXACT_SHA256 = f"{_CHARACTER}{{1,{NAME_MAX}}}", "sha256:[0-9a-f]{64}"
_PLAIN_BYTES = bytes(set(range(0x20, 0x7F)) - set(b'"\\'))
_HEXADECIMAL = b"0123456789abcdef"
_NO_HEXADECIMAL = b"sh:"  # of "sha256:"

_STARGZ = {
    "name": "", "type": _TYPE, "size": f"({_NUMBER})", "modtime": _TIME, "linkName": _TARGET,
    "mode": f"({_NUMBER})", "uid": f"({_NUMBER})", "gid": f"({_NUMBER})", "userName": _PASSED_TEXT,
    "groupName": _PASSED_TEXT, "offset": f"({_NUMBER})", "NumLink": "[0-9]", "digest": "",
    "chunkOffset": f"({_NUMBER})", "chunkSize": f"({_NUMBER})", "chunkDigest": "",
}  # fmt: skip
_STORAGE = {
    "type": _TYPE, "name": "", "linkName": _TARGET, "mode": f"({_NUMBER})", "size": f"({_NUMBER})",
    "uid": f"({_NUMBER})", "gid": f"({_NUMBER})", "modtime": _TIME, "accesstime": _PASSED_TIME,
    "changetime": _PASSED_TIME, "digest": "", "offset": f"({_NUMBER})", "endOffset": f"({_NUMBER})",
    "chunkSize": f"({_NUMBER})", "chunkOffset": f"({_NUMBER})", "chunkDigest": "", "chunkType": '"(zeros)"',
}  # fmt: skip
_NUMBERS = frozenset(("size", "mode", "uid", "gid", "offset", "endOffset", "chunkOffset", "chunkSize"))
_ALIKE = "alike"
"""An empty group that tells that there is a chunkDigest, which is the digest."""
_WRITERS = {next(iter(keys)): keys for keys in (_STARGZ, _STORAGE)}
"""The keys of entries, in order, each with the pattern of its value; by the first of them."""

# The white space that a writer puts into an entry, and behind it.
_LAYOUT = re.compile(r'\{([ \t\r\n]{0,99})"([a-z]+)":([ \t]{0,9})"[^"]*",([ \t\r\n]{0,99})"')
_END = re.compile(r"([ \t\r\n]{0,99})\},([ \t\r\n]{0,99})\{")


class PlainRun:
    """Plain entries that follow each other. A column has the text of one field of each, None where it lacks it."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._names = "\0".join(columns["name"]).encode()  # type: ignore[arg-type]  # no match without a name
        self.paths = self._names.split(b"\0")
        self.sizes = self.numbers("size")
        self.offsets = self.numbers("offset")

    @classmethod
    def of(cls, parts: Sequence[str | None], pattern: re.Pattern[str]) -> PlainRun:
        """Return the entries, at least one, of *parts*, into which *pattern* of Patterns splits a text.

        Raises ValueError where an entry is not plain.
        """
        width = pattern.groups + 1
        run = cls({key: parts[place::width] for key, place in pattern.groupindex.items()})
        run._check()
        return run

    def __len__(self) -> int:
        return len(self._columns["name"])

    def column(self, key: str) -> Sequence[str | None]:
        """Return the texts of the field *key*."""
        return self._columns.get(key) or (None,) * len(self)

    def numbers(self, key: str) -> list[int]:
        """Return the numbers of the field *key*, 0 where an entry lacks it."""
        return [int(text) if text else 0 for text in self.column(key)]

    def digests(self) -> Sequence[str | None]:
        """Return the digest of the bytes of each, where it is a file in one piece."""
        of_files, of_chunks = self.column("digest"), self.column("chunkDigest")
        if not any(of_chunks):
            return of_files
        return [one or other for one, other in zip(of_chunks, of_files, strict=True)]

    def chunk_digests(self) -> Sequence[str | None]:
        """Return the digest of each chunk, which the first entry of a file in several pieces is, too."""
        columns = self.column("chunkDigest"), self.column(_ALIKE), self.column("digest")
        return [one if alike is None else other for one, alike, other in zip(*columns, strict=True)]

    def may_have(self, names: Iterable[bytes]) -> bool:
        """Return whether a path ends in one of *names*, or seems to."""
        return any(name in self._names for name in names)

    def pieces(self) -> list[int]:
        """Return the numbers of the chunks, and of the files that may be in several."""
        of_kind = [number for number, kind in enumerate(self.column("type")) if kind == "chunk"]
        columns = [self.column(key) for key in ("chunkSize", "chunkOffset", "chunkType")]
        others = (number for column in columns if any(column) for number, text in enumerate(column) if text)
        return sorted({*of_kind, *others})

    def files(self) -> list[int]:
        """Return the numbers of the entries that are no chunks."""
        return [number for number, kind in enumerate(self.column("type")) if kind != "chunk"]

    def part(self, begin: int, end: int) -> PlainRun:
        """Return the run of the entries from *begin* to *end*, at least one."""
        return PlainRun({key: column[begin:end] for key, column in self._columns.items()})

    def without_chunks(self) -> PlainRun:
        """Return the run without its chunks."""
        is_file = [kind != "chunk" for kind in self.column("type")]
        run = copy(self)
        run._columns = {
            key: list(compress(column, is_file))
            for key, column in self._columns.items()
            if column.count(None) < len(column)
        }
        run.paths, run.sizes = list(compress(self.paths, is_file)), list(compress(self.sizes, is_file))
        run.offsets = list(compress(self.offsets, is_file))
        return run

    def fields(self, number: int) -> Fields:
        """Return the object of entry *number*, without fields that do not count."""
        texts = {key: text for key, column in self._columns.items() if (text := column[number]) is not None}
        if texts.pop(_ALIKE, None) is not None:
            texts["chunkDigest"] = texts["digest"]
        return {key: int(text) if key in _NUMBERS else text for key, text in texts.items()}

    def _check(self) -> None:
        """Raise ValueError unless an exact pattern would match, too."""
        digests = list(filter(None, chain(self.column("digest"), self.column("chunkDigest"))))
        left = "".join(digests).encode().translate(None, _HEXADECIMAL)
        odd = self._names.translate(None, _PLAIN_BYTES)
        if left != _NO_HEXADECIMAL * len(digests) or odd != bytes(len(self) - 1):
            raise ValueError("an entry is not plain")


class BoundedRun(NamedTuple):
    """A run, and where the member ends that begins at the offset of each entry; see Toc."""

    run: PlainRun
    ends: list[int]


class _Layout(NamedTuple):
    """The white space of a writer's text: after `{`, after `:`, after `,`, before `}`, after the comma behind that."""

    opening: str
    colon: str
    comma: str
    closing: str
    between: str


class Patterns:
    """Patterns of plain entries and the comma behind them, for the texts of one writer."""

    def __init__(self, first: str, layout: _Layout) -> None:
        """*first* is the first key of the writer's entries."""
        self._make = partial(_pattern, first, layout)

    @cached_property
    def quick(self) -> re.Pattern[str]:
        """The pattern that may match too much; PlainRun.of() refuses that."""
        return self._make(name=_ANY_NAME, digest=_ANY_SHA256)

    @cached_property
    def exact(self) -> re.Pattern[str]:
        """The pattern that matches plain entries alone. Making one takes a millisecond, and few tables need it."""
        return self._make(name=_EXACT_NAME, digest=_EXACT_SHA256)

    def for_text(self, text: str) -> Iterator[re.Pattern[str]]:
        """Yield the patterns to be tried."""
        if text.isascii() and "\\" not in text:
            yield self.quick
        yield self.exact


def patterns_of(text: str, at: int) -> Patterns | None:
    """Return the patterns for *text*; None if it seems to be of an unknown writer.

    The first entry begins at *at*, and the next one should be in the text, too.
    """
    begin = _LAYOUT.match(text, at)
    end = _END.search(text, at)
    if begin is None or end is None or begin[2] not in _WRITERS:
        return None
    return _patterns(begin[2], _Layout(begin[1], begin[3], begin[4], end[1], end[2]))


@lru_cache(maxsize=8)
def _patterns(first: str, layout: _Layout) -> Patterns:
    return Patterns(first, layout)


def _pattern(first: str, layout: _Layout, *, name: str, digest: str) -> re.Pattern[str]:
    parts = [r"\{", layout.opening]
    for key, value in _WRITERS[first].items():
        comma, colon = "" if key == first else f",{layout.comma}", layout.colon
        member = f'{comma}"{key}":{colon}{value.replace("(", f"(?P<{key}>", 1)}'
        if key == "name":
            parts.append(f'{member}"(?P<name>{name})"')
        elif key == "type":
            parts.append(member)
        elif key == "digest":
            parts.append(f'(?:{member}"(?P<digest>{digest})"|)')
        elif key == "chunkDigest":
            parts.append(f'(?:{member}"(?:(?P=digest)(?P<{_ALIKE}>)|(?P<chunkDigest>{digest}))"|)')
        else:
            parts.append(f"(?:{member}|)")
    return re.compile("".join([*parts, layout.closing, r"\},", layout.between, r"(?=\{)"]))
