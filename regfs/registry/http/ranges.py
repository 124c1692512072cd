"""Range and Content-Range, and which bytes an answer to a range request really has.

A range is half-open here, `[start, stop)`; HTTP's inclusive form exists in this module only. Source: RFC 9110,
section 14. Deviations of real servers: multipart answers to single ranges (CloudFront), 200 with a
Content-Range, totals that are not the blob's size. Used by blobs.py. Pure; any thread.
"""

from __future__ import annotations

import re

from regfs.errors import ProtocolViolation
from regfs.registry.http.messages import Answer

_CONTENT_RANGE = re.compile(r"bytes[ \t]+([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)", re.ASCII | re.IGNORECASE)


class WrongBody(ProtocolViolation):
    """A body that cannot be the bytes that were requested; a second answer may be right."""


def range_header(start: int, stop: int | None) -> str:
    """Return the Range header for `[start, stop)`, or from *start* to the end."""
    return f"bytes={start}-" if stop is None else f"bytes={start}-{stop - 1}"


def body_range(answer: Answer, *, start: int, stop: int, size: int, what: str) -> tuple[int, int]:
    """Return which bytes `[first, last)` of the blob the body of *answer*, 200 or 206, has.

    `[start, stop)` was requested, of a blob of *size* bytes. A server that ignores ranges sends the whole blob; fewer
    bytes than requested are legal. Raises WrongBody if the answer contradicts itself or the request.
    """
    content_range = answer.headers.all("Content-Range")
    if answer.status == 200 and not content_range:
        return _whole(answer, size, what=what)
    if answer.content_type == "multipart/byteranges":
        raise _wrong(answer, what, "several parts where one range was asked for")
    match = _CONTENT_RANGE.fullmatch(content_range[0]) if len(content_range) == 1 else None
    if match is None:
        raise _wrong(answer, what, f"a range it does not name: Content-Range {content_range[:2]!r:.100}")
    first, last, total = int(match.group(1)), int(match.group(2)) + 1, match.group(3)
    if total != "*" and int(total) != size:
        raise _wrong(answer, what, f"a part of {total} bytes, the blob has {size}")
    if first != start or not first < last <= stop:
        raise _wrong(answer, what, f"bytes {first} to {last} where {start} to {stop} were asked for")
    if answer.content_length is not None and answer.content_length != last - first:
        raise _wrong(answer, what, f"{answer.content_length} bytes and calls them {first} to {last}")
    return first, last


def is_encoded(answer: Answer) -> bool:
    """Tell whether *answer* claims that its body is compressed for the transport, though identity was asked for."""
    return (answer.headers.get("Content-Encoding") or "identity").lower() != "identity"


def _whole(answer: Answer, size: int, *, what: str) -> tuple[int, int]:
    if answer.content_length not in (None, size) and not is_encoded(answer):
        raise _wrong(answer, what, f"{answer.content_length} bytes, the blob has {size}")
    return 0, size


def _wrong(answer: Answer, what: str, sent: str) -> WrongBody:
    return WrongBody(f"{what}: {answer.request.origin} sends {sent}")
