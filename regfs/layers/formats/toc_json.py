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
from typing import NoReturn

from regfs.errors import BadLayer
from regfs.model.strict_json import STRICT, printable

MAX_ELEMENT = 4 << 20
"""Characters of one entry; with all its extended attributes none has a tenth of it."""
VERSION = 1

_NUMBER_GOES_ON = re.compile(r"[-+.0-9eE]*")
_SPACE = re.compile(r"[ \t\r\n]*")
_BETWEEN_OBJECTS = re.compile(r"\}[ \t\r\n]*,[ \t\r\n]*\{")


def entries_of(blocks: Iterable[bytes]) -> Iterator[dict[str, object]]:
    """Yield the objects of the list "entries" in the document that *blocks* are. Raises BadLayer.

    What follows the list is checked when the last has been taken.
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
            yield from _elements(text)
        elif (value := text.value()) != VERSION and key == "version":
            _refuse(f"its version is {printable(str(value))[:40]}, regfs reads {VERSION}")
        if not text.skip_if(","):
            break
    text.expect("}")
    text.expect("")
    if missing := {"version", "entries"} - seen:
        _refuse(f"it has no {min(missing)}")


def _elements(text: _Text) -> Iterator[dict[str, object]]:
    if not text.skip_if("["):
        if text.value() is not None:  # Go's encoder writes null for an empty list
            _refuse("its entries are not a list")
        return
    if text.skip_if("]"):
        return
    while True:
        elements = text.objects() or [text.value()]
        for element in elements:
            if not isinstance(element, dict):
                _refuse("an entry is not an object")
            yield element
        if not text.skip_if(","):
            break
    text.expect("]")


def _refuse(reason: str) -> NoReturn:
    raise BadLayer(f"the table of contents cannot be read: {reason}")


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

    def objects(self) -> list[object]:
        """Return the objects that come next, commas between them, as many as the window has; [] where that is unclear.

        What is decoded alike as a list has been cut right: within a string or an object nothing would be.
        """
        if self._between is None:
            found = _BETWEEN_OBJECTS.search(self._text, self._at)
            self._between = found[0] if found else None
        if not self._between:
            return []
        cut = self._text.rfind(self._between, self._at)
        if cut < 0 and not self._is_whole:
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
