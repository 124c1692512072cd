"""Manifests that go wrong: F31 to F44 of the fault catalogue, as far as the client has to do with them.

What a document says is the model's matter (tests/model); here it is bytes, digests, HEAD against GET, and limits.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json

import pytest

from regfs.errors import BadContent, DigestMismatch, InvalidName, NotFound, TooLarge, Unsupported
from regfs.model import media_types
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor, Manifest, parse_manifest
from regfs.model.strict_json import DOCUMENT_LIMIT
from tests.support.client_rig import RETRY, Rig, repository_of
from tests.support.fault_server import FaultServer, Flood, Response, changed, cut, raw, reply, reset
from tests.support.memory_registry import MANIFEST, MemoryRegistry

OTHER = b'{"schemaVersion":2,"other":true}'


def serving(rig: Rig) -> tuple[FaultServer, MemoryRegistry, Digest]:
    application = MemoryRegistry()
    return rig.server(application), application, application.add_image("demo/app", "v1")


def content_of(application: MemoryRegistry, digest: Digest) -> bytes:
    return application.repository("demo/app").manifests[str(digest)][0]


def test_f31_bytes_with_another_digest_are_asked_for_once_more_and_refused(rig: Rig) -> None:
    server, _application, digest = serving(rig)
    server.on("GET", "/manifests/", reply(200, OTHER, {"Content-Type": MANIFEST}))
    with pytest.raises(DigestMismatch, match=str(Digest.of(OTHER))):
        rig.client(server).manifests.fetch(repository_of(server), digest)
    assert len(server.paths()) == 2


def test_f31_the_second_answer_may_be_right(rig: Rig) -> None:
    server, application, digest = serving(rig)
    server.on("GET", "/manifests/", reply(200, OTHER, {"Content-Type": MANIFEST}), times=1)
    document = rig.client(server).manifests.fetch(repository_of(server), digest)
    assert (document.content, document.digest) == (content_of(application, digest), digest)


def test_f31_another_mirror_may_be_right(rig: Rig) -> None:
    server, application, digest = serving(rig)
    mirror = rig.server()
    mirror.on("GET", "/manifests/", reply(200, OTHER, {"Content-Type": MANIFEST}))
    document = rig.client(server, mirrors=[mirror]).manifests.fetch(repository_of(server), digest)
    assert document.content == content_of(application, digest)


@pytest.mark.parametrize(
    "said",
    [
        "sha256:" + "0" * 64,
        "0" * 64,
        "md5:abc",
        "",
        "sha256:../../etc/passwd",
        "sha512:" + "a" * 128,
        "blake3:" + "b" * 64,
    ],
)
def test_f32_the_digest_of_a_document_is_that_of_its_bytes_whatever_the_header_says(rig: Rig, said: str) -> None:
    server, application, digest = serving(rig)
    server.on("GET", "/manifests/", changed(lambda right: right.with_header("Docker-Content-Digest", said)))
    document = rig.client(server).manifests.fetch(repository_of(server), "v1")
    assert (document.digest, document.content) == (digest, content_of(application, digest))


def test_f33_a_head_that_lies_gives_no_document_under_its_digest(rig: Rig) -> None:
    server, _application, digest = serving(rig)
    liar = Digest.of(b"what was never pushed")
    server.on("HEAD", "/manifests/", changed(lambda right: right.with_header("Docker-Content-Digest", str(liar))))
    server.on("GET", str(liar), reply(200, OTHER, {"Content-Type": MANIFEST}))
    client = rig.client(server)
    assert client.manifests.resolve(repository_of(server), "v1").digest == liar
    with pytest.raises(DigestMismatch):
        client.manifests.fetch(repository_of(server), liar)
    assert client.manifests.fetch(repository_of(server), digest).digest == digest


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 406, 410, 500, 501])
def test_f34_a_head_that_fails_does_not_hide_a_tag(rig: Rig, status: int) -> None:
    server, _application, digest = serving(rig)
    server.on("HEAD", "/manifests/", reply(status))
    client = rig.client(server)
    descriptor = client.manifests.resolve(repository_of(server), "v1")
    assert descriptor.digest == digest
    assert client.manifests.fetch(repository_of(server), digest).descriptor == descriptor
    assert len(server.paths("GET /v2/demo/app/manifests")) == 1, "the quota was spent twice for one document"


def test_f34_a_tag_is_not_there_when_a_get_says_so(rig: Rig) -> None:
    server, _application, _digest = serving(rig)
    client = rig.client(server)
    for _ in range(2):
        with pytest.raises(NotFound):
            client.manifests.resolve(repository_of(server), "none")
    assert [path.split()[0] for path in server.paths()] == ["HEAD", "GET", "HEAD", "GET"]


def test_f34_a_proxy_that_says_404_to_the_head_of_what_it_has_not_fetched_yet_hides_no_tag(rig: Rig) -> None:
    server, _application, digest = serving(rig)
    server.on("HEAD", "/manifests/v1", reply(404))
    client = rig.client(server)
    with pytest.raises(NotFound):
        client.manifests.resolve(repository_of(server), "none")
    assert client.manifests.resolve(repository_of(server), "v1").digest == digest


def test_f34_a_registry_whose_head_is_wrong_is_asked_by_get_from_then_on(rig: Rig) -> None:
    server, application, _digest = serving(rig)
    application.add_image("demo/app", "v2", b"another layer")
    server.on("HEAD", "/manifests/", reply(404))
    client = rig.client(server)
    client.manifests.resolve(repository_of(server), "v1")
    client.manifests.resolve(repository_of(server), "v2")
    assert [path.split()[0] for path in server.paths()] == ["HEAD", "GET", "GET"]


INCOMPLETE = {
    "no digest": changed(lambda right: right.with_header("Docker-Content-Digest", None)),
    "strange digest": changed(lambda right: right.with_header("Docker-Content-Digest", "deadbeef")),
    "unverifiable digest": changed(lambda right: right.with_header("Docker-Content-Digest", "md5:" + "a" * 32)),
    "traversal": changed(lambda right: right.with_header("Docker-Content-Digest", "sha256:../../../etc")),
    "length 0": changed(lambda right: right.with_header("Content-Length", "0")),
    "no type": changed(lambda right: right.with_header("Content-Type", None)),
    "useless type": changed(lambda right: right.with_header("Content-Type", "application/json")),
    "no length": changed(lambda right: right.with_header("Transfer-Encoding", "chunked")),
}


@pytest.mark.parametrize("action", INCOMPLETE.values(), ids=INCOMPLETE)
def test_f35_a_head_that_says_too_little_is_followed_by_a_get(rig: Rig, action: object) -> None:
    server, application, digest = serving(rig)
    server.on("HEAD", "/manifests/", action)  # type: ignore[arg-type]
    descriptor = rig.client(server).manifests.resolve(repository_of(server), "v1")
    assert descriptor == Descriptor(MANIFEST, digest, len(content_of(application, digest)))


def test_a_tag_costs_one_head(rig: Rig) -> None:
    server, application, digest = serving(rig)
    descriptor = rig.client(server).manifests.resolve(repository_of(server), "v1")
    assert descriptor == Descriptor(MANIFEST, digest, len(content_of(application, digest)))
    assert server.paths() == ["HEAD /v2/demo/app/manifests/v1"]


def test_every_type_of_manifest_is_accepted(rig: Rig) -> None:
    server, _application, digest = serving(rig)
    client = rig.client(server)
    client.manifests.resolve(repository_of(server), "v1")
    client.manifests.fetch(repository_of(server), digest)
    head, get = server.headers("accept")
    assert head == get
    assert set(media_types.DOCUMENT_TYPES) <= set(str(get).split(", "))


@pytest.mark.parametrize("reference", ["v1", "digest"])
def test_f36_a_manifest_without_end_is_refused_after_its_limit(rig: Rig, reference: str) -> None:
    server, _application, digest = serving(rig)
    flood = Flood(b"HTTP/1.1 200 OK\r\nContent-Type: " + MANIFEST.encode() + b"\r\n\r\n{")
    server.on("GET", "/manifests/", flood)
    with pytest.raises(TooLarge):
        rig.client(server).manifests.fetch(repository_of(server), digest if reference == "digest" else reference)
    assert flood.sent < 8 * DOCUMENT_LIMIT


def test_f36_a_manifest_that_announces_too_much_is_not_read(rig: Rig) -> None:
    server, _application, _digest = serving(rig)
    flood = Flood(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000000\r\n\r\n{")
    server.on("GET", "/manifests/", flood)
    with pytest.raises(TooLarge, match="5000000000"):
        rig.client(server).manifests.fetch(repository_of(server), "v1")


STRANGE = {
    "invalid UTF-8": b'{"a":"\xff"}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "BOM": b"\xef\xbb\xbf{}",
    "NaN": b'{"a":NaN}',
    "duplicate keys": b'{"a":1,"a":2}',
    "deep": b'{"a":' + b"[" * 1_000_000,
    "both kinds": b'{"schemaVersion":2,"manifests":[],"layers":[]}',
}


@pytest.mark.parametrize("content", STRANGE.values(), ids=STRANGE)
def test_f37_f38_a_document_that_cannot_be_parsed_is_returned_as_bytes(rig: Rig, content: bytes) -> None:
    server, application, _digest = serving(rig)
    digest = application.add_manifest("demo/app", content, tag="strange")
    client = rig.client(server)
    assert client.manifests.fetch(repository_of(server), "strange").content == content
    assert client.manifests.fetch(repository_of(server), digest).content == content


def signed_schema1() -> tuple[bytes, bytes]:
    """Return a signed schema 1 manifest and the payload that its digest is over."""
    payload = json.dumps(
        {"schemaVersion": 1, "name": "demo/app", "tag": "old", "fsLayers": [{"blobSum": "sha256:" + "a" * 64}]},
        indent=3,
    ).encode()
    head, tail = payload[:-2], payload[-2:]

    def encoded(content: bytes) -> str:
        return base64.urlsafe_b64encode(content).rstrip(b"=").decode()

    protected = encoded(json.dumps({"formatLength": len(head), "formatTail": encoded(tail)}).encode())
    signatures = json.dumps([{"header": {}, "signature": "c2ln", "protected": protected}]).encode()
    return head + b',\n   "signatures": ' + signatures + b"\n}", payload


def test_f39_a_signed_schema1_manifest_is_shown_under_the_digest_of_its_payload(rig: Rig) -> None:
    server, application, _digest = serving(rig)
    signed, payload = signed_schema1()
    digest = Digest.of(payload)
    repository = application.repository("demo/app")
    repository.manifests[str(digest)] = (signed, media_types.DOCKER_SCHEMA1_SIGNED)
    repository.tags["old"] = str(digest)
    client = rig.client(server)
    by_tag, by_digest = (client.manifests.fetch(repository_of(server), reference) for reference in ("old", digest))
    assert (by_tag.content, by_tag.digest, by_tag.content_type) == (payload, digest, media_types.DOCKER_SCHEMA1)
    assert by_digest == by_tag
    assert client.manifests.resolve(repository_of(server), "old") == by_tag.descriptor


@pytest.mark.parametrize(
    "protected",
    ["", "!!!", "e30", base64.urlsafe_b64encode(b'{"formatLength":-1,"formatTail":"Cn0"}').decode(), 7, None],
)
def test_f39_a_schema1_manifest_with_signatures_of_junk_is_given_as_it_came(rig: Rig, protected: object) -> None:
    server, application, _digest = serving(rig)
    content = json.dumps({"fsLayers": [], "signatures": [{"protected": protected}]}).encode()
    application.add_manifest("demo/app", content, tag="junk", media_type=media_types.DOCKER_SCHEMA1_SIGNED)
    assert rig.client(server).manifests.fetch(repository_of(server), "junk").content == content


def test_a_registry_that_converts_for_old_clients_is_asked_without_the_old_types(rig: Rig) -> None:
    server, application, digest = serving(rig)
    signed, _payload = signed_schema1()
    old = Response(200, (("Content-Type", media_types.DOCKER_SCHEMA1_SIGNED),), signed)
    server.on("GET", "/manifests/", changed(lambda _right: old), times=1)
    assert rig.client(server).manifests.fetch(repository_of(server), "v1").content == content_of(application, digest)
    assert "prettyjws" not in str(server.headers("accept")[-1])


@pytest.mark.parametrize(
    "text", ["sha256:../../x", "sha256:" + "A" * 64, "sha256:" + "a" * 63, "sha256:", "x", "a:b/c"]
)
def test_f41_no_url_is_made_from_a_malformed_digest(text: str) -> None:
    with pytest.raises(InvalidName):
        Digest.parse(text)


def test_f41_what_cannot_be_verified_is_not_asked_for(rig: Rig) -> None:
    server, _application, _digest = serving(rig)
    digest = Digest.parse("md5:" + "a" * 32)
    with pytest.raises(Unsupported):
        rig.client(server).manifests.fetch(repository_of(server), digest)
    with pytest.raises(Unsupported):
        list(rig.client(server).blobs.stream(repository_of(server), Descriptor("x", digest, 5)))
    assert server.paths() == []


def test_a_sha512_document_is_verified(rig: Rig) -> None:
    server, application, _digest = serving(rig)
    digest = Digest("sha512", hashlib.sha512(OTHER).hexdigest())
    application.repository("demo/app").manifests[str(digest)] = (OTHER, MANIFEST)
    assert rig.client(server).manifests.fetch(repository_of(server), digest).content == OTHER


def test_f42_embedded_content_that_was_wrong_is_fetched(rig: Rig) -> None:
    server, application, _digest = serving(rig)
    blob = application.add_blob("demo/app", b"text")  # the model gives no content where `data` did not verify
    assert b"".join(rig.client(server).blobs.stream(repository_of(server), blob)) == b"text"


def test_f44_the_urls_of_a_descriptor_are_never_asked(rig: Rig) -> None:
    server, _application, _digest = serving(rig)
    elsewhere = rig.server()
    layer = {
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "digest": str(Digest.of(b"x")),
        "size": 1,
        "urls": [f"{elsewhere.url}/{number}" for number in range(50)],
    }
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": str(Digest.of(b"c")), "size": 1}
    manifest = parse_manifest(
        json.dumps({"schemaVersion": 2, "config": config, "layers": [layer]}).encode(), content_type=MANIFEST
    )
    assert isinstance(manifest, Manifest)
    (foreign,) = manifest.layers
    with pytest.raises(NotFound):
        list(rig.client(server).blobs.stream(repository_of(server), foreign))
    assert elsewhere.connections == 0


@pytest.mark.parametrize("action", [reset(), cut(50)], ids=["reset", "cut"])
def test_a_manifest_that_is_cut_is_asked_for_again(rig: Rig, action: object) -> None:
    server, application, digest = serving(rig)
    server.on("GET", "/manifests/", action, times=2)  # type: ignore[arg-type]
    assert rig.client(server).manifests.fetch(repository_of(server), digest).content == content_of(application, digest)


def test_a_manifest_that_is_cut_for_ever_is_given_up(rig: Rig) -> None:
    server, _application, digest = serving(rig)
    server.on("GET", "/manifests/", raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"))
    with pytest.raises(BadContent):
        rig.client(server).manifests.fetch(repository_of(server), digest)
    assert len(server.paths()) <= RETRY.attempts


def test_a_document_that_is_compressed_for_the_transport_is_understood(rig: Rig) -> None:
    server, application, digest = serving(rig)

    def compress(right: Response) -> Response:
        return Response(right.status, right.headers, gzip.compress(right.body)).with_header("Content-Encoding", "gzip")

    server.on("GET", ".", changed(compress))
    client = rig.client(server)
    assert client.manifests.fetch(repository_of(server), digest).content == content_of(application, digest)
    assert client.listing.tags(repository_of(server)) == ["v1"]


@pytest.mark.parametrize(
    "body", [gzip.compress(bytes(20_000_000), mtime=0), b"\x1f\x8bjunk", gzip.compress(b"{}", mtime=0)[:5]]
)
def test_a_compressed_document_that_is_wrong_is_refused(rig: Rig, body: bytes) -> None:
    server, _application, digest = serving(rig)
    server.on("GET", ".", reply(200, body, {"Content-Encoding": "gzip"}))
    with pytest.raises((BadContent, TooLarge)):
        rig.client(server).manifests.fetch(repository_of(server), digest)
