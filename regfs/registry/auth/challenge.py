"""The WWW-Authenticate header: the challenges of a 401.

There may be several challenges in one header, and several headers, in any order, with values quoted or not, with commas
and escapes inside the quotes. Junk is skipped, never an error: the registry wrote it. Source: RFC 9110, section
11.6.1; distribution, docs/content/spec/auth/token.md. Used by auth/authorization.py. Pure; any thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf"({_WORD})[ \t]*=[ \t]*", re.ASCII)
_SCHEME = re.compile(rf"{_WORD}(?=[ \t,]|$)", re.ASCII)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.ASCII)
_BARE = re.compile(r'[^\s,"]*', re.ASCII)
_BETWEEN = re.compile(r"[\s,]*", re.ASCII)
_ESCAPED = re.compile(r"\\(.)", re.ASCII)
_HEADER_LIMIT = 16 * 1024
_CHALLENGES_LIMIT = 32


class Challenge(NamedTuple):
    """One scheme, lower case, and its parameters by lower-case name."""

    scheme: str
    parameters: Mapping[str, str]

    def get(self, name: str) -> str:
        """Return the parameter *name*, empty where it is missing."""
        return self.parameters.get(name, "")


def parse_challenges(values: Iterable[str]) -> list[Challenge]:
    """Return the challenges of all WWW-Authenticate header *values*, in their order; never raises."""
    challenges: list[Challenge] = []
    for value in values:
        challenges += _parse(value[:_HEADER_LIMIT])
    return challenges[:_CHALLENGES_LIMIT]


def _parse(text: str) -> list[Challenge]:
    challenges: list[Challenge] = []
    parameters: dict[str, str] = {}
    position = _end(_BETWEEN, text, 0)
    while position < len(text):
        if parameter := _PARAMETER.match(text, position):
            value = _value(text, parameter.end())
            if value is None:
                return challenges  # a quote that never ends: the rest cannot be parsed
            position = value[1]
            parameters.setdefault(parameter.group(1).lower(), value[0])
        elif scheme := _SCHEME.match(text, position):
            position = scheme.end()
            parameters = {}
            challenges.append(Challenge(scheme.group().lower(), parameters))
        else:
            position = max(position + 1, _end(_BARE, text, position))
        position = _end(_BETWEEN, text, position)
    return challenges


def _value(text: str, position: int) -> tuple[str, int] | None:
    """Return the parameter value that begins at *position* and where it ends."""
    if text.startswith('"', position):
        quoted = _QUOTED.match(text, position)
        return None if quoted is None else (_ESCAPED.sub(r"\1", quoted.group(1)), quoted.end())
    end = _end(_BARE, text, position)
    return text[position:end], end


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    """Return where the match of *pattern*, which may be empty, ends."""
    match = pattern.match(text, position)
    return position if match is None else match.end()
