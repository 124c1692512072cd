"""Documents of strangers are read or refused, whatever they are: none fails in another way."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from regfs.errors import RegfsError
from regfs.model.dates import moment, moment_text
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor, Manifest, parse_manifest
from regfs.model.names import parse_reference, parse_version
from regfs.model.oci_layout import Referring, oci_layout
from regfs.model.run_config import parse_run_config
from regfs.model.start_record import parse_start_record
from regfs.model.userinfo import without_userinfo
from tests.support.images import OCI, file, image_of, layer

WORDS = st.sampled_from(
    ["config", "Cmd", "Entrypoint", "Env", "User", "WorkingDir", "version", "files", "reads", "layers", "annotations",
     "mediaType", "digest", "size", "", "\ud800", "a/../b", "/x", "sha256:" + "0" * 64]
)  # fmt: skip
NUMBERS = st.sampled_from([0, 1, -1, 1 << 31, 1 << 63, 1 << 70, 1.5, 1e400])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=12,
)
DOCUMENTS = VALUES.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60)


@pytest.mark.parametrize("parse", [parse_run_config, parse_start_record])
@settings(deadline=None)
@given(content=DOCUMENTS)
def test_a_document_is_read_or_refused(parse: Callable[[bytes], object], content: bytes) -> None:
    with suppress(RegfsError):
        parse(content)


BUILT = image_of(layer(file("a")), docker=True)
OWN = Descriptor(BUILT.media_type, BUILT.digest, len(BUILT.manifest))


@given(
    st.lists(st.tuples(st.text(max_size=8), st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))),
    st.booleans(),
)
def test_a_layout_names_each_manifest_and_has_it_once_whatever_is_said_of_it(
    referrers: list[tuple[str, dict[str, str]]], is_own: bool
) -> None:
    parsed = parse_manifest(BUILT.manifest, content_type=BUILT.media_type)
    assert isinstance(parsed, Manifest)
    descriptors = [
        Descriptor(f"{OCI}.manifest.v1+json", Digest.of(f"{number // 2}".encode()), 7, annotations=annotations)
        for number, (_, annotations) in enumerate(referrers)
    ]
    if is_own:  # a registry may list an image as what refers to it
        descriptors = [replace(each, digest=BUILT.digest) for each in descriptors]
    found = [Referring(each, parsed.layers, tag) for each, (tag, _) in zip(descriptors, referrers, strict=True)]
    layout = oci_layout(parsed, BUILT.manifest, OWN, referring=found, subjects=[OWN])
    index = json.loads(layout.index_json)
    assert len(index["manifests"]) == 1 + len(referrers)
    blobs = layout.blobs["sha256"]
    assert {each["digest"] for each in index["manifests"]} - {f"sha256:{each}" for each in blobs} == {
        str(layout.manifest)
    }


@example("0999-01-01T235960Z")
@given(st.text(alphabet="0123456789-:TZ@abf", max_size=30) | st.datetimes().map(lambda at: f"{at:%Y-%m-%dT%H:%M}Z"))
def test_a_time_in_a_name_is_read_and_printed_or_no_time(text: str) -> None:
    seconds = moment(text)
    if seconds is not None:
        assert abs(seconds) < 1 << 40
        assert moment(moment_text(seconds)) == seconds
        name, version = parse_version(f"debian:12@{text}")
        assert (name, version.tag, version.at) == ("debian", "12", seconds)
        reference = parse_reference(f"debian:12@{text}")
        assert parse_reference(str(reference)) == reference
        assert without_userinfo(str(reference)) == str(reference)
    with suppress(RegfsError):
        parse_reference(text)
