"""Manifests, indexes and configs: right ones are read, and wrong ones are refused as what they are."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs.errors import BadManifest, RegfsError, TooLarge, Unsupported
from regfs.model import media_types
from regfs.model.digest import Digest
from regfs.model.image_config import History, parse_config
from regfs.model.manifest import (
    EMPTY,
    Descriptor,
    Index,
    Manifest,
    entry_names,
    parse_manifest,
)
from regfs.model.platform import Platform
from regfs.model.strict_json import parse_document

TAR_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
HEX = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def described(content: bytes, media_type: str = TAR_GZIP, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.of(content)), "size": len(content), **more}


def manifest(**more: Any) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": described(b"config", media_types.OCI_CONFIG),
        "layers": [described(b"layer 0"), described(b"layer 1!")],
        **more,
    }


def index(*entries: Any, **more: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": list(entries), **more}


def child(content: bytes, platform: str = "", **more: Any) -> dict[str, Any]:
    """Return an index's entry; *platform* is os/architecture/variant."""
    if platform:
        more["platform"] = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
    return described(content, media_types.OCI_MANIFEST, **more)


def parsed(document: object, content_type: str = "", *, announced: str = "") -> Manifest | Index:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_manifest(content, content_type=content_type, announced=announced)


def parsed_index(*entries: Any) -> Index:
    found = parsed(index(*entries))
    assert isinstance(found, Index)
    return found


def without(document: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != key}


# What is right.


def test_a_manifest_is_read() -> None:
    found = parsed(manifest(annotations={"a": "b"}), media_types.OCI_MANIFEST)
    assert found == Manifest(
        media_types.OCI_MANIFEST,
        Descriptor(media_types.OCI_CONFIG, Digest.of(b"config"), 6),
        (Descriptor(TAR_GZIP, Digest.of(b"layer 0"), 7), Descriptor(TAR_GZIP, Digest.of(b"layer 1!"), 8)),
        annotations={"a": "b"},
    )
    assert found.is_image


def test_an_index_is_read_with_its_platforms() -> None:
    platform = {"os": "windows", "architecture": "amd64", "os.version": "10.0.1", "os.features": ["win32k"]}
    found = parsed_index(child(b"a", platform=""), {**child(b"b"), "platform": platform})
    assert [entry.platform for entry in found.manifests] == [
        None,
        Platform("windows", "amd64", "", "10.0.1", ("win32k",)),
    ]


def test_null_means_absent_as_go_writes_it() -> None:
    found = parsed(manifest(layers=None, annotations=None, subject=None))
    assert isinstance(found, Manifest)
    assert found.layers == ()
    assert parsed(index(manifests=[])) == Index(media_types.OCI_INDEX, ())


def test_an_artifact_manifest_is_shown_as_what_replaced_it() -> None:
    found = parsed({"mediaType": media_types.OCI_ARTIFACT, "artifactType": "x/y", "blobs": [described(b"blob")]})
    assert isinstance(found, Manifest)
    assert (found.config, found.artifact_type, found.is_image) == (EMPTY, "x/y", False)
    assert [layer.digest for layer in found.layers] == [Digest.of(b"blob")]


def test_unknown_types_of_config_and_layers_are_no_error() -> None:
    found = parsed(manifest(config=described(b"c", "application/x"), layers=[described(b"l", "text/plain")]))
    assert isinstance(found, Manifest)
    assert not found.is_image
    with pytest.raises(Unsupported):
        media_types.layer_compression(found.layers[0].media_type)


def test_a_descriptor_can_be_a_key() -> None:
    found = parsed(manifest(annotations={"a": "b"}))
    assert len({found, parsed(manifest(annotations={"a": "b"}))}) == 1


# Which of the types it is.


@pytest.mark.parametrize(
    "header", ["", "text/plain", "application/json; charset=utf-8", "text/html", "APPLICATION/OCTET-STREAM"]
)
def test_a_header_that_says_nothing_leaves_it_to_the_document(header: str) -> None:
    assert isinstance(parsed(manifest(), header), Manifest)
    assert isinstance(parsed(index(), header), Index)
    assert isinstance(parsed(without(manifest(), "mediaType"), header), Manifest)
    assert isinstance(parsed(without(index(), "mediaType"), header), Index)


def test_parameters_and_case_of_the_header_do_not_matter() -> None:
    assert isinstance(parsed(manifest(), f"{media_types.OCI_MANIFEST.upper()} ; charset=utf-8"), Manifest)


