"""Finds the plain entries of a table of contents, which nearly all are, in its text: a pattern reads and checks one.

A plain entry is a file in one piece, a directory or a symbolic link, without extended attributes, whose strings are
printable ASCII without escapes, and whose keys are in the order of one of the two writers that there are: Go encodes
the fields of a struct in order, and leaves out those that are zero. Any other entry is decoded as JSON (toc_json.py),
which reads plain ones too and comes to the same values, in twice the time; tests hold one against the other.

Sources: stargz-snapshotter, estargz/types.go, TOCEntry; containers/storage, pkg/chunked/internal/minimal, FileMetadata.
Pure; any thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from copy import copy
from functools import lru_cache
from typing import NamedTuple

from regfs.model.names import NAME_MAX

Fields = dict[str, object]
"""One object of a table in JSON."""

_CHARACTER = r"[ !#-\[\]-~]"
_NUMBER = "[1-9][0-9]{0,17}"
_TYPE = '"(reg|dir|symlink)"'
_TARGET = f'"({_CHARACTER}{{1,4095}})"'
_TIME = '"([0-9TZ:.+-]{1,40})"'
_PASSED_TIME = '"[0-9TZ:.+-]{1,40}"'
_PASSED_TEXT = f'"{_CHARACTER}{{0,255}}"'
_DIGEST = "digest"
"""Stands for digest alone, or digest and the same chunkDigest, of which an empty group tells."""
# Quick patterns: `[^"]` is matched in a quarter of the time of a set, so what a run has matched is checked at once.
_ANY_NAME, _ANY_SHA256 = f'[^"]{{1,{NAME_MAX}}}', 'sha256:[^"]{64}'
_EXACT_NAME, _EXACT_SHA256 = f"{_CHARACTER}{{1,{NAME_MAX}}}", "sha256:[0-9a-f]{64}"
_PLAIN_BYTES = bytes(set(range(0x20, 0x7F)) - set(b'"\\'))
_HEXADECIMAL = b"0123456789abcdef"
_NO_HEXADECIMAL = b"sh:"  # of "sha256:"

_STARGZ = {
    "name": "", "type": _TYPE, "size": f"({_NUMBER})", "modtime": _TIME, "linkName": _TARGET,
    "mode": f"({_NUMBER})", "uid": f"({_NUMBER})", "gid": f"({_NUMBER})", "userName": _PASSED_TEXT,
    "groupName": _PASSED_TEXT, "offset": f"({_NUMBER})", "NumLink": "[0-9]", _DIGEST: "",
}  # fmt: skip
_STORAGE = {
    "type": _TYPE, "name": "", "linkName": _TARGET, "mode": f"({_NUMBER})", "size": f"({_NUMBER})",
    "uid": f"({_NUMBER})", "gid": f"({_NUMBER})", "modtime": _TIME, "accesstime": _PASSED_TIME,
    "changetime": _PASSED_TIME, _DIGEST: "", "offset": f"({_NUMBER})", "endOffset": f"({_NUMBER})",
}  # fmt: skip
_NUMBERS = frozenset(("size", "mode", "uid", "gid", "offset", "endOffset"))
_WRITERS = {next(iter(keys)): keys for keys in (_STARGZ, _STORAGE)}
"""The keys of entries, in order, each with the pattern of its value; by the first of them."""

# The white space that a writer puts into an entry, and behind it.
_LAYOUT = re.compile(r'\{([ \t\r\n]{0,99})"([a-z]+)":([ \t]{0,9})"[^"]*",([ \t\r\n]{0,99})"')
_END = re.compile(r"([ \t\r\n]{0,99})\},([ \t\r\n]{0,99})\{")


class PlainRun:
    """Plain entries that follow each other. A column has the text of one field of each, None where it lacks it."""

    def __init__(self, parts: Sequence[str | None], pattern: re.Pattern[str]) -> None:
        """*parts* are those into which *pattern* of Patterns splits a text: at least one entry.

        Raises ValueError where an entry is not plain.
        """
        width = pattern.groups + 1
        self._columns = {key: parts[place::width] for key, place in pattern.groupindex.items()}
        self._length = len(parts) // width
        self._names = "\0".join(self._columns["name"]).encode()  # type: ignore[arg-type]  # no match without a name
        self.digests = self.column("digest")
        self.sizes = self._numbers("size")
        self.offsets = self._numbers("offset")
        self._check()

    def __len__(self) -> int:
        return self._length

    def column(self, key: str) -> Sequence[str | None]:
        """Return the texts of the field *key*."""
        return self._columns.get(key) or (None,) * self._length

    def paths(self) -> list[bytes]:
        """Return the names."""
        return self._names.split(b"\0")

    def may_have(self, names: Iterable[bytes]) -> bool:
        """Return whether a path ends in one of *names*, or seems to."""
        return any(name in self._names for name in names)

    def _check(self) -> None:
        """Raise ValueError unless an exact pattern would match, too."""
        digests = list(filter(None, self.digests))
        left = "".join(digests).encode().translate(None, _HEXADECIMAL)
        odd = self._names.translate(None, _PLAIN_BYTES)
        if left != _NO_HEXADECIMAL * len(digests) or odd != bytes(self._length - 1):
            raise ValueError("an entry is not plain")

    def fields(self, number: int) -> Fields:
        """Return the object of entry *number*, without fields that do not count."""
        texts = {key: text for key, column in self._columns.items() if (text := column[number]) is not None}
        if "chunkDigest" in texts:
            texts["chunkDigest"] = texts["digest"]
        return {key: int(text) if key in _NUMBERS else text for key, text in texts.items()}

    def without_last(self) -> PlainRun:
        """Return the run without its last entry; it has another one."""
        shorter = copy(self)
        shorter._columns = {key: column[:-1] for key, column in self._columns.items()}
        shorter._length -= 1
        shorter._names = self._names.rpartition(b"\0")[0]
        shorter.digests, shorter.sizes, shorter.offsets = self.digests[:-1], self.sizes[:-1], self.offsets[:-1]
        return shorter

    def _numbers(self, key: str) -> list[int]:
        return [int(text) if text else 0 for text in self.column(key)]


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


class Patterns(NamedTuple):
    """Patterns of plain entries and the comma behind them, for the texts of one writer."""

    quick: re.Pattern[str]
    exact: re.Pattern[str]

    def for_text(self, text: str) -> Sequence[re.Pattern[str]]:
        """Return the patterns to be tried, one after the other: a PlainRun may refuse what *quick* finds."""
        return self if text.isascii() and "\\" not in text else (self.exact,)


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
    return Patterns(
        _pattern(first, layout, name=_ANY_NAME, digest=_ANY_SHA256),
        _pattern(first, layout, name=_EXACT_NAME, digest=_EXACT_SHA256),
    )


def _pattern(first: str, layout: _Layout, *, name: str, digest: str) -> re.Pattern[str]:
    parts = [r"\{", layout.opening]
    for key, value in _WRITERS[first].items():
        comma, colon = "" if key == first else f",{layout.comma}", layout.colon
        member = f'{comma}"{key}":{colon}{value.replace("(", f"(?P<{key}>", 1)}'
        if key == "name":
            parts.append(f'{member}"(?P<name>{name})"')
        elif key == "type":
            parts.append(member)
        elif key == _DIGEST:
            of_chunk = f'{comma}"chunkDigest":{colon}"(?P=digest)"(?P<chunkDigest>)'
            parts.append(f'(?:{member}"(?P<digest>{digest})"(?:{of_chunk}|)|)')
        else:
            parts.append(f"(?:{member}|)")
    return re.compile("".join([*parts, layout.closing, r"\},", layout.between, r"(?=\{)"]))
