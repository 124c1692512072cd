"""One HTTP request to one URL: the only module that knows requests and urllib3.

They serve as a connection pool and nothing else. Their other features are unsafe with registries and are switched off:
redirects (credentials and custom headers go along), retries (Retry-After is honoured for hours), netrc (replaces a
token), cookies, transparent decompression (breaks digests), certifi instead of the system's trust store. Importing this
module costs 90 ms, so client_parts.py imports it at the first request.

Thread rule: a Transport is shared by all threads.
"""

from __future__ import annotations

import functools
import http.client
import logging
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import get_environ_proxies
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.response import HTTPResponse

from regfs.errors import (
    AccessDenied,
    ProtocolViolation,
    RegfsError,
    RegistryTimeout,
    RegistryUnavailable,
)
from regfs.process.waiting import deadline
from regfs.registry.http.addresses import is_loopback
from regfs.registry.http.connecting import Connector
from regfs.registry.http.host_slots import HostSlots
from regfs.registry.http.messages import Answer, Headers, Request, content_length
from regfs.registry.http.redaction import reason_of
from regfs.registry.http.sockets import (
    SLICE_S,
    NotTls,
    Pace,
    Slow,
    StaleConnection,
    TlsFailed,
    TransferCut,
    beginning_due,
)
from regfs.registry.http.tls import tls_context, tls_failure
from regfs.registry.http.trust import Authorities, Tls
from regfs.telemetry.stats import Stats

log = logging.getLogger(__name__)

_CHUNK = 512 * 1024

_sent = threading.local()
_Release = Callable[[], None]


