"""/etc/subuid and /etc/subgid: the users and groups that an ordinary user may use in a user namespace.

    NAME-OR-UID:FIRST:COUNT      a line for each range

Used by `--subuid` and `regfs run`. Source: subuid(5). Reads the disk; any thread.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from regfs.process.regular_files import read_regular_file

SUBUID, SUBGID = "/etc/subuid", "/etc/subgid"
_LIMIT = 1 << 20


class IdRange(NamedTuple):
    """*length* ids: *inside* + n in the user namespace is *outside* + n outside of it."""

    inside: int
    outside: int
    length: int


def ranges_here(path: str) -> list[IdRange]:
    """Return the ranges that *path* gives to the user of this process; none where the file cannot be read."""
    uid = os.geteuid()
    names = {str(uid)}
    try:
        names.add(pwd.getpwuid(uid).pw_name)
    except KeyError:
        pass  # a user without a name
    try:
        text = read_regular_file(Path(path), _LIMIT).decode(errors="replace")
    except OSError:
        return []
    return list(parse_ranges(text, names))


def parse_ranges(text: str, names: Collection[str]) -> Iterator[IdRange]:
    """Yield the ranges in *text* that belong to one of *names*; their ids inside begin at 1 and follow one another."""
    inside = 1
    for line in text.splitlines():
        name, *numbers = line.strip().split(":")
        if name in names and len(numbers) == 2 and all(number.isascii() and number.isdigit() for number in numbers):
            outside, count = map(int, numbers)
            if count > 0:
                yield IdRange(inside, outside, count)
                inside += count


def outside_id(inside: int, *, own: int, ranges: Collection[IdRange], missing: int) -> int:
    """Return the id outside of the id *inside*: *own* for 0, as *ranges* say for others, *missing* if in no range."""
    if inside == 0:
        return own
    for each in ranges:
        if each.inside <= inside < each.inside + each.length:
            return each.outside + inside - each.inside
    return missing