def test_the_header_decides_where_the_document_does_not_say() -> None:
    docker = parsed(without(manifest(), "mediaType"), media_types.DOCKER_MANIFEST)
    assert docker.media_type == media_types.DOCKER_MANIFEST
    empty = {"schemaVersion": 2}
    assert isinstance(parsed(empty, media_types.OCI_INDEX), Index)
    with pytest.raises(BadManifest, match="neither"):
        parsed(empty, "text/html")


@pytest.mark.parametrize("header", [*sorted(media_types.DOCUMENT_TYPES), "text/html", "application/vnd.example+json"])
def test_a_wrong_header_does_not_change_what_a_document_is(header: str) -> None:
    assert parsed(manifest(), header) == parsed(manifest())
    assert parsed(index(child(b"a")), header) == parsed(index(child(b"a")))
    assert isinstance(parsed(without(manifest(), "mediaType"), header), Manifest)
    assert isinstance(parsed(without(index(child(b"a")), "mediaType"), header), Index)
    assert isinstance(parsed(without(index(), "mediaType") | {"manifests": None}, header), Index)


@pytest.mark.parametrize("vendor", [media_types.OCI_MANIFEST, media_types.DOCKER_MANIFEST])
@pytest.mark.parametrize("announced", [media_types.OCI_MANIFEST, media_types.DOCKER_MANIFEST, "", "text/html"])
def test_an_index_may_name_a_manifest_by_the_other_vendors_type(announced: str, vendor: str) -> None:
    assert parsed(manifest(mediaType=vendor), announced=announced).media_type == vendor


@pytest.mark.parametrize("key", ["config", "layers", "fsLayers", "blobs"])
def test_f38_manifests_and_layers_in_one_document_are_refused(key: str) -> None:
    value: object = described(b"c") if key == "config" else [described(b"c")]
    for content_type in ("", media_types.OCI_INDEX):
        with pytest.raises(BadManifest, match="CVE-2021-41190"):
            parsed(index(**{key: value}), content_type)


@pytest.mark.parametrize("key", ["Layers", "LAYERS", "layerſ", "Config", "mediatype", "Manifests"])
def test_f38_a_key_that_go_would_take_for_another_is_refused(key: str) -> None:
    with pytest.raises(BadManifest, match="is spelled"):
        parsed({**manifest(), key: []})


@pytest.mark.parametrize("key", ["Digest", "SIZE", "Mediatype", "Annotations"])
def test_f38_so_is_one_inside_a_descriptor(key: str) -> None:
    with pytest.raises(BadManifest, match="is spelled"):
        parsed(manifest(layers=[described(b"x", **{key: "y"})]))


@pytest.mark.parametrize("has_type", [True, False])
def test_an_index_announced_as_a_manifest_is_refused_and_the_other_way_round(has_type: bool) -> None:
    for document, announced in (
        (index(child(b"a")), media_types.OCI_MANIFEST),
        (index(child(b"a")), media_types.OCI_ARTIFACT),
        (manifest(), media_types.OCI_INDEX),
        (manifest(), media_types.DOCKER_INDEX),
    ):
        with pytest.raises(BadManifest, match="announced as"):
            parsed(document if has_type else without(document, "mediaType"), announced=announced)


def test_f38_a_document_whose_type_contradicts_its_fields_is_refused() -> None:
    for document in (index(child(b"a"), mediaType=media_types.OCI_MANIFEST), manifest(mediaType=media_types.OCI_INDEX)):
        with pytest.raises(BadManifest, match="but its mediaType is"):
            parsed(document)


OLD_CONFIG_TYPES = ("", "application/octet-stream", "application/json", "text/html", "text/html; charset=utf-8")


@pytest.mark.parametrize("config", OLD_CONFIG_TYPES)
def test_an_image_of_docker_1_10_is_an_image_whatever_its_config_is_called(config: str) -> None:
    for media_type, is_image in ((media_types.DOCKER_MANIFEST, True), (media_types.OCI_MANIFEST, False)):
        found = parsed(manifest(mediaType=media_type, config=described(b"config", config)))
        assert isinstance(found, Manifest)
        assert found.is_image == is_image


def test_a_config_of_something_else_in_a_docker_manifest_is_no_image() -> None:
    for config in ("application/vnd.cncf.helm.config.v1+json", "application/vnd.docker.plugin.v1+json", "text/plain"):
        found = parsed(manifest(mediaType=media_types.DOCKER_MANIFEST, config=described(b"config", config)))
        assert isinstance(found, Manifest)
        assert not found.is_image


