"""trustpolicy.json and the signatures of notation: what is meant, and that no bytes make a parser fail."""

from __future__ import annotations

import base64
import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regfs.errors import BadContent, InvalidOption, TooLarge
from regfs.images.judging.notation.certificates import check_chain, check_signature, load_chain
from regfs.model.attestations.notary import notary_signature
from regfs.model.digest import Digest
from regfs.model.notation_policy import is_notation, parse_notation_policy
from tests.support.attached import unpadded
from tests.support.notation import holder, notation_signature, root_of

ENTRY: dict[str, object] = {
    "name": "a", "registryScopes": ["*"], "signatureVerification": {"level": "strict", "override": {"expiry": "log"}},
    "trustStores": ["ca:acme,tsa:stamps", "signingAuthority:one"],
    "trustedIdentities": ["x509.subject: C=US, S=WA, O=acme\\, inc., OU= a \\ "],
}  # fmt: skip
SAMPLE = json.dumps({"version": "1.0", "trustPolicies": [ENTRY]}).encode()
SIGNED = notation_signature(holder(), Digest.of(b"image")).blobs[0].content


def test_stores_levels_and_escaped_subjects_are_read_as_the_specification_says() -> None:
    policy = parse_notation_policy(SAMPLE, "p").of("registry.example/app")
    assert policy is not None
    assert policy.stores == (("ca", "acme"), ("tsa", "stamps"), ("signingAuthority", "one"))
    assert policy.enforced == {"authenticity", "authenticTimestamp", "revocation"}
    assert policy.identities == ((("C", "US"), ("ST", "WA"), ("O", "acme, inc."), ("OU", "a  ")),)


def test_a_containers_policy_is_none_of_notation() -> None:
    assert is_notation(SAMPLE)
    assert not is_notation(b'{"default": [{"type": "reject"}]}')
    assert not is_notation(b"trustPolicies")


@settings(max_examples=100)
@given(st.integers(0, len(SAMPLE) - 1), st.binary(max_size=3), st.integers(0, 2))
def test_a_trust_policy_with_wrong_bytes_is_read_or_refused(at: int, wrong: bytes, more: int) -> None:
    with suppress(InvalidOption):
        parse_notation_policy(SAMPLE[:at] + wrong + SAMPLE[at + more :], "p")


@settings(max_examples=60)
@given(st.lists(st.sampled_from(["C=US", ",", " ", "ST=WA", "O=a", "=", "\\", "\\,", ";", "OU=b", "S=WA"]), max_size=9))
def test_a_subject_of_any_parts_is_read_or_refused(parts: list[str]) -> None:
    entry = ENTRY | {"trustedIdentities": [f"x509.subject:{''.join(parts)}"]}
    with suppress(InvalidOption):
        parse_notation_policy(json.dumps({"version": "1.0", "trustPolicies": [entry]}).encode(), "p")


@settings(max_examples=150)
@given(st.integers(0, len(SIGNED) - 1), st.binary(max_size=3), st.integers(0, 2))
def test_a_signature_with_wrong_bytes_is_refused_unless_it_says_the_same(at: int, wrong: bytes, more: int) -> None:
    changed = SIGNED[:at] + wrong + SIGNED[at + more :]
    with suppress(BadContent, TooLarge):
        signed = notary_signature(changed)
        chain = load_chain(signed.chain)
        check_signature(chain[0], signed)
        check_chain(chain, [root_of("acme root").certificate])
        assert signed.digest == str(Digest.of(b"image"))


@settings(max_examples=150)
@given(st.integers(0, 2000), st.binary(max_size=3), st.integers(0, 2))
def test_a_certificate_with_wrong_bytes_is_refused_or_is_no_other_signer_s(at: int, wrong: bytes, more: int) -> None:
    document = json.loads(SIGNED)
    der = base64.b64decode(document["header"]["x5c"][0])
    changed = der[: at % len(der)] + wrong + der[at % len(der) + more :]
    with suppress(BadContent):
        chain = load_chain([changed, base64.b64decode(document["header"]["x5c"][1])])
        check_signature(chain[0], notary_signature(SIGNED))
        check_chain(chain, [root_of("acme root").certificate])
        assert changed == der


@pytest.mark.parametrize("name", ["expiry", "authenticSigningTime"])
@pytest.mark.parametrize("text", ["yesterday", "2026-13-01T00:00:00Z", "", "9" * 400])
def test_a_time_that_is_none_is_refused(name: str, text: str) -> None:
    document = json.loads(SIGNED)
    scheme = "notary.x509.signingAuthority" if name != "expiry" else "notary.x509"
    attributes: dict[str, object] = {
        "alg": "ES256", "cty": "application/vnd.cncf.notary.payload.v1+json", "io.cncf.notary.signingScheme": scheme,
        "crit": ["io.cncf.notary.signingScheme", f"io.cncf.notary.{name}"], f"io.cncf.notary.{name}": text,
    }  # fmt: skip
    if name == "expiry":
        attributes["io.cncf.notary.signingTime"] = "2026-01-01T00:00:00Z"
    document["protected"] = unpadded(json.dumps(attributes).encode())
    with pytest.raises(BadContent):
        notary_signature(json.dumps(document).encode())
