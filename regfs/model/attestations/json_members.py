"""Splits a JSON object into its members, each as the exact bytes of its value.

An SBOM inside a statement may have 40 MB: parsed, it would need ten times as much memory, and written again its bytes
would differ. So only the outer object is parsed here. The end of a value is found by its brackets and strings; whether
a value is valid JSON is not checked. Used by documents.py. Pure; any thread.
"""

from __future__ import annotations

import json
import re

from regfs.errors import BadContent, TooLarge

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
# Everything up to the next bracket. One regular expression skips strings, which are most of an SBOM.
_BRACKET = re.compile(rb'(?:[^][{}"]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+([][{}])', re.DOTALL)
_SCALAR = re.compile(rb"[^\s,\]}]+")
_SPACE = re.compile(rb"[ \t\r\n]*")
_MOST_MEMBERS = 64
_MOST_BRACKETS = 10_000_000
_MOST_KEY = 1024


def members(content: bytes) -> dict[str, bytes]:
    """Return the members of the object *content* by their keys. Raises BadContent; TooLarge for too many."""
    at = _after_space(content, 0)
    if content[at : at + 1] != b"{":
        raise BadContent("it is not a JSON object")
    found: dict[str, bytes] = {}
    at = _after_space(content, at + 1)
    while content[at : at + 1] != b"}":
        if found:
            at = _after_space(content, _expect(content, at, b","))
        if len(found) >= _MOST_MEMBERS:
            raise TooLarge(f"the object has more than {_MOST_MEMBERS} members")
        key_end = _end_of_string(content, at)
        key = text_of(content[at:key_end], limit=_MOST_KEY)
        if key in found:
            raise BadContent("an object has the same key twice")
        start = _after_space(content, _expect(content, _after_space(content, key_end), b":"))
        end = _end_of_value(content, start)
        found[key] = content[start:end]
        at = _after_space(content, end)
    if _after_space(content, at + 1) != len(content):
        raise BadContent("something follows the JSON object")
    return found


def text_of(literal: bytes, *, limit: int) -> str:
    """Return the string of the JSON literal *literal*. Raises BadContent; TooLarge over *limit* bytes."""
    if len(literal) > limit:
        raise TooLarge(f"a string has {len(literal)} bytes, more than {limit}")
    try:
        value = json.loads(literal)
    except (ValueError, RecursionError):
        raise BadContent("it is not JSON") from None
    if not isinstance(value, str):
        raise BadContent("a string was expected")
    return value


def _end_of_value(content: bytes, start: int) -> int:
    first = content[start : start + 1]
    if first == b'"':
        return _end_of_string(content, start)
    if first not in (b"{", b"["):
        scalar = _SCALAR.match(content, start)
        if scalar is None:
            raise BadContent("a value is missing")
        return scalar.end()
    depth = 0
    for _ in range(_MOST_BRACKETS):
        found = _BRACKET.match(content, start)
        if found is None:
            raise BadContent("a value does not end")
        start = found.end()
        depth += 1 if content[start - 1] in b"{[" else -1
        if depth == 0:
            return start
    raise TooLarge(f"a value has more than {_MOST_BRACKETS} brackets")


def _end_of_string(content: bytes, start: int) -> int:
    string = _STRING.match(content, start)
    if string is None:
        raise BadContent("a string was expected")
    return string.end()


def _after_space(content: bytes, at: int) -> int:
    space = _SPACE.match(content, at)
    return at if space is None else space.end()


def _expect(content: bytes, at: int, sign: bytes) -> int:
    if content[at : at + 1] != sign:
        raise BadContent(f"{sign.decode()!r} was expected at byte {at}")
    return at + 1
