"""Bytes of strangers that claim to be signatures: each parser gives values or a refusal, and nothing else."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regfs.errors import BadContent, TooLarge, Unsupported
from regfs.model.attestations.certificate import identity_in
from regfs.model.attestations.documents import bundle_envelope, cosign_payload, decode, statement_in
from regfs.model.attestations.json_members import members
from regfs.model.attestations.kinds import harmless, predicate_stem
from regfs.model.attestations.signatures import bundle_signature, cosign_signature, logged_in
from regfs.model.digest import Digest
from tests.support.attached import CERTIFICATE, ISSUER, SIGNER, SPDX, bundle, notary, simple_signing, statement
from tests.support.keyless import Sigstore

DIGEST = Digest.of(b"image")
SAMPLES = [
    bundle(statement(DIGEST, SPDX, {"a": [1]}), SPDX).blobs[0].content,
    notary(DIGEST).blobs[0].content,
    statement(DIGEST, SPDX, {"a": [1]}),
    simple_signing(DIGEST).content,
]
SERVICE = Sigstore.make()
BUNDLED = SERVICE.bundle(SERVICE.signer(), statement(DIGEST, SPDX, {})).blobs[0].content
TAGGED = SERVICE.payload(SERVICE.signer(), DIGEST, reference="app").blobs[0]
JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=5), lambda each: st.lists(each, max_size=3), max_leaves=5
)


@settings(max_examples=40)
@given(st.dictionaries(st.text(max_size=5), JSON | st.just({"a": "}"}), max_size=4), st.sampled_from([None, 1]))
def test_members_are_the_bytes_of_what_json_reads(value: dict[str, object], indent: int | None) -> None:
    content = json.dumps(value, indent=indent).encode()
    assert {key: json.loads(each) for key, each in members(content).items()} == value


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b'{"a"}', b'{"a":}', b'{"a":1,}', b'{"a":1 "b":2}', b'{"a":"', b'{"a":[', b'{"a":["]}',
     b'{"a":1}{}', b'{"a":1,"a":2}', b'{a:1}', b'{"a":1'],
)  # fmt: skip
def test_what_is_no_object_is_refused(content: bytes) -> None:
    with pytest.raises(BadContent):
        members(content)


def test_a_string_of_megabytes_and_deep_nesting_cost_no_recursion() -> None:
    nested = b"[" * 100_000 + b"]" * 100_000
    found = members(b'{"a":"' + b'\\"x' * 100_000 + b'","b":' + nested + b"}")
    assert found["b"] == nested
    assert len(found["a"]) == 300_002


def test_more_members_than_any_envelope_has_are_refused() -> None:
    with pytest.raises(TooLarge):
        members(json.dumps({str(number): 1 for number in range(100)}).encode())


@settings(max_examples=60)
@given(st.sampled_from(SAMPLES), st.data())
def test_a_document_with_a_wrong_byte_is_read_or_refused(sample: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(sample) - 1))
    changed = sample[:at] + data.draw(st.binary(max_size=3)) + sample[at + 1 :]
    with suppress(BadContent, TooLarge, Unsupported):
        statement_in(decode(changed, "", {}).payload)
    with suppress(BadContent, TooLarge):
        assert bundle_envelope(changed).signed_bytes.startswith(b"DSSEv1 ")
    with suppress(BadContent, TooLarge):
        cosign_payload(changed)


def test_a_certificate_names_its_subject_and_the_issuer_of_the_identity() -> None:
    identity = identity_in(CERTIFICATE)
    assert (identity.names, identity.issuer) == ((SIGNER,), ISSUER)


@settings(max_examples=60)
@given(st.data())
def test_a_certificate_with_wrong_bytes_is_read_or_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(CERTIFICATE) - 1))
    changed = CERTIFICATE[:at] + data.draw(st.binary(max_size=2)) + CERTIFICATE[at + 1 :]
    with suppress(BadContent):
        assert str(identity_in(changed))


@settings(max_examples=30)
@given(st.text())
def test_names_from_strangers_are_one_path_component(text: str) -> None:
    for name in (harmless(text), predicate_stem(text)):
        assert name
        assert not {"/", "\0"} & set(name)
        assert name not in (".", "..")
        assert len(name.encode()) <= 100


@pytest.mark.parametrize(
    ("predicate", "stem"),
    [
        ("https://spdx.dev/Document", "spdx"),
        ("https://cyclonedx.org/bom/v1.4", "cyclonedx"),
        ("https://slsa.dev/provenance/v0.2", "provenance"),
        ("https://cosign.sigstore.dev/attestation/vuln/v1", "vuln"),
        ("https://example.org/checks/review/v1", "review"),
        ("", "attestation"),
    ],
)
def test_predicates_have_short_names(predicate: str, stem: str) -> None:
    assert predicate_stem(predicate) == stem


@settings(max_examples=150)
@given(st.integers(0, len(BUNDLED) - 1), st.binary(max_size=3), st.integers(0, 2))
def test_a_signature_with_wrong_bytes_is_read_or_refused(at: int, wrong: bytes, more: int) -> None:
    with suppress(BadContent, TooLarge):
        entry = bundle_signature(BUNDLED[:at] + wrong + BUNDLED[at + more :]).entry
        assert entry is None or (entry.promised_bytes and logged_in(entry.body).signer)


@settings(max_examples=150)
@given(st.sampled_from(sorted(TAGGED.annotations)), st.floats(0, 1), st.text(max_size=3), st.integers(0, 2))
def test_annotations_with_wrong_characters_are_read_or_refused(name: str, part: float, wrong: str, more: int) -> None:
    text = TAGGED.annotations[name]
    at = int(part * len(text))
    with suppress(BadContent, TooLarge):
        found = cosign_signature(TAGGED.content, {**TAGGED.annotations, name: text[:at] + wrong + text[at + more :]})
        assert found.entry is None or logged_in(found.entry.body).signer


def test_what_the_log_has_signed_is_written_as_the_log_writes_it() -> None:
    entry = cosign_signature(TAGGED.content, TAGGED.annotations).entry
    assert entry is not None
    assert json.loads(entry.promised_bytes) == json.loads(TAGGED.annotations["dev.sigstore.cosign/bundle"])["Payload"]
    bundled = bundle_signature(BUNDLED).entry
    assert bundled is not None
    assert logged_in(bundled.body).kind == "dsse"
