"""`.regfs/requests`: what was asked of registries, and why; no secret is in it."""

from __future__ import annotations

from regfs.telemetry.request_log import KEPT, RequestLog
from tests.support.fault_server import FaultServer, changed, reply, reset
from tests.support.images import file, image_of, layer
from tests.support.memory_registry import MemoryRegistry
from tests.support.served import Served
from tests.support.shown import Shown


def lines(shown: Shown) -> list[list[str]]:
    """Return the columns of all lines but the first, which has the titles."""
    return [line.split() for line in shown.read(".regfs/requests").decode().splitlines()[1:]]


def columns(shown: Shown) -> list[tuple[str, ...]]:
    """Return method, status, why and path of each line."""
    return [(method, status, why, path) for _, method, status, _, _, why, _, path, *_ in lines(shown)]


def test_the_way_to_a_file_is_told_request_by_request(served: Served) -> None:
    served.registry.tokens, served.registry.public, served.registry.users = True, True, {}
    image = served.push("app", "1", image_of(layer(file("a", b"1"))))
    shown = served.show()
    assert shown.read("app/1/rootfs/a") == b"1"
    told = columns(shown)
    blobs = [f"/v2/app/blobs/{digest}" for digest in image.blobs()]
    assert told[:2] == [("GET", "NotTls", "api", "/v2/"), ("GET", "401", "tags", "/v2/app/tags/list")]
    assert ("GET", "200", "token", "/token") in told
    assert ("HEAD", "200", "resolve", "/v2/app/manifests/1") in told
    assert ("GET", "200", "manifest", f"/v2/app/manifests/{image.digest}") in told
    assert {path for _, _, why, path in told if why == "blob"} == set(blobs)
    assert [seen.path.partition("?")[0] for seen in served.server.seen] == [path for _, _, _, path in told[1:]]
    (received, kind) = next((line[3], line[8]) for line in lines(shown) if line[5] == "manifest")
    assert received == str(len(image.manifest))
    assert kind == "application/vnd.oci.image.manifest.v1+json"


def test_neither_tokens_nor_signatures_are_told(served: Served) -> None:
    served.registry.tokens, served.registry.public, served.registry.users = True, True, {}
    image = served.push("app", "1", image_of(layer(file("a", b"1"))))
    blob = image.layers[0]
    storage = FaultServer(MemoryRegistry())
    storage.on("GET", "/stored", reply(200, blob.blob))
    location = {"Location": f"http://{storage.address}/stored?signature=s3cret-signature"}
    served.server.on("GET", f"blobs/{blob.digest}", reply(307, headers=location))
    served.server.on("GET", "tags/list", changed(lambda said: said.with_header("Content-Type", "token-1/token-1")))
    shown = served.show()
    shown.names("app")
    assert shown.read("app/1/rootfs/a") == b"1"
    storage.stop()
    text = shown.read(".regfs/requests").decode()
    assert ("GET", "200", "blob", "/stored") in columns(shown)
    assert "s3cret" not in text
    assert "/v2/app/tags/list ***/***\n" in text  # what came with the token in its type


def test_a_request_without_an_answer_tells_the_failure(served: Served) -> None:
    served.push("app", "1", image_of(layer(file("a", b"1"))))
    served.server.on("GET", "blobs", reset(), times=2)
    shown = served.show()
    assert shown.read("app/1/rootfs/a") == b"1"
    failed, again = [status for _, status, why, _ in columns(shown) if why == "blob"][:2]
    assert failed == "RegistryUnavailable"
    assert again == "200"


def test_the_last_requests_are_kept_one_a_line() -> None:
    log = RequestLog()
    for number in range(KEPT + 5):
        log.begin(method="GET", host="h", path=f"/{number}\n x", why="")
    told = log.text().splitlines()
    assert len(told) == KEPT + 1
    assert told[1].endswith("h /5??x")