@pytest.mark.parametrize(
    ("document", "header"),
    [
        ({"schemaVersion": 1, "fsLayers": [], "history": [], "signatures": []}, ""),
        ({"schemaVersion": 1, "fsLayers": []}, media_types.DOCKER_SCHEMA1_SIGNED),
        ({"schemaVersion": 1}, "text/plain"),
        ({"mediaType": media_types.DOCKER_SCHEMA1}, ""),
    ],
)
def test_f39_schema_1_is_not_supported_and_says_so(document: object, header: str) -> None:
    with pytest.raises(Unsupported, match="schema 1"):
        parsed(document, header)


@pytest.mark.parametrize("document", [{}, {"schemaVersion": 2}, {"errors": []}, {"schemaVersion": 3, "manifests": []}])
def test_what_is_neither_is_no_manifest(document: object) -> None:
    with pytest.raises(BadManifest):
        parsed(document)


# What two programs read differently, or none can read.


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"<html>no</html>",
        b"{",
        json.dumps(manifest()).encode("utf-16"),
        b"\xef\xbb\xbf" + json.dumps(manifest()).encode(),
        json.dumps(manifest()).encode().replace(b"layer", b"lay\xffer", 1),
        json.dumps(manifest()).encode()[:-1] + b', "layers": []}',
        json.dumps(manifest(annotations={"a": "b"})).encode().replace(b'"a"', b'"a": "c", "a"'),
        json.dumps(manifest(extra=float("nan"))).encode(),
        json.dumps(manifest(extra=float("-inf"))).encode(),
        json.dumps(manifest(extra="@")).encode().replace(b'"@"', b"1e999"),
        json.dumps(manifest(extra="@")).encode().replace(b'"@"', b"9" * 5000),
        json.dumps(manifest()).encode() + b"{}",
    ],
)
def test_f37_bytes_that_are_not_one_unambiguous_document_are_refused(content: bytes) -> None:
    with pytest.raises(BadManifest):
        parsed(content)


@pytest.mark.parametrize("size", [True, False, -1, 2**63, 2**80, "7", 1.5, None, [], {}])
def test_f37_a_size_that_is_none_is_refused(size: object) -> None:
    with pytest.raises(BadManifest, match="size"):
        parsed(manifest(layers=[{**described(b"x"), "size": size}]))


@pytest.mark.parametrize(
    "change",
    [
        {"layers": {}},
        {"layers": [None]},
        {"layers": [[]]},
        {"layers": "x"},
        {"config": None},
        {"config": []},
        {"config": "x"},
        {"annotations": []},
        {"annotations": {"a": 1}},
        {"subject": {"digest": "x"}},
        {"mediaType": 7},
        {"schemaVersion": 2.0},
        {"schemaVersion": "2"},
        {"schemaVersion": True},
        {"layers": [described(b"x", mediaType=[])]},
        {"layers": [described(b"x", platform=[])]},
        {"layers": [described(b"x", platform={"os": 1, "architecture": "a"})]},
    ],
)
def test_f37_a_field_of_another_type_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadManifest):
        parsed({**manifest(), **change})


