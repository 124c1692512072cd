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
from collections.abc import Sequence
from copy import copy
from functools import lru_cache
from typing import NamedTuple

from regfs.model.names import NAME_MAX

Fields = dict[str, object]
"""One object of a table in JSON."""

_CHARACTER = r"[ !#-\[\]-~]"
_NUMBER = "[1-9][0-9]{0,17}"
_SHA256 = "sha256:[0-9a-f]{64}"

_NAME = f'"({_CHARACTER}{{1,{NAME_MAX}}})"'
_TYPE = '"(reg|dir|symlink)"'
_TARGET = f'"({_CHARACTER}{{1,4095}})"'
_TIME = '"([0-9TZ:.+-]{1,40})"'
_PASSED_TIME = '"[0-9TZ:.+-]{1,40}"'
_PASSED_TEXT = f'"{_CHARACTER}{{0,255}}"'
_DIGEST = "chunkDigest"
"""Stands for digest, chunkDigest, or both: then the former does not count."""

_STARGZ = {
    "name": _NAME, "type": _TYPE, "size": f"({_NUMBER})", "modtime": _TIME, "linkName": _TARGET,
    "mode": f"({_NUMBER})", "uid": f"({_NUMBER})", "gid": f"({_NUMBER})", "userName": _PASSED_TEXT,
    "groupName": _PASSED_TEXT, "offset": f"({_NUMBER})", "NumLink": "[0-9]", _DIGEST: "",
}  # fmt: skip
_STORAGE = {
    "type": _TYPE, "name": _NAME, "linkName": _TARGET, "mode": f"({_NUMBER})", "size": f"({_NUMBER})",
    "uid": f"({_NUMBER})", "gid": f"({_NUMBER})", "modtime": _TIME, "accesstime": _PASSED_TIME,
    "changetime": _PASSED_TIME, _DIGEST: "", "offset": f"({_NUMBER})", "endOffset": f"({_NUMBER})",
}  # fmt: skip
_NUMBERS = frozenset(("size", "mode", "uid", "gid", "offset", "endOffset"))
_ALWAYS = frozenset(("name", "type"))
_WRITERS = {next(iter(keys)): keys for keys in (_STARGZ, _STORAGE)}
"""The keys of entries, in order, each with the pattern of its value; by the first of them."""

# The white space that a writer puts into an entry, and behind it.
_LAYOUT = re.compile(r'\{([ \t\r\n]{0,99})"([a-z]+)":([ \t]{0,9})"[^"]*",([ \t\r\n]{0,99})"')
_END = re.compile(r"([ \t\r\n]{0,99})\},([ \t\r\n]{0,99})\{")


class PlainRun:
    """Plain entries that follow each other. A column has the text of one field of each, None where it lacks it."""

    def __init__(self, parts: Sequence[str | None], pattern: re.Pattern[str]) -> None:
        """*parts* are those into which *pattern*, which pattern_of() returned, splits a text: at least one entry."""
        width = pattern.groups + 1
        self._columns = {key: parts[place::width] for key, place in pattern.groupindex.items()}
        self._length = len(parts) // width
        self.sizes = self._numbers("size")
        self.offsets = self._numbers("offset")

    def __len__(self) -> int:
        return self._length

    def column(self, key: str) -> Sequence[str | None]:
        """Return the texts of the field *key*."""
        return self._columns.get(key) or (None,) * self._length

    def digests(self) -> Sequence[str | None]:
        """Return the digests that count."""
        of_chunks, of_files = self.column("chunkDigest"), self.column("digest")
        return [one or other for one, other in zip(of_chunks, of_files, strict=True)] if any(of_files) else of_chunks

    def names(self) -> str:
        """Return the names of all, NUL between them."""
        return "\0".join(self._columns["name"])  # type: ignore[arg-type]  # an entry without a name does not match

    def fields(self, number: int) -> Fields:
        """Return the object of entry *number*, without fields that do not count."""
        texts = {key: text for key, column in self._columns.items() if (text := column[number]) is not None}
        return {key: int(text) if key in _NUMBERS else text for key, text in texts.items()}

    def without_last(self) -> PlainRun:
        """Return the run without its last entry; it has another one."""
        shorter = copy(self)
        shorter._columns = {key: column[:-1] for key, column in self._columns.items()}
        shorter._length -= 1
        shorter.sizes, shorter.offsets = self.sizes[:-1], self.offsets[:-1]
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


def pattern_of(text: str, at: int) -> re.Pattern[str] | None:
    """Return a pattern of plain entries and the comma behind them; None if *text* seems to be of an unknown writer.

    The first entry begins at *at*, and the next one should be in the text, too.
    """
    begin = _LAYOUT.match(text, at)
    end = _END.search(text, at)
    if begin is None or end is None or begin[2] not in _WRITERS:
        return None
    return _pattern(begin[2], _Layout(begin[1], begin[3], begin[4], end[1], end[2]))


@lru_cache(maxsize=8)
def _pattern(first: str, layout: _Layout) -> re.Pattern[str]:
    parts = [r"\{", layout.opening]
    for key, value in _WRITERS[first].items():
        comma = "" if key == first else f",{layout.comma}"
        if key == _DIGEST:
            digest, both = f'{comma}"digest":{layout.colon}', f'{comma}"{_DIGEST}":{layout.colon}'
            parts.append(f'(?:{digest}"{_SHA256}"(?={both})|{digest}"(?P<digest>{_SHA256})"|)')
            parts.append(f'(?:{both}"(?P<{_DIGEST}>{_SHA256})"|)')
            continue
        member = f'{comma}"{key}":{layout.colon}{value.replace("(", f"(?P<{key}>", 1)}'
        parts.append(member if key in _ALWAYS else f"(?:{member}|)")
    return re.compile("".join([*parts, layout.closing, r"\},", layout.between, r"(?=\{)"]))
