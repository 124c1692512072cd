"""Sends a request until its answer can be used: retries, waits for throttling hosts, follows redirects.

Used by endpoint_calls.py, auth/ and docker_hub.py. Below it is transport.py, which is made for the first request.
Thread rule: shared by all threads.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from cachetools import LRUCache

from regfs.errors import (
    Interrupted,
    ProtocolViolation,
    RateLimited,
    RegfsError,
    RegistryTimeout,
    RegistryUnavailable,
    WouldBlock,
)
from regfs.process.waiting import deadline
from regfs.registry.http.error_answers import is_throttling, refusal
from regfs.registry.http.host_health import HostHealth
from regfs.registry.http.messages import Answer, Request
from regfs.registry.http.redaction import without_secrets
from regfs.registry.http.redirects import MAX_HOPS, REDIRECTS, redirected
from regfs.registry.http.retry_policy import DOWN, TRANSIENT, RetryPolicy, retry_after_s
from regfs.registry.http.sockets import ConnectFailed, ConnectTimeout, NotTls, Slow, TransferCut
from regfs.telemetry.request_log import RequestLog
from regfs.telemetry.stats import Stats

if TYPE_CHECKING:
    from regfs.registry.http.transport import Transport

log = logging.getLogger(__name__)

_WARNINGS = 256
_WARNING_LIMIT = 1000


class _Failure(NamedTuple):
    """A failed attempt: what to raise, how long to wait before the next one, whether the whole host seems down."""

    error: RegfsError
    wait_s: float
    is_down: bool


class RetryingSender:
    """Sends requests, with retries and redirects."""

    def __init__(
        self,
        stats: Stats,
        *,
        make_transport: Callable[[], Transport],
        retry: RetryPolicy,
        clock: Callable[[], float],
        request_log: RequestLog,
    ) -> None:
        self._stats = stats
        self._log = request_log
        self._make_transport = make_transport
        self._retry = retry
        self._health = HostHealth(retry, clock)
        self._lock = threading.Lock()
        self._transport: Transport | None = None
        self._warnings: LRUCache[tuple[str, str], bool] = LRUCache(_WARNINGS)

    def send(self, request: Request, *, what: str) -> Answer:
        """Return the final answer to *request*, which may come from another host; blocks on the network.

        A POST is not redirected: its body is a secret. *what* names the object in messages. Raises
        RegistryUnavailable, RegistryTimeout, RateLimited, ProtocolViolation, TooLarge, AccessDenied (a proxy),
        WouldBlock, Interrupted. An answer may have any other status, which the caller judges.
        """
        first = request.origin
        for _hop in range(MAX_HOPS + 1):
            answer = self._send_to_one_url(request, what=what)
            if answer.status not in REDIRECTS or request.method == "POST":
                return answer
            answer.discard()
            self._stats.count("registry.redirects")
            location = answer.headers.get("Location")
            target = redirected(request, location, first=first)
            if request.stays and target.origin != first:
                return answer
            request = target
        raise ProtocolViolation(f"{what}: {first} redirects more than {MAX_HOPS} times")

    def _send_to_one_url(self, request: Request, *, what: str) -> Answer:
        """Return the answer of the one URL of *request*, after retries. Raises what send() raises."""
        host = str(request.origin)
        attempt = 0
        while True:
            self._health.admit(host)
            attempt += 1
            try:
                answer = self._sent(request, is_again=attempt > 1)
                if not self._is_transient(answer):
                    if request.body_limit is not None and answer.status == 200:
                        answer.read(request.body_limit, what=what)
                    self._answered(host, answer)
                    return answer
                failure = self._transient(host, answer, attempt, what=what)
            except (Interrupted, WouldBlock):
                raise
            except (RegistryUnavailable, RegistryTimeout) as error:
                failure = _Failure(error, self._retry.wait_s(attempt), is_down=_is_down(error, request))
            self._again(host, failure, attempt, request)

    def probe(self, request: Request) -> Answer:
        """Return the answer to *request*, sent once, without redirects, to learn whether the host speaks its scheme.

        Raises what Transport.send raises; after NotTls and ConnectFailed another scheme may work.
        """
        place = f"{request.origin.scheme}://{request.origin}"
        self._health.admit(place)
        try:
            return self._sent(request)
        except NotTls:
            raise
        except (ConnectFailed, Slow) as error:
            self._health.failed(place, error)
            raise

    def forget_failures(self) -> None:
        """Allow requests to every host that was down a moment ago."""
        self._health.forget_failures()

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def _sent(self, request: Request, *, is_again: bool = False) -> Answer:
        """Send *request* once, and note it for `.regfs/requests`."""
        carrier = self._carrier()
        path = without_secrets(request.target.partition("?")[0], request)
        sent = self._log.begin(method=request.method, host=str(request.origin), path=path, why=request.why)
        try:
            answer = carrier.send(request, is_again=is_again)
        except RegfsError as error:
            sent.failed(error)
            raise
        sent.answered(answer.status, without_secrets(answer.content_type, request))
        answer.watch(sent.moved)
        return answer

    def _carrier(self) -> Transport:
        deadline.current().remaining_s(0.0)
        with self._lock:
            if self._transport is None:
                self._transport = self._make_transport()
            return self._transport

    def _is_transient(self, answer: Answer) -> bool:
        """Tell whether the same request may succeed a little later."""
        if answer.request.method == "HEAD" and answer.status == 500:
            return False  # this registry's HEAD is broken; the GET that follows tells more than another HEAD
        return answer.status in TRANSIENT or (answer.status == 400 and is_throttling(answer))

    def _transient(self, host: str, answer: Answer, attempt: int, *, what: str) -> _Failure:
        """Return the failure that *answer*, a transient one, means if no attempt succeeds."""
        asked_s = retry_after_s(answer.headers.get("Retry-After"), date=answer.headers.get("Date"))
        wait_s = self._retry.wait_s(attempt) if asked_s is None else asked_s
        error = refusal(answer, what=what)
        if isinstance(error, RateLimited):
            self._rate(host, answer)
            self._health.throttled(host, wait_s)
        return _Failure(error, wait_s, is_down=answer.status in DOWN)

    def _again(self, host: str, failure: _Failure, attempt: int, request: Request) -> None:
        """Wait before the next attempt. Raises the failure's error if there is none left, or no time for it."""
        error = failure.error
        attempts = (self._retry.beside_others() if request.is_dispensable else self._retry).attempts
        may_wait_s = deadline.current().remaining_s(self._retry.throttle_s)
        hopeless = isinstance(error, ConnectFailed) or (
            isinstance(error, Slow) and (request.is_dispensable or attempt > 1 or _had_all_its_time(error, request))
        )
        is_last = hopeless or attempt >= attempts or failure.wait_s > self._retry.throttle_s
        if is_last and failure.is_down:
            self._health.failed(host, error)
        if is_last or failure.wait_s > may_wait_s:
            raise error
        self._stats.count("registry.retries")
        log.info("%s; asking again in %.1f s", error, failure.wait_s)
        deadline.current().sleep(failure.wait_s)

    def _answered(self, host: str, answer: Answer) -> None:
        self._health.answered(host)
        self._rate(host, answer)
        for warning in answer.headers.all("Warning")[:4]:
            self._warn(host, warning)

    def _rate(self, host: str, answer: Answer) -> None:
        """Note how many requests the registry says are left (Docker Hub: `76;w=21600`)."""
        remaining = (answer.headers.get("ratelimit-remaining") or "").partition(";")[0].strip()
        if remaining.isascii() and remaining.isdigit():
            self._stats.gauge(f"registry.ratelimit_remaining.{host}", float(remaining[:12]))

    def _warn(self, host: str, warning: str) -> None:
        """Log a registry's warning to its users, each text once. Source: distribution-spec, "Warnings"."""
        code, _space, text = warning[:_WARNING_LIMIT].partition(" - ")
        if code.strip() != "299":
            return
        with self._lock:
            is_new = (host, text) not in self._warnings
            self._warnings[host, text] = True
        if is_new:
            log.warning("%s says: %r", host, text)


def _is_down(error: RegfsError, request: Request) -> bool:
    """Tell whether *error* is about the host, not only about the one object that was asked for.

    A slow answer may be a long list. A slow mirror counts as down, because another endpoint can be asked.
    """
    if isinstance(error, TransferCut):
        return False
    return not isinstance(error, Slow) or isinstance(error, ConnectTimeout) or request.is_dispensable


def _had_all_its_time(error: Slow, request: Request) -> bool:
    """Tell whether the first attempt already took as long as the user allows."""
    return request.bulk and not isinstance(error, ConnectTimeout)