def test_the_error_names_the_document_and_the_place_in_it() -> None:
    content = json.dumps(manifest(layers=[described(b"x"), {**described(b"y"), "size": -1}])).encode()
    with pytest.raises(BadManifest, match=rf"{Digest.of(content)}: layers\[1\]\.size"):
        parsed(content)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"layers":['])
def test_f36_deep_nesting_is_refused_and_costs_nothing(opening: bytes) -> None:
    with pytest.raises(BadManifest):
        parsed(opening * (1024 * 1024 // len(opening)))


def test_f36_a_document_over_the_limit_is_not_even_parsed() -> None:
    with pytest.raises(TooLarge):
        parsed(b"[" * (4 * 1024 * 1024 + 1))


def test_f36_too_many_layers_or_entries_are_too_large() -> None:
    layer = {"digest": f"sha256:{HEX}", "size": 0}
    with pytest.raises(TooLarge):
        parsed(manifest(layers=[layer] * 4097))
    with pytest.raises(TooLarge):
        parsed(index(*[layer] * 10_001))


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:../../x",
        f"sha256:{HEX.upper()}",
        f"sha256:{HEX[:-1]}",
        "md5",
        "",
        None,
        7,
        f"sha256:{HEX}\n",
        "sha256:\ud800",
    ],
)
def test_f41_a_bad_digest_makes_a_manifest_unreadable_but_only_an_entry_of_an_index(digest: object) -> None:
    bad = {**described(b"x"), "digest": digest}
    with pytest.raises(BadManifest):
        parsed(manifest(layers=[bad]))
    found = parsed_index(bad, child(b"good"))
    assert [entry.digest for entry in found.manifests] == [Digest.of(b"good")]


def test_f41_digests_that_cannot_be_verified_are_still_named() -> None:
    found = parsed_index({**child(b"a"), "digest": f"blake3:{HEX}"})
    assert [str(entry.digest) for entry in found.manifests] == [f"blake3:{HEX}"]


@pytest.mark.parametrize(
    "bad",
    [None, 7, [], {}, {"size": 1}, child(b"x", size=-1), child(b"x", annotations=[]), {**child(b"x"), "platform": []}],
)
def test_one_bad_entry_does_not_cost_the_others(bad: Any) -> None:
    found = parsed_index(child(b"a"), bad, child(b"b"))
    assert [entry.digest for entry in found.manifests] == [Digest.of(b"a"), Digest.of(b"b")]


@pytest.mark.parametrize("encoded", ["", "!!!!", "aGVsbG8", "aGVsbG8=\n", "d29ybGQ=", 7, None, "aGVsbG9o"])
def test_f42_embedded_bytes_that_are_wrong_are_not_used(encoded: object) -> None:
    found = parsed(manifest(config=described(b"hello", data=encoded)))
    assert isinstance(found, Manifest)
    assert found.config.content is None


def test_embedded_bytes_that_are_right_need_no_request() -> None:
    found = parsed(manifest(config=described(b"hello", data=base64.b64encode(b"hello").decode())))
    assert isinstance(found, Manifest)
    assert found.config.content == b"hello"


def test_the_empty_blob_needs_no_request_either() -> None:
    found = parsed(manifest(config=described(b"{}", media_types.OCI_EMPTY)))
    assert isinstance(found, Manifest)
    assert found.config.content == b"{}"


def test_f43_one_digest_with_two_sizes_is_refused() -> None:
    twice = [described(b"x"), {**described(b"x"), "size": 2}]
    with pytest.raises(BadManifest, match="two different sizes"):
        parsed(manifest(layers=twice))
    found = parsed_index(*twice)
    assert len(found.manifests) == 1


def test_the_same_layer_may_come_twice() -> None:
    found = parsed(manifest(layers=[described(b"x"), described(b"x")]))
    assert isinstance(found, Manifest)
    assert len(found.layers) == 2


def test_f46_lone_surrogates_do_not_stay_in_texts() -> None:
    content = json.dumps(manifest(annotations={"a\ud800": "b\udfff"})).encode()
    found = parsed(content)
    assert found.annotations == {"a\ufffd": "b\ufffd"}


# The names of an index's entries.


def names(*entries: dict[str, Any]) -> dict[str, bytes]:
    found = entry_names(parsed_index(*entries))
    contents = {Digest.of(bytes([n])): bytes([n]) for n in range(256)}
    return {name: contents[entry.digest] for name, entry in found.items()}


def sha256(content: bytes) -> str:
    return str(Digest.of(content))


def test_entries_are_named_by_their_platform() -> None:
    assert names(child(b"a", "linux/amd64"), child(b"b", "linux/arm64/v8"), child(b"c", "linux/arm/v7")) == {
        "linux-amd64": b"a",
        "linux-arm64-v8": b"b",
        "linux-arm-v7": b"c",
    }


def test_entries_that_are_no_images_are_named_by_their_digest() -> None:
    assert names(
        child(b"a", "unknown/unknown"),
        child(b"b"),
        child(b"c", "linux/amd64", artifactType="application/x"),
        child(b"d", "linux/amd64", annotations={"vnd.docker.reference.type": "attestation-manifest"}),
        child(b"e", "linux/amd64"),
    ) == {sha256(b"a"): b"a", sha256(b"b"): b"b", sha256(b"c"): b"c", sha256(b"d"): b"d", "linux-amd64": b"e"}


def test_f45_of_two_equal_platforms_the_second_is_named_by_its_digest() -> None:
    assert names(child(b"a", "linux/amd64"), child(b"b", "linux/amd64")) == {"linux-amd64": b"a", sha256(b"b"): b"b"}


def test_versions_of_the_system_tell_equal_platforms_apart() -> None:
    def windows(content: bytes, version: str) -> dict[str, Any]:
        platform = {"os": "windows", "architecture": "amd64", "os.version": version}
        return {**child(content), "platform": platform}

    assert names(windows(b"a", "10.0.1"), windows(b"b", "10.0.2"), windows(b"c", "10.0.2")) == {
        "windows-amd64-10.0.1": b"a",
        "windows-amd64-10.0.2": b"b",
        sha256(b"c"): b"c",
    }
    assert names(windows(b"a", "10.0.1")) == {"windows-amd64": b"a"}


@pytest.mark.parametrize(
    "system", ["../..", "a/b", "a\0b", "a\nb", "x" * 300, "\ud800", "é", ".", "..", "-", " ", "a b", "$(x)"]
)
def test_f46_a_platform_that_makes_no_safe_name_is_named_by_its_digest(system: str) -> None:
    entry = {**child(b"a"), "platform": {"os": system, "architecture": "amd64"}}
    assert names(entry) == {sha256(b"a"): b"a"}


# Configs.


def test_a_config_is_read() -> None:
    document = {
        "os": "linux",
        "architecture": "arm64",
        "variant": "v8",
        "created": "2026-01-01T00:00:00Z",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{HEX}"]},
        "history": [{"created_by": "ADD x"}, {"created_by": "ENV y", "empty_layer": True}, {}],
    }
    found = parse_config(json.dumps(document).encode())
    assert found.diff_ids == (Digest("sha256", HEX),)
    assert found.history == (History("ADD x"), History("ENV y", True), History())
    assert [step.created_by for step in found.layer_steps()] == ["ADD x", ""]
    assert (found.platform, found.created) == (Platform("linux", "arm64", "v8"), "2026-01-01T00:00:00Z")


@pytest.mark.parametrize("content", [b"{}", b'{"rootfs": null, "history": null}', b'{"rootfs": {"diff_ids": null}}'])
def test_a_config_without_layers_has_no_diff_ids(content: bytes) -> None:
    found = parse_config(content)
    assert (found.diff_ids, found.history, found.platform) == ((), (), Platform("unknown", "unknown"))


@pytest.mark.parametrize(
    "document",
    [
        {"rootfs": {"type": "windows", "diff_ids": []}},
        {"rootfs": {"diff_ids": ["sha256:x"]}},
        {"rootfs": {"diff_ids": [1]}},
        {"rootfs": []},
        {"rootfs": {"Diff_IDs": []}},
        {"RootFS": {}},
        {"history": {}},
        {"history": [1]},
        {"history": [{"empty_layer": "yes"}]},
        {"history": [{"created_by": 1}]},
        {"os": 1},
        {"created": 1},
    ],
)
def test_a_config_with_a_field_of_another_type_is_refused(document: object) -> None:
    with pytest.raises(BadManifest):
        parse_config(json.dumps(document).encode())


# Whatever a stranger sends.

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(f"sha256:{HEX}"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["mediaType", "digest", "size", "platform", "os", "data", "annotations", "diff_ids", "X"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
_DOCUMENTS = st.dictionaries(
    st.sampled_from(
        ["schemaVersion", "mediaType", "config", "layers", "manifests", "blobs", "subject", "rootfs", "history", "os"]
    ),
    _VALUES | st.sampled_from([2, media_types.OCI_MANIFEST, media_types.OCI_INDEX, media_types.OCI_ARTIFACT]),
)
_TYPES = st.sampled_from(["", "text/plain", media_types.OCI_MANIFEST, media_types.OCI_INDEX, media_types.OCI_ARTIFACT])


@given(_DOCUMENTS, _TYPES)
def test_any_document_is_read_or_refused_with_an_error_of_ours(document: dict[str, Any], content_type: str) -> None:
    content = json.dumps(document).encode()
    for parse in (lambda: parse_manifest(content, content_type=content_type), lambda: parse_config(content)):
        try:
            found = parse()
        except RegfsError:
            continue
        if isinstance(found, Index):
            assert all("/" not in name and name not in (".", "..") for name in entry_names(found))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_with_an_error_of_ours(content: bytes) -> None:
    try:
        parse_document(content)
    except RegfsError as error:
        str(error).encode()


@given(st.data())
def test_a_manifest_with_some_bytes_changed_is_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(json.dumps(manifest()).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        parse_manifest(bytes(content), content_type="")
    except RegfsError as error:
        str(error).encode()
