"""Parses dates in configs and tables of contents (RFC 3339, as builders write it), and times in names.

    2026-11-01T00:00:00.5Z           a date, to nanoseconds since 1970
    debian:12@2026-11-01T00:00Z      a time in a name, to seconds since 1970

Source: image-spec, config.md, "created"; RFC 3339, section 5.6. Used by images/image.py, layers/formats/ and
model/names.py. Pure; any thread.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_DATE = re.compile(
    r"(\d{4,6})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:[.,](\d+))?\s*(?:([Zz])|([+-])(\d\d):?(\d\d))?", re.ASCII
)
# As in file names: the colons may be left out.
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)(?:T(\d\d):?(\d\d)(?::?(\d\d))?Z)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The latest time that 63 bits of nanoseconds hold, in the year 2262; file systems and databases end there or later.
LATEST_NS = (1 << 63) - 1
_S = 1_000_000_000


def date_ns(text: str) -> int:
    """Return the date *text* in nanoseconds since 1970; 0 if it is not a date, or before 1970.

    Go's zero time, the year 1, is what many builders write for "not known". A date after LATEST_NS becomes LATEST_NS. A
    date without a zone is in UTC.
    """
    return min(max(exact_date_ns(text) or 0, 0), LATEST_NS)


def exact_date_ns(text: str) -> int | None:
    """Return the date *text* in nanoseconds since 1970, negative before; None if it is not a date.

    A year of five digits or more becomes LATEST_NS. A date without a zone is in UTC.
    """
    match = _DATE.fullmatch(text.strip())
    if match is None:
        return None
    year = int(match[1])
    if year >= 10_000:
        return LATEST_NS
    try:
        day = datetime(year, int(match[2]), int(match[3]), int(match[4]), int(match[5]), tzinfo=UTC)
        zone = timedelta(hours=int(match[10] or 0), minutes=int(match[11] or 0))
        since = day - _EPOCH - (-zone if match[9] == "-" else zone)
    except (ValueError, OverflowError):
        return None
    second = int(match[6])
    if second > 60:
        return None
    seconds = since.days * 86_400 + since.seconds + second  # a leap second counts as the next second
    fraction = int((match[7] or "")[:9].ljust(9, "0"))
    return seconds * _S + fraction


def moment(text: str) -> float | None:
    """Return the time *text* in seconds since 1970: `2026-11-01`, `2026-11-01T00:00Z`, `2026-11-01T000000Z`.

    None if it is not a time.
    """
    match = _MOMENT.fullmatch(text)
    if match is None:
        return None
    found = exact_date_ns(f"{match[1]}T{match[2] or '00'}:{match[3] or '00'}:{match[4] or '00'}Z")
    return None if found is None else found / _S


def moment_text(seconds: float) -> str:
    """Return a time, given in seconds since 1970, as text that moment() reads: `2026-11-01T00:00:00Z`."""
    return (_EPOCH + timedelta(seconds=int(seconds))).isoformat().replace("+00:00", "Z")
