"""The last requests to registries, for `.regfs/requests`: shows users how a pull works.

    TIME                      METHOD  STATUS       BYTES      MS  WHY        HOST            PATH  TYPE
    2026-11-29T21:40:10.123Z  GET        200         351       4  manifest   127.0.0.1:5000  /v2/library/debian/…

Headers and queries are not kept: they contain tokens, passwords and signatures. Thread rule: one lock; any thread. A
Sent is written by the thread that reads its answer, and may be read by any.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field

KEPT = 200
_LONGEST = 400
_HEAD = "TIME                      METHOD  STATUS         BYTES      MS  WHY        HOST PATH TYPE\n"


@dataclass(slots=True)
class Sent:
    """One request: when it was sent (seconds since 1970), its host, its reason, and its answer so far."""

    method: str
    host: str
    path: str
    why: str
    at_s: float = field(default_factory=time.time)
    status: str = "-"
    """The status of the answer; the error where there was none."""
    content_type: str = ""
    received: int = 0
    ms: int = 0
    _began: float = field(default_factory=time.monotonic)

    def answered(self, status: int, content_type: str) -> None:
        """Note that the answer has begun."""
        self.status, self.content_type = str(status), content_type
        self._measure()

    def failed(self, error: BaseException) -> None:
        """Note that there was no answer."""
        self.status = type(error).__name__
        self._measure()

    def moved(self, size: int) -> None:
        """Note *size* further bytes of the body."""
        self.received += size
        self._measure()

    def line(self) -> str:
        """Return it as one line."""
        seconds, milliseconds = divmod(int(self.at_s * 1000), 1000)
        moment = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03d}Z"
        place = f"{self.host} {self.path} {self.content_type}".rstrip()
        return (
            f"{moment}  {self.method:<6}  {self.status:<6}  {self.received:>12}  {self.ms:>6}  {self.why:<9}  {place}\n"
        )

    def _measure(self) -> None:
        self.ms = int((time.monotonic() - self._began) * 1000)


class RequestLog:
    """Keeps the last requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: deque[Sent] = deque(maxlen=KEPT)

    def begin(self, *, method: str, host: str, path: str, why: str) -> Sent:
        """Return the record of a request that is sent now; *path* has no query."""
        sent = Sent(method, _printable(host), _printable(path), why or "-")
        with self._lock:
            self._sent.append(sent)
        return sent

    def text(self) -> str:
        """Return one line for each request, the oldest first, below a line of titles."""
        with self._lock:
            sent = list(self._sent)
        return _HEAD + "".join(each.line() for each in sent)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() and c != " " else "?" for c in text[:_LONGEST])
