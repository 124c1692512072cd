"""Secrets stay where they belong: none in logs, messages, representations or statistics, none at another host."""

from __future__ import annotations

import logging
import traceback

import pytest

from regfs.errors import RegfsError
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.registry.http.messages import Request
from tests.support.client_rig import IMPATIENT, RETRY, Rig, basic, repository_of, saw_no_secret
from tests.support.fault_server import Action, Connection, Response, changed, close, raw, reply, reset, silence
from tests.support.memory_registry import MemoryRegistry

USER = ("user", "s3cret-word")
SIGNATURE = "s3cret-signature"
HEADER = "s3cret-header"
SECRETS = (USER[1], basic(*USER).split()[1], SIGNATURE, HEADER, "token-1", "token-2", "token-3")


def echo(connection: Connection) -> bool:
    """Refuse a request with all that was in it."""
    seen = connection.seen
    said = f"{seen.method} {seen.path}: {dict(seen.headers)} {seen.body!r}"
    return connection.answer(Response(403, (), said.encode()))


def echo_in_the_head(line: str) -> Action:
    """Answer with a head that has what was secret in the request where *line* has SAID."""

    def act(connection: Connection) -> bool:
        seen = connection.seen
        said = f"{seen.headers.get('authorization', '')} {seen.headers.get('x-key', '')} {seen.path}"
        connection.send(line.replace("SAID", said).encode() + b"\r\n\r\n")
        return False

    return act


FAULTS = {
    "echo": echo,
    "echo in the status": echo_in_the_head("HTTP/1.1 403 SAID"),
    "echo for a status": echo_in_the_head("HTTP/9 SAID"),
    "echo in the length": echo_in_the_head("HTTP/1.1 200 OK\r\nContent-Length: SAID"),
    "echo in the type": echo_in_the_head("HTTP/1.1 200 OK\r\nContent-Type: SAID\r\nDocker-Content-Digest: SAID"),
    "echo in the link": echo_in_the_head("HTTP/1.1 200 OK\r\nLink: <http://SAID>; rel=next"),
    "echo in the encoding": echo_in_the_head("HTTP/1.1 200 OK\r\nContent-Encoding: SAID"),
    "echo in the wait": echo_in_the_head("HTTP/1.1 429 Wait\r\nRetry-After: SAID"),
    "echo in the challenge": echo_in_the_head('HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer realm="SAID",error="SAID"'),
    "right": None,
    "404": reply(404),
    "403": reply(403),
    "500": reply(500),
    "429": reply(429, headers={"Retry-After": "999"}),
    "reset": reset(),
    "close": close,
    "silence": silence,
    "garbage": raw(b"garbage\r\n\r\n"),
    "bad length": raw(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
    "cut": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nxxx"),
    "loop": reply(307, headers={"Location": f"?X-Signature={SIGNATURE}"}),
    "odd header": raw(b"HTTP/1.1 200 OK\r\nOdd\r\nContent-Length: 0\r\n\r\n"),
}


@pytest.mark.parametrize("action", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("where", ["registry", "storage", "tokens"])
def test_no_secret_is_logged_or_sent_to_another_host(
    rig: Rig, caplog: pytest.LogCaptureFixture, where: str, action: Action | None
) -> None:
    caplog.set_level(logging.DEBUG)
    application = MemoryRegistry(users=dict([USER]), tokens=True)
    application.add_image("demo/app", "v1")
    blob = application.add_blob("demo/app", b"content")
    server, storage = rig.server(application), rig.server(host="127.0.0.2")
    go = Response(307, (("Location", f"{storage.url}/blob?X-Signature={SIGNATURE}"),))
    pattern = {"registry": "/tags/|/manifests/", "storage": ".", "tokens": "^/token"}[where]
    if action is not None:
        (storage if where == "storage" else server).on("*", pattern, action)
    storage.on("GET", ".", reply(200, b"content"))
    server.on("GET", "/blobs/", changed(lambda right: go if right.status == 200 else right))
    options, retry = f'[header]\nX-Key = "{HEADER}"', RETRY._replace(attempts=2)
    client = rig.client(server, login=USER, options=options, pace=IMPATIENT, retry=retry)
    repository = repository_of(server)
    written = []
    for call in (
        lambda: client.listing.tags(repository),
        lambda: client.manifests.resolve(repository, "v1"),
        lambda: client.manifests.fetch(repository, Digest.of(b"other")),
        lambda: list(client.blobs.stream(repository, blob)),
        lambda: client.blobs.range(repository, Descriptor("x", blob.digest, 7), 1, 3),
    ):
        try:
            written.append(repr(call()))
        except RegfsError:
            written.append(traceback.format_exc())
    written += [caplog.text, repr(rig.stats.snapshot())]
    assert [secret for secret in SECRETS if secret in "\n".join(written)] == []
    assert saw_no_secret(storage, *(secret for secret in SECRETS if secret != SIGNATURE))


def test_a_request_shows_neither_headers_nor_body() -> None:
    request = Request("POST", "https://auth.example/token", headers={"Authorization": "s3cret"}, body=b"s3cret")
    assert "s3cret" not in repr(request)
