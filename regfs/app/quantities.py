"""Sizes, times and shares as users write them: `20G`, `5m`, `33%`. Used by config.py and the verbs. Pure."""

from __future__ import annotations

import re

from regfs.errors import InvalidOption
from regfs.model.cache_limits import MinFree

_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_SIZE_RE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgtp]?)(i?b?)", re.ASCII | re.IGNORECASE)
_SECONDS = {"ms": 0.001, "s": 1, "": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_DURATION_RE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|min|m|h|d|)", re.ASCII)
_MAX_SIZE = 1 << 62
_SMALL = 64 << 20
_LEAST_AGE_S = 60.0


def parse_size(text: str) -> int:
    """Return the bytes that `20G`, `1.5GiB`, `500 MB` or `4096` mean, in powers of 1024. Raises InvalidOption."""
    found = _SIZE_RE.fullmatch(text.strip())
    if found is None:
        raise InvalidOption(f"{text!r} is not a size; write 10GiB, 500M or a number of bytes")
    size = int(float(found[1]) * 1024 ** _UNITS[found[2].lower()])
    if size > _MAX_SIZE:
        raise InvalidOption(f"{text!r} is more than any disk holds")
    return size


def parse_cache_size(text: str) -> int:
    """Return the size in bytes that *text* means; 0 means as little as possible. Raises InvalidOption.

    A small number without a unit is refused: a user who writes `10` means 10 GiB, and ten bytes hold nothing.
    """
    size = parse_size(text)
    if 0 < size < _SMALL and text.strip().isdigit():
        raise InvalidOption(f"{text!r} without a unit is {text.strip()} bytes; did you mean {text.strip()}G?")
    return size


def parse_min_free(text: str) -> MinFree:
    """Return the space to keep free on the disk, a size or a share like `5%`. Raises InvalidOption."""
    if not text.strip().endswith("%"):
        return MinFree(size=parse_cache_size(text))
    digits = text.strip().removesuffix("%")
    if not (digits.isascii() and digits.isdigit() and int(digits[:4]) < 100):
        raise InvalidOption(f"{text!r} is not a share of a disk; write 0% to 99%, or a size like 20G")
    return MinFree(share=int(digits) / 100)


def parse_age(text: str) -> float:
    """Return the seconds that an age like `30d` means. Raises InvalidOption, also for no unit: `30` could be days."""
    if text.strip().isdigit():
        raise InvalidOption(f"{text!r} has no unit; did you mean {text.strip()}d, {text.strip()}h?")
    age_s = parse_duration(text)
    if age_s < _LEAST_AGE_S:
        raise InvalidOption(f"{text!r} is too short: what was just fetched would go; write 1m or more")
    return age_s


def parse_duration(text: str) -> float:
    """Return the seconds that `30s`, `5m`, `1h`, `250ms` or `30` mean. Raises InvalidOption."""
    found = _DURATION_RE.fullmatch(text.strip())
    if found is None:
        raise InvalidOption(f"{text!r} is not a duration; write 30s, 5m, 1h or a number of seconds")
    return float(found[1]) * _SECONDS[found[2]]


def parse_share(text: str) -> float:
    """Return the share that `33%` or `33` means, from 0.01 to 1. Raises InvalidOption."""
    digits = text.strip().removesuffix("%")
    if not (digits.isascii() and digits.isdigit() and 1 <= int(digits[:4]) <= 100):
        raise InvalidOption(f"{text!r} is not a share; write 1% to 100%")
    return int(digits) / 100