class Transport:
    """Sends requests over pooled connections, each host's within its slots, all under the thread's deadline."""

    def __init__(
        self, stats: Stats, *, user_agent: str, authorities: Authorities, pace: Pace, slots: HostSlots
    ) -> None:
        self._stats = stats
        self._authorities = authorities
        self._user_agent = user_agent
        self._pace = pace
        self._slots = slots
        self._connector = Connector(pace)
        self._lock = threading.Lock()
        self._adapters: dict[Tls, _Adapter] = {}

    def send(self, request: Request, *, is_again: bool = False) -> Answer:
        """Return the answer to *request*, its body unread; blocks on the network.

        *is_again*: an earlier attempt had no usable answer. Then the answer may take as long as the user allows.

        Raises:
            RegistryUnavailable: no connection, or it broke. NotTls where the port does not speak TLS.
            RegistryTimeout: the registry or the caller's deadline.
            ProtocolViolation: an answer that is not HTTP, an untrusted certificate.
            AccessDenied: the proxy wants credentials. Also WouldBlock, Interrupted.
        """
        slot = self._slots.take(str(request.origin), bulk=request.bulk)
        try:
            begins_within_s = self._begins_within_s(request, is_again=is_again)
            prepared = self._prepared(request)
            for is_kept_connection in (True, False):
                try:
                    with self._converted_errors(request), beginning_due(begins_within_s):
                        response = self._adapter(request.tls).send(
                            prepared, stream=True, timeout=(self._pace.connect_s, SLICE_S), proxies=_proxies(request)
                        )
                    break
                except StaleConnection:
                    if not is_kept_connection:
                        raise
            return self._answer(request, response.raw, slot.give_back, begins_within_s)
        except BaseException:  # an interrupted wait as well, or the host would have a slot less for ever
            slot.give_back()
            raise

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            adapters, self._adapters = list(self._adapters.values()), {}
        for adapter in adapters:
            adapter.close()

    def _begins_within_s(self, request: Request, *, is_again: bool) -> float:
        pace = self._pace
        if request.is_dispensable:
            return pace.dispensable_s
        return pace.longest_s if request.bulk or is_again else min(pace.answer_s, pace.longest_s)

    def _prepared(self, request: Request) -> requests.PreparedRequest:
        """Return *request* for the requests library, which learns nothing of the target: it would rewrite it.

        requests and urllib3 change a path and its query (escapes, slashes, brackets), so that the signature of a signed
        URL does not match. So they get the root of the host, and the connection sends the target: see _pool_classes.
        """
        prepared = requests.PreparedRequest()
        prepared.method, prepared.url, prepared.body = request.method, request.place, request.body
        prepared.headers = CaseInsensitiveDict(
            {
                "Host": str(request.origin),
                "User-Agent": self._user_agent,
                "Accept-Encoding": "identity",
                **request.headers,
            }
        )
        if request.body is not None:
            prepared.headers["Content-Length"] = str(len(request.body))
        prepared.prepare_cookies({})
        return prepared

    @contextmanager
    def _converted_errors(self, request: Request) -> Iterator[None]:
        """Count one attempt at *request* in the block, and raise what goes wrong in it as a RegfsError."""
        self._stats.count("registry.requests")
        log.debug("%s %s", request.method, request.url.partition("?")[0])
        _sent.reused, _sent.target = False, request.target
        try:
            yield
        except RegistryTimeout as error:
            self._stats.count("registry.errors")
            self._distrust_kept()
            raise type(error)(f"{request.origin}: {error}") from error
        except (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            deadline.current().remaining_s(0.0)  # where the caller's own deadline was the reason, that is the error
            converted = _converted(error, request, reused=_sent.reused)
            if isinstance(converted, StaleConnection | Slow):
                self._distrust_kept()
            if not isinstance(converted, NotTls):
                self._stats.count("registry.errors")
            if isinstance(converted, TlsFailed):
                self._forget(request.tls)
            raise converted from _cause(error)
        except ValueError as error:
            raise ProtocolViolation(f"{request.origin}: not a URL that can be asked") from error

    def _answer(self, request: Request, raw: HTTPResponse, give_back: _Release, begins_within_s: float) -> Answer:
        def close() -> None:
            raw.close()  # a connection with unread bytes cannot be used again
            raw.release_conn()
            give_back()

        headers = Headers(list(raw.headers.iteritems()))
        try:
            length = content_length(headers, request)
        except ProtocolViolation:
            close()
            raise
        chunks = self._chunks(request, raw, close, begins_within_s)
        if request.method == "HEAD":
            # There is no body; reading its end gives the connection back.
            for _chunk in chunks:
                pass
        return Answer(request, raw.status, headers=headers, content_length=length, chunks=chunks, close=close)

    def _chunks(self, request: Request, raw: HTTPResponse, close: _Release, begins_within_s: float) -> Iterator[bytes]:
        finished = False
        try:
            with beginning_due(begins_within_s):
                chunk = raw.read1(_CHUNK, decode_content=False)
            while chunk:
                self._stats.count("registry.bytes", len(chunk))
                yield chunk
                chunk = raw.read1(_CHUNK, decode_content=False)
            finished = True
        except RegistryTimeout as error:
            raise type(error)(f"{request.origin}: {error}") from error
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as error:
            self._stats.count("registry.errors")
            reason = reason_of(_root(error), request)
            raise TransferCut(f"{request.origin}: the transfer broke off: {reason}") from _cause(error)
        finally:
            if not finished:
                raw.close()
            close()

    def _distrust_kept(self) -> None:
        """Note that the last request had no answer: if its connection was a kept one, the others may be dead too."""
        if _sent.reused:
            self._connector.kept.distrust(_sent.host)

    def _forget(self, tls: Tls) -> None:
        """Read the files of *tls* again for the next request: certificates may be renewed while regfs runs."""
        with self._lock:
            self._adapters.pop(tls, None)

    def _adapter(self, tls: Tls) -> _Adapter:
        with self._lock:
            adapter = self._adapters.get(tls)
            if adapter is None:
                adapter = self._adapters[tls] = _Adapter(tls, self._authorities, self._connector, self._pace)
            return adapter


def _proxies(request: Request) -> dict[str, str]:
    """Return the proxies that the environment names for *request*; loopback is asked directly."""
    return {} if is_loopback(request.origin.host) else get_environ_proxies(request.place)


def _chain(error: BaseException) -> list[BaseException]:
    """Return *error* and the exceptions that it wraps, the outermost first."""
    chain: list[BaseException] = []
    while error not in chain:
        chain.append(error)
        inner = [getattr(error, "reason", None), *error.args, error.__cause__, error.__context__]
        error = next((one for one in inner if isinstance(one, BaseException)), error)
    return chain


def _root(error: BaseException) -> BaseException:
    """Return the innermost exception that says what happened: the texts of its wrappers have the URL with its query."""
    telling = [one for one in _chain(error) if isinstance(one, OSError | http.client.HTTPException)]
    own = [one for one in telling if not isinstance(one, requests.RequestException)]
    return own[-1] if own else _chain(error)[-1]


def _cause(error: BaseException) -> BaseException | None:
    """Return the root of *error*, None if its text quotes the server, which may have repeated the request."""
    root = _root(error)
    return root if isinstance(root, OSError) else None


def _converted(error: Exception, request: Request, *, reused: bool) -> RegfsError:
    """Return regfs's error for what requests, urllib3, http.client, ssl or the socket raised."""
    root, origin = _root(error), request.origin
    if isinstance(root, ssl.SSLError):
        return tls_failure(root, request)
    if "Tunnel connection failed: 407" in str(root):
        return AccessDenied(f"{origin}: the proxy wants credentials; name them in https_proxy")
    if isinstance(root, TimeoutError):
        return Slow(f"{origin}: no answer in time")
    if isinstance(root, http.client.RemoteDisconnected | ConnectionError):
        if reused:
            return StaleConnection(f"{origin}: a kept connection was closed")
        return RegistryUnavailable(f"{origin}: the connection was closed before the answer: {reason_of(root, request)}")
    if isinstance(root, http.client.HTTPException | urllib3.exceptions.InvalidHeader):
        return ProtocolViolation(f"{origin}: the answer is not HTTP: {reason_of(root, request)}")
    if isinstance(root, urllib3.exceptions.LocationValueError | requests.exceptions.InvalidURL):
        return ProtocolViolation(f"{origin}: not a URL that can be asked")
    return RegistryUnavailable(f"{origin}: {reason_of(root, request)}")


class _Adapter(HTTPAdapter):
    """requests' pool with watched sockets, for one Tls: hosts that are trusted differently share no pool."""

    def __init__(self, tls: Tls, authorities: Authorities, connector: Connector, pace: Pace) -> None:
        # Made when a connection needs it: loading the system's authorities takes 20 ms.
        self._tls_context = functools.cache(lambda: tls_context(tls, authorities, pace))
        self._pool_classes = _pool_classes(connector)
        super().__init__(pool_connections=32, pool_maxsize=16, max_retries=0)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, **pool_kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pool_classes

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        pool = super().proxy_manager_for(proxy, **proxy_kwargs)
        pool.pool_classes_by_scheme = self._pool_classes
        return pool

    def build_connection_pool_key_attributes(  # type: ignore[override]
        self,
        request: requests.PreparedRequest,
        verify: Any,  # noqa: ARG002 - the context decides
        cert: Any = None,  # noqa: ARG002
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        parts = urlsplit(str(request.url))
        host = {"scheme": parts.scheme, "host": parts.hostname, "port": parts.port}
        return host, {"ssl_context": self._tls_context()} if parts.scheme == "https" else {}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Leave it to the context; requests would add certifi's authorities."""


def _pool_classes(connector: Connector) -> dict[str, type[HTTPConnectionPool]]:
    """Return urllib3's pools, whose connections are watched and know whether they were used before."""

    class Watched(HTTPConnection):
        _answered_s: float | None = None

        @property
        def is_connected(self) -> bool:
            return super().is_connected and connector.kept.is_trusted(self._dns_host, self._answered_s)

        def _new_conn(self) -> Any:
            self._answered_s, _sent.reused = None, False
            return connector.connect(self._dns_host, self.port or self.default_port)

        def putrequest(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
            """Begin the request. *url* is the host's root: `/`, or with scheme and host for a proxy."""
            _sent.reused, _sent.host = self._answered_s is not None, self._dns_host
            super().putrequest(method, url.removesuffix("/") + _sent.target, *args, **kwargs)

        def _encode_request(self, request: str) -> bytes:
            return request.encode("latin-1")  # as a Location was decoded

        def getresponse(self) -> HTTPResponse:  # type: ignore[override]
            response = super().getresponse()
            self._answered_s = connector.kept.now_s()
            return response

    class WatchedTls(Watched, HTTPSConnection):
        default_port = HTTPSConnection.default_port  # type: ignore[misc]

        def connect(self) -> None:
            super().connect()
            # Otherwise urllib3 warns on stderr; a user of --insecure-registry or skip_verify knows it already.
            self.is_verified = True

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Watched

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = WatchedTls

    return {"http": PlainPool, "https": TlsPool}
