"""Faults of a registry as a user of the tree meets them: which error, what is kept, what else goes on.

The numbers are those of the catalogue of faults; what the client alone decides is in tests/registry. After each test
the cache must be clean (the fixture `served`), and each test looks at something else that must go on working.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from regfs.errors import (
    AccessDenied,
    BadContent,
    DigestMismatch,
    NotFound,
    RegfsError,
    RegistryUnavailable,
    TooLarge,
    Unsupported,
)
from regfs.model.digest import Digest
from tests.support.cache import assert_cache_is_clean, blobs_in
from tests.support.fault_server import Action, Flood, Response, changed, cut, raw, reply, reset
from tests.support.images import BuiltImage, file, image_of, index_of, layer
from tests.support.memory_registry import INDEX, MANIFEST
from tests.support.served import Served

PAGE = b"<!DOCTYPE html><html><body>Please sign in</body></html>"
WEB_PAGE = reply(200, PAGE, {"Content-Type": "text/html"})
BIG = os.urandom(300_000)
AMD64 = {"platform": {"os": "linux", "architecture": "amd64"}}


@pytest.fixture
def app(served: Served) -> BuiltImage:
    """The image `app:1`, and `well:1` beside it, which nothing is wrong with."""
    served.push("well", "1", image_of(layer(file("file", b"well"))))
    return served.push("app", "1", image_of(layer(file("base", BIG)), layer(file("top", b"top"))))


def flipped(position: int) -> Action:
    """Flip one bit of the body."""

    def flip(response: Response) -> Response:
        body = bytearray(response.body)
        body[position] ^= 1
        return Response(response.status, response.headers, bytes(body))

    return changed(flip)


def fails(served: Served, path: str, error: type[RegfsError]) -> None:
    """Assert that *path* cannot be read or listed, and that what is beside it can."""
    shown = served.show(tag_ttl_s=0.0)
    with pytest.raises(error):
        look_at(served, path)
    assert shown.read("well/1/rootfs/file") == b"well"


def look_at(served: Served, path: str) -> object:
    shown = served.show(tag_ttl_s=0.0)
    if shown.attributes(path).mode & 0o170000 == 0o040000:
        return shown.names(path)
    return shown.read(path)


# F30: web pages in the place of answers.


@pytest.mark.parametrize(
    ("method", "pattern", "path"),
    [
        ("GET", "app/tags/list", "app"),
        ("*", "app/manifests", "app/1/rootfs"),
        ("*", "app/manifests", "app/1/manifest.json"),
        ("GET", "app/blobs", "app/1/config.json"),
        ("GET", "app/blobs", "app/1/rootfs"),
    ],
    ids=["tags", "manifest", "manifest.json", "config", "layers"],
)
def test_f30_a_web_page_is_an_error_and_clears(
    served: Served, app: BuiltImage, method: str, pattern: str, path: str
) -> None:
    served.server.on(method, pattern, WEB_PAGE)
    fails(served, path, BadContent)
    assert str(Digest.of(PAGE)) not in blobs_in(served.cache)
    served.server.heal()
    assert look_at(served, path)


def test_f30_a_web_page_for_a_catalog_leaves_the_known_names(served: Served, app: BuiltImage) -> None:
    served.server.on("GET", "_catalog", WEB_PAGE)
    shown = served.show()
    assert shown.read("app/1/digest")
    assert "app" in shown.names()


# F31 to F36: manifests.


def test_f31_a_manifest_with_other_bytes_is_an_error_and_not_kept(served: Served, app: BuiltImage) -> None:
    served.server.on("GET", f"app/manifests/{app.digest}", flipped(20), times=2)
    fails(served, "app/1/manifest.json", DigestMismatch)
    assert str(app.digest) not in blobs_in(served.cache)
    assert look_at(served, "app/1/manifest.json") == app.manifest


@pytest.mark.parametrize("said", [str(Digest.of(b"other")), "sha256:short", "md5:" + "0" * 32, "", "0" * 64])
def test_f32_the_digest_is_that_of_the_bytes(served: Served, app: BuiltImage, said: str) -> None:
    served.server.on("GET", "app/manifests/1", changed(lambda r: r.with_header("Docker-Content-Digest", said)))
    served.server.on("HEAD", "app/manifests/1", reply(405))
    shown = served.show()
    assert shown.read("app/1/digest") == f"{app.digest}\n".encode()
    assert shown.read("app/1/manifest.json") == app.manifest


def test_f32_a_tag_is_what_its_bytes_are_where_the_digest_that_head_names_does_not_exist(
    served: Served, app: BuiltImage
) -> None:
    wrong = str(Digest.of(b"never pushed"))
    served.server.on("*", "app/manifests/1", changed(lambda r: r.with_header("Docker-Content-Digest", wrong)))
    shown = served.show()
    assert shown.read("app/1/manifest.json") == app.manifest
    assert shown.read("app/1/digest") == f"{app.digest}\n".encode()
    assert shown.read("app/1/rootfs/top") == b"top"
    asked = [path.split()[0] for path in served.server.paths("manifests/")]
    assert len(asked) <= 6
    assert asked.count("HEAD") <= 2


def test_f33_a_tag_that_moves_between_two_requests_gives_one_image_or_the_other(
    served: Served, app: BuiltImage
) -> None:
    shown = served.show(tag_ttl_s=0.0)
    for number in range(5):
        new = image_of(layer(file("top", b"%d" % number)))

        def move(response: Response, new: BuiltImage = new) -> Response:
            served.push("app", "1", new)
            return response

        served.server.on("HEAD", "app/manifests/1", changed(move), times=1)
        digest = shown.read("app/1/digest").decode().strip()
        assert Digest.of(shown.read(f"app/{digest}/manifest.json")) == Digest.parse(digest)
        manifest = shown.read("app/1/manifest.json")
        assert shown.read("app/1/digest") == f"{Digest.of(manifest)}\n".encode()


@pytest.mark.parametrize("status", [404, 405, 500])
def test_f34_a_head_that_fails_is_not_a_missing_tag(served: Served, app: BuiltImage, status: int) -> None:
    served.server.on("HEAD", "manifests", reply(status))
    assert look_at(served, "app/1/manifest.json") == app.manifest


@pytest.mark.parametrize("name", ["Docker-Content-Digest", "Content-Type"])
def test_f35_a_head_that_says_too_little_is_no_empty_file(served: Served, app: BuiltImage, name: str) -> None:
    served.server.on("HEAD", "manifests", changed(lambda response: response.with_header(name, None)))
    shown = served.show()
    assert shown.attributes("app/1/manifest.json").size == len(app.manifest)
    assert shown.read("app/1/manifest.json") == app.manifest


def test_f36_a_manifest_without_end_is_too_large_and_is_not_read(served: Served, app: BuiltImage) -> None:
    endless = Flood(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")
    served.server.on("GET", f"app/manifests/{app.digest}", endless)
    fails(served, "app/1/manifest.json", TooLarge)
    assert endless.sent < 64 * 1024 * 1024


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (b"[" * 4_000_000, BadContent),
        (b'{"schemaVersion":2,"config":' + b'{"a":' * 100_000, BadContent),
        (json.dumps({"schemaVersion": 2, "config": {}, "layers": [{}] * 100_000}).encode(), RegfsError),
    ],
    ids=["nested lists", "nested objects", "100,000 layers"],
)
def test_f36_a_bomb_is_an_error(served: Served, app: BuiltImage, document: bytes, error: type[RegfsError]) -> None:
    served.document("bomb", "1", document, MANIFEST)
    fails(served, "bomb/1/rootfs", error)
    assert look_at(served, "bomb/1/manifest.json") == document


def test_f40_an_index_of_ten_thousand_entries_is_listed_without_asking_for_them(
    served: Served, app: BuiltImage
) -> None:
    entries = [{"mediaType": MANIFEST, "digest": str(Digest.of(b"%d" % n)), "size": 9} for n in range(9_999)]
    served.document("many", "1", index_of(app.descriptor(**AMD64), *entries), INDEX)
    served.registry.repository("many").manifests[str(app.digest)] = (app.manifest, app.media_type)
    shown = served.show()
    assert len(shown.names("many/1/manifests")) == 10_000
    assert len(served.server.paths("manifests")) == 2


def test_f42_embedded_bytes_that_are_wrong_are_not_served(served: Served, app: BuiltImage) -> None:
    manifest = json.loads(app.manifest)
    for data in ("e30=", "not base64!", "x" * 100):
        manifest["config"]["data"] = data
        served.document("app", "data", json.dumps(manifest).encode(), MANIFEST)
        assert look_at(served, "app/data/config.json") == app.config


def test_f44_addresses_in_a_descriptor_are_not_asked(served: Served, app: BuiltImage) -> None:
    manifest = json.loads(app.manifest)
    foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    lost = layer(file("lost"))
    urls = ["http://127.0.0.1:1/x", "file:///etc/passwd", "ftp://localhost/x"] * 20
    manifest["layers"][1] = lost.descriptor() | {"mediaType": foreign, "urls": urls}
    served.document("app", "foreign", json.dumps(manifest).encode(), MANIFEST)
    fails(served, "app/foreign/rootfs", Unsupported)
    fails(served, f"app/foreign/blobs/{lost.digest}", Unsupported)


# F47 to F58: blobs.


@pytest.mark.parametrize("fault", [cut(1000), reset(70_000), cut(0)], ids=["cut", "reset", "cut at once"])
def test_f47_a_transfer_that_breaks_off_goes_on(served: Served, app: BuiltImage, fault: Action) -> None:
    served.server.on("GET", f"blobs/{app.layers[0].digest}", fault, times=1)
    shown = served.show()
    assert shown.read("app/1/rootfs/base") == BIG


def test_f48_a_transfer_that_breaks_off_each_time_is_an_error(served: Served, app: BuiltImage) -> None:
    served.server.on("GET", f"blobs/{app.layers[0].digest}", cut(0))
    fails(served, "app/1/rootfs", RegistryUnavailable)
    assert len(served.server.paths(f"blobs/{app.layers[0].digest}")) < 20
    assert look_at(served, "app/1/layers/1/tree") == ["top"]


@pytest.mark.parametrize("position", [1000, -1], ids=["in the middle", "in the last byte"])
@pytest.mark.parametrize("place", ["rootfs", "layers/0/tree", "blobs/"])
def test_f49_a_flipped_bit_is_an_error_and_nothing_of_it_is_kept(
    served: Served, app: BuiltImage, position: int, place: str
) -> None:
    digest = str(app.layers[0].digest)
    served.server.on("GET", f"blobs/{digest}", flipped(position), times=2)
    path = f"app/1/{place}{digest if place.endswith('/') else ''}"
    fails(served, path, BadContent)
    assert digest not in blobs_in(served.cache)
    assert_cache_is_clean(served.cache)
    assert look_at(served, path)


@pytest.mark.parametrize("place", ["rootfs", "layers/0/tree", "blobs/"])
def test_f49_one_wrong_transfer_is_made_once_more_and_no_reader_sees_it(
    served: Served, app: BuiltImage, place: str
) -> None:
    digest = str(app.layers[0].digest)
    served.server.on("GET", f"blobs/{digest}", flipped(1000), times=1)
    assert look_at(served, f"app/1/{place}{digest if place.endswith('/') else ''}")
    assert len(served.server.paths(f"GET .*blobs/{digest}")) == 2


def test_a_wrong_layer_is_not_downloaded_for_every_name_below_it(served: Served, app: BuiltImage) -> None:
    digest = str(app.layers[0].digest)
    served.server.on("GET", f"blobs/{digest}", flipped(1000))
    shown = served.show(refused_s=60.0)
    for name in ("a", "b", "c", "d"):
        with pytest.raises(BadContent):
            shown.find(f"app/1/rootfs/{name}")
    assert len(served.server.paths(f"GET .*blobs/{digest}")) == 2


def test_f43_a_layer_of_which_one_manifest_names_a_wrong_size_is_right_for_the_others(
    served: Served, app: BuiltImage
) -> None:
    manifest = json.loads(app.manifest)
    manifest["layers"][0]["size"] += 1
    served.document("app", "wrong", json.dumps(manifest).encode(), MANIFEST)
    shown = served.show(refused_s=60.0)
    with pytest.raises(BadContent):
        shown.names("app/wrong/rootfs")
    assert shown.read("app/1/rootfs/base") == BIG


def test_f50_a_blob_that_goes_on_is_an_error(served: Served, app: BuiltImage) -> None:
    served.server.on("GET", "app/blobs", changed(lambda r: Response(r.status, r.headers, r.body + b"more")))
    fails(served, f"app/1/blobs/{app.layers[0].digest}", BadContent)


def test_f50_a_blob_without_end_is_not_written_to_the_disk(served: Served, app: BuiltImage) -> None:
    endless = Flood(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    served.server.on("GET", f"blobs/{app.layers[0].digest}", endless)
    fails(served, f"app/1/blobs/{app.layers[0].digest}", BadContent)
    fails(served, "app/1/rootfs", BadContent)
    assert endless.sent < 64 * 1024 * 1024


def test_f56_an_error_page_with_status_200_is_an_error(served: Served, app: BuiltImage) -> None:
    xml = reply(200, "<Error><Code>AccessDenied</Code></Error>", {"Content-Type": "application/xml"})
    served.server.on("GET", f"blobs/{app.layers[0].digest}", xml)
    fails(served, "app/1/rootfs", RegfsError)
    fails(served, f"app/1/blobs/{app.layers[0].digest}", RegfsError)
    assert str(app.layers[0].digest) not in blobs_in(served.cache)


def test_f58_an_empty_body_is_no_empty_file(served: Served, app: BuiltImage) -> None:
    served.server.on("GET", f"blobs/{app.layers[0].digest}", reply(200, b""))
    fails(served, f"app/1/blobs/{app.layers[0].digest}", RegfsError)
    fails(served, "app/1/rootfs", RegfsError)


def test_f60_a_cache_that_cannot_keep_a_document_costs_no_answer(served: Served, app: BuiltImage) -> None:
    served.cache.mkdir(parents=True, exist_ok=True)
    (served.cache / "blobs").write_text("in the way")
    shown = served.show()
    assert shown.read("app/1/manifest.json") == app.manifest
    assert shown.read("app/1/config.json") == app.config
    assert shown.read("app/1/rootfs/top") == b"top"


def test_f60_a_damaged_memory_of_references_costs_no_answer(served: Served, app: BuiltImage) -> None:
    served.cache.mkdir(parents=True, exist_ok=True)
    (served.cache / "references.sqlite").write_bytes(b"damaged" * 1000)
    assert look_at(served, "app/1/manifest.json") == app.manifest
    assert served.show(offline=True).read("app/1/manifest.json") == app.manifest


# F61 to F65: lists.


def paged(served: Served) -> None:
    for number in range(9):
        served.document("app", f"t{number}", b'{"schemaVersion":2,"manifests":[]}', INDEX)
    served.registry.page_size = 3


def test_f62_all_pages_are_listed(served: Served, app: BuiltImage) -> None:
    paged(served)
    assert look_at(served, "app") == ["1", *(f"t{number}" for number in range(9))]


@pytest.mark.parametrize("status", [404, 500, 403])
def test_f64_half_a_list_is_an_error_and_is_not_remembered(served: Served, app: BuiltImage, status: int) -> None:
    paged(served)
    served.server.on("GET", "app/tags/list.*last", reply(status))
    with pytest.raises(RegfsError):
        look_at(served, "app")
    assert served.show().read("well/1/rootfs/file") == b"well"
    served.server.heal()
    assert look_at(served, "app") == ["1", *(f"t{number}" for number in range(9))]


def test_f61_a_list_that_leads_in_a_circle_is_an_error(served: Served, app: BuiltImage) -> None:
    link = '</v2/app/tags/list>; rel="next"'
    served.server.on("GET", "app/tags", changed(lambda response: response.with_header("Link", link)))
    with pytest.raises(RegfsError):
        look_at(served, "app")
    assert len(served.server.paths("app/tags")) < 40


@pytest.mark.parametrize(
    "link", ["<http://127.0.0.2:1/v2/app/tags/list>", "<javascript:alert(1)>", "<>", "<file:///etc/passwd>"]
)
def test_f61_a_list_that_leads_elsewhere_stays_with_the_registry(served: Served, app: BuiltImage, link: str) -> None:
    served.server.on(
        "GET", "app/tags", changed(lambda response: response.with_header("Link", f'{link}; rel="next"')), times=1
    )
    try:
        assert look_at(served, "app") == ["1"]
    except RegfsError as error:
        assert isinstance(error, BadContent)  # noqa: PT017 (either is right)


@pytest.mark.parametrize(
    ("tags", "listed"),
    [
        ("null", []),
        ('["b","a","b",null,7,"../x","-no","' + "x" * 200 + '","sha256:' + "0" * 64 + '","ok"]', ["a", "b", "ok"]),
    ],
    ids=["null", "some of each"],
)
def test_f63_of_strange_tags_the_valid_ones_are_listed(
    served: Served, app: BuiltImage, tags: str, listed: list[str]
) -> None:
    served.server.on("GET", "app/tags", reply(200, f'{{"tags":{tags}}}', {"Content-Type": "application/json"}))
    assert look_at(served, "app") == listed


@pytest.mark.parametrize("answer", [reply(status) for status in (401, 403, 404, 405, 501)] + [reply(200, "[]")])
def test_f65_a_registry_that_cannot_be_listed_is_usable(served: Served, app: BuiltImage, answer: Action) -> None:
    served.server.on("GET", "_catalog", answer)
    shown = served.show()
    assert shown.read("app/1/rootfs/top") == b"top"
    assert "app" in shown.names()
    shown.names(served.server.address)
    assert shown.names("app") == ["1"]


def test_a_catalog_that_fails_costs_no_listing_of_tags(served: Served, app: BuiltImage) -> None:
    served.server.on("GET", "_catalog", reply(503))
    assert look_at(served, "app") == ["1"]
    asked = len(served.server.paths("_catalog"))
    shown = served.show()
    for _ in range(5):
        with pytest.raises(NotFound):
            shown.find("app/no-such")
    assert len(served.server.paths("_catalog")) <= 2 * asked


# Errors in general.


@pytest.mark.parametrize(
    ("action", "error"),
    [
        (reply(401), AccessDenied),
        (reply(403, "<html>"), AccessDenied),
        (reply(404), NotFound),
        (reply(500), RegistryUnavailable),
        (reply(204), BadContent),
        (raw(b"SSH-2.0-OpenSSH\r\n"), RegfsError),
        (reset(), RegistryUnavailable),
    ],
    ids=["401", "403", "404", "500", "F24 204", "F19 SSH", "F17 reset"],
)
@pytest.mark.parametrize("path", ["app/1/digest", "app/1/rootfs", "app"])
def test_a_fault_that_passes_leaves_no_trace(
    served: Served, app: BuiltImage, action: Callable[[object], bool], error: type[RegfsError], path: str
) -> None:
    served.server.on("*", "/app/", action)
    fails(served, path, error)
    served.server.heal()
    assert look_at(served, path)
