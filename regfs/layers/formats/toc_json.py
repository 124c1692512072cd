"""The JSON of a table of contents, one entry at a time: `{"version": 1, "entries": [{…}, …], …}`.

A table of a million files is 300 MB of text and would be 1.5 GB as Python's objects, in a daemon that promises 150 MB.
Here a window of the text and the entries in it are in memory at a time, decoded by the C scanner of the standard
library, all that a window has at once. (ijson, a streaming parser, was measured: its C backend takes four times as
long. msgspec takes a third of the time, but knows no duplicate keys.)
As strict as model/strict_json.py. Pure; one thread.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NoReturn

from regfs.errors import BadLayer
from regfs.layers.formats.toc_text import Fields, Patterns, PlainRun, patterns_of
from regfs.model.strict_json import STRICT, printable

MAX_ELEMENT = 4 << 20
"""Characters of one entry; with all its extended attributes none has a tenth of it."""
VERSION = 1
# Two entries have fewer characters as a rule; where they do not, all are decoded.
_LOOK_AHEAD = 1 << 13
_SPACES = " \t\r\n"

_NUMBER_GOES_ON = re.compile(r"[-+.0-9eE]*")
_SPACE = re.compile(r"[ \t\r\n]*")
_BETWEEN_OBJECTS = re.compile(r"\}[ \t\r\n]*,[ \t\r\n]*\{")


def entries_of(blocks: Iterable[bytes]) -> Iterator[Fields]:
    """Yield the objects of the list "entries" in the document that *blocks* are. Raises BadLayer.

    What follows the list is checked when the last has been taken.
    """
    for entry in entries_and_runs_of(blocks, with_runs=False):
        assert isinstance(entry, dict)
        yield entry


def entries_and_runs_of(blocks: Iterable[bytes], *, with_runs: bool = True) -> Iterator[Fields | PlainRun]:
    """Yield the objects as entries_of() does, plain ones in runs, as many as a window has.

    A run has all chunks of the files in it, and no others.
    """
    text = _Text(blocks)
    seen: set[str] = set()
    text.expect("{")
    if text.skip_if("}"):
        _refuse("it is empty")
    while True:
        key = text.value()
        if not isinstance(key, str) or key in seen:
            _refuse("it has a key that is not a string, or comes twice")
        seen.add(key)
        text.expect(":")
        if key == "entries":
            yield from _elements(text, with_runs=with_runs)
        elif (value := text.value()) != VERSION and key == "version":
            _refuse(f"its version is {printable(str(value))[:40]}, regfs reads {VERSION}")
        if not text.skip_if(","):
            break
    text.expect("}")
    text.expect("")
    if missing := {"version", "entries"} - seen:
        _refuse(f"it has no {min(missing)}")


def _elements(text: _Text, *, with_runs: bool) -> Iterator[Fields | PlainRun]:
    if not text.skip_if("["):
        if text.value() is not None:  # Go's encoder writes null for an empty list
            _refuse("its entries are not a list")
        return
    if text.skip_if("]"):
        return
    patterns = text.patterns() if with_runs else None
    plain: PlainRun | None = None
    while True:
        pieces = text.pieces(patterns) if patterns is not None else []
        is_over = False
        if not pieces:
            pieces = [text.objects() or [text.value()]]
            is_over = not text.skip_if(",")
        for piece in pieces:
            is_chunk = _begins_with_chunk(piece)
            if plain is not None:
                yield from _ended(plain, is_cut=is_chunk)
            plain = None
            if isinstance(piece, PlainRun):
                begin = next(iter(piece.files()), len(piece)) if is_chunk else 0
                yield from map(piece.fields, range(begin))
                if begin < len(piece):
                    plain = piece.part(begin, len(piece)) if begin else piece
                continue
            for element in piece:
                if not isinstance(element, dict):
                    _refuse("an entry is not an object")
                yield element
        if is_over:
            break
    text.expect("]")


def _begins_with_chunk(piece: PlainRun | list[object]) -> bool:
    if isinstance(piece, PlainRun):
        return piece.column("type")[0] == "chunk"
    return isinstance(piece[0], dict) and piece[0].get("type") == "chunk"


def _ended(plain: PlainRun, *, is_cut: bool) -> Iterator[Fields | PlainRun]:
    """Yield the run *plain*, the last file as objects if it is cut: if another chunk of it follows."""
    last = plain.files()[-1] if is_cut else len(plain)
    if last:
        yield plain.part(0, last) if is_cut else plain
    yield from map(plain.fields, range(last, len(plain)))


def _refuse(reason: str) -> NoReturn:
    raise BadLayer(f"the table of contents cannot be read: {reason}")


def _runs_and_objects(parts: list[str | None], pattern: re.Pattern[str]) -> Iterator[PlainRun | list[object]]:
    """Yield what a text has up to the last match of *pattern*, which split it into *parts*.

    Raises ValueError where the matches are not entries of a list.
    """
    width = pattern.groups + 1
    count = len(parts) // width
    begin = 0
    for number, between in enumerate(parts[:-1:width]):
        if between:
            if begin < number:
                yield PlainRun.of(parts[begin * width : number * width], pattern)
            begin = number
            if objects := between.rstrip(_SPACES):
                yield _list_before_comma(objects)
    if begin < count:
        yield PlainRun.of(parts[begin * width : count * width], pattern)


def _list_before_comma(text: str) -> list[object]:
    """Return the values in *text*, each of which a comma follows. Raises ValueError."""
    values: list[object] = STRICT.decode(f"[{text[:-1]}]")
    if not values or not text.endswith(","):
        raise ValueError("no comma is where one is due")
    return values


class _Text:
    """A window of the document's text, which moves on as it is read."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")
        self._text = ""
        self._at = 0
        self._is_whole = False
        # What one writer of tables puts between two objects; "" where that is not known or was something else.
        self._between: str | None = None

    def skip_if(self, token: str) -> bool:
        """Pass over the character *token* if it comes next, and tell so; "" stands for the end."""
        found = self._peek()
        self._at += found == token and len(token)
        return found == token

    def expect(self, token: str) -> None:
        """Pass over *token*. Raises BadLayer where something else comes next."""
        if not self.skip_if(token):
            _refuse(f"{self._peek()!r} where {token!r} is due" if token else "something follows its end")

    def value(self) -> object:
        """Return the next value, decoded. Raises BadLayer."""
        self._peek()
        while True:
            try:
                value, end = STRICT.raw_decode(self._text, self._at)
            except RecursionError:
                _refuse("it is nested too deeply")
            except ValueError as error:
                if self._is_whole or len(self._text) - self._at > MAX_ELEMENT:
                    _refuse(printable(str(error))[:200])
                self._extend()
                continue
            # A number may go on behind the window: "-0" and "-0." are read alike, and "-0.5" is another one.
            if self._is_whole or not _NUMBER_GOES_ON.fullmatch(self._text, end):
                self._at = end
                return value
            self._extend()

    def patterns(self) -> Patterns | None:
        """Return the patterns of plain entries, the first of which comes next; None for an unknown writer."""
        self._peek()
        while not self._is_whole and len(self._text) - self._at < _LOOK_AHEAD:
            self._extend()
        return patterns_of(self._text, self._at)

    def pieces(self, patterns: Patterns) -> list[PlainRun | list[object]]:
        """Pass over what the window has up to the last plain object; return it as runs and objects.

        Returns [] where none is, and where that is unclear. What stands between two matches has been cut right if
        it is decoded as a list: within a string or an object nothing would be.
        """
        self._peek()
        while not self._has_whole_object() and not self._is_whole and len(self._text) - self._at < MAX_ELEMENT:
            self._extend()
        window = self._text[self._at :]
        for pattern in patterns.for_text(window):
            parts: list[str | None] = pattern.split(window)
            with suppress(ValueError, RecursionError):
                pieces = list(_runs_and_objects(parts, pattern))
                if pieces:
                    self._at = len(self._text) - len(parts[-1] or "")
                return pieces
        return []

    def objects(self) -> list[object]:
        """Return the objects that come next, commas between them, as many as the window has; [] where that is unclear.

        What is decoded alike as a list has been cut right: within a string or an object nothing would be.
        """
        has_whole = self._has_whole_object()
        if not self._between:
            return []
        if not has_whole and not self._is_whole:
            self._extend()
        cut = self._text.rfind(self._between, self._at)
        if cut < 0:
            return []
        try:
            objects: list[object] = STRICT.decode(f"[{self._text[self._at : cut + 1]}]")
        except (ValueError, RecursionError):
            self._between = ""  # one by one from here on: what is wrong with which is told then
            return []
        self._at = cut + 1
        return objects

    def _has_whole_object(self) -> bool:
        """Tell whether the window has the end of an object, and the beginning of the next one."""
        if self._between is None:
            found = _BETWEEN_OBJECTS.search(self._text, self._at)
            self._between = found[0] if found else None
        return bool(self._between) and self._text.find(self._between or "", self._at) >= 0

    def _peek(self) -> str:
        """Return the next character that is not a space, "" at the end."""
        while True:
            at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]  # it matches nothing, too
            self._at = at
            if at < len(self._text):
                return self._text[at]
            if self._is_whole:
                return ""
            self._extend()

    def _extend(self) -> None:
        """Make the window twice as long, or reach to the end: a value is tried again with each extension."""
        text = self._text[self._at :]
        parts, left = [text], len(text)
        while left >= 0 and not self._is_whole:
            block = next(self._blocks, b"")
            self._is_whole = not block
            try:
                parts.append(self._decoder.decode(block, final=self._is_whole))
            except UnicodeDecodeError:
                _refuse("it is no UTF-8")
            left -= len(parts[-1])
        self._text = "".join(parts)
        self._at = 0
