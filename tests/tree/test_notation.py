"""--policy with a trust policy of notation: signatures in JWS, levels, scopes, times."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from regfs.errors import AccessDenied, InvalidOption
from regfs.images.judging.notation.rules import NotationRules
from regfs.model.digest import Digest
from regfs.model.names import RepositoryName
from regfs.model.notation_policy import parse_notation_policy
from tests.support.artifacts import Artifact, artifact_of, blob
from tests.support.attached import NOTARY, refer
from tests.support.images import BuiltImage, file, image_of, layer
from tests.support.notation import (
    LONG_S,
    NOW_S,
    Holder,
    holder,
    key_of,
    notation_signature,
    root_of,
    write_trust_policy,
)
from tests.support.served import Served
from tests.support.shown import Shown
from tests.support.timestamps import TimestampAuthority

ROOT = root_of("acme root")
STORES = {"ca/acme": ROOT.certificate}
PAST = {"start_s": NOW_S - LONG_S, "end_s": NOW_S - LONG_S // 2}


@pytest.fixture
def image(served: Served) -> BuiltImage:
    return served.push("app", "1", image_of(layer(file("a", b"a"))))


def show(served: Served, *policies: dict[str, object], **options: object) -> Shown:
    directory = served.cache.parent
    return served.show(policy=str(write_trust_policy(directory, STORES, *policies, **options)))  # type: ignore[arg-type]


def signed(served: Served, image: BuiltImage, signer: Holder | None = None, **how: object) -> Artifact:
    about = how.pop("about", image.digest)
    return refer(served.registry, "app", image.digest, notation_signature(signer or holder(), about, **how))  # type: ignore[arg-type]


def info(shown: Shown) -> list[str]:
    return shown.read("app/1/referrers/signatures/1.info").decode().splitlines()


def refused(shown: Shown, words: str) -> None:
    with pytest.raises(AccessDenied, match=words):
        shown.find("app/1/rootfs")


@pytest.mark.parametrize("kind", ["P-256", "P-384", "RSA2048"])
def test_a_signer_whom_the_trust_policy_names_is_accepted_whatever_the_key(
    served: Served, image: BuiltImage, kind: str
) -> None:
    signed(served, image, holder(kind=kind))
    shown = show(served)
    assert shown.read("app/1/rootfs/a") == b"a"
    found = info(shown)
    assert found[-1] == f"verified: by O=acme,ST=WA,C=US, as ours in {served.cache.parent / 'trustpolicy.json'} wants"
    assert "signed: 2026-09-21T14:13:20Z" in found


WRONG: list[tuple[dict[str, object], str]] = [
    ({"about": Digest.of(b"another")}, "it is of sha256:"),
    ({"by": key_of("P-384")}, "another length"),
    ({"by": ROOT.key}, "the key of its certificate has not made it"),
    ({"alg": "ES384"}, "its algorithm is 'ES384', its key stands for ES256"),
    ({"alg": "none"}, "its algorithm is 'none'"),
    ({"alg": "HS256"}, "its algorithm is 'HS256'"),
    ({"cty": "text/plain"}, "it signs 'text/plain'"),
    ({"crit": []}, "does not say that its scheme"),
    ({"crit": None}, "does not say that its scheme"),
    (
        {"crit": ["io.cncf.notary.signingScheme", "io.cncf.notary.verificationPlugin"], "verificationPlugin": "x"},
        "verificationPlugin' to be understood",
    ),
    ({"expiry": "2020-01-01T00:00:00Z"}, "does not say that its scheme"),
    ({"signingScheme": "notary.x510"}, "its scheme is"),
    ({"authenticSigningTime": "2026-01-01T00:00:00Z"}, "does not say|not the one of its scheme"),
    ({"header": {"x5c": []}}, "it has no certificate"),
    ({"header": {"x5c": ["AAAA"]}}, "cannot be read"),
    ({"signer": holder("mallory")}, "its signer is O=mallory,ST=WA,C=US, whom the policy does not name"),
    ({"signer": holder(by=root_of("evil root"))}, "not a chain that ends in a root"),
    ({"signer": holder(by=root_of("evil root")), "root": root_of("evil root")}, "is in no trust store of the policy"),
    ({"signer": holder(**PAST)}, "is valid from 2007.*to.*not at"),  # type: ignore[arg-type]
    ({"signer": holder(start_s=NOW_S + LONG_S - 1)}, "is valid from 2047"),
    ({"signer": holder(usage=ExtendedKeyUsageOID.SERVER_AUTH)}, "not for signing code"),
    ({"signer": holder(ca=True)}, "not for signatures alone"),
    ({"signer": holder(crl="http://crl.example.org/ca.crl")}, "override .revocation. with"),
]  # fmt: skip


@pytest.mark.parametrize("trap", range(len(WRONG)), ids=lambda trap: WRONG[trap][1][:40])
def test_wrong_signatures_do_not_count(served: Served, image: BuiltImage, trap: int) -> None:
    how, words = dict(WRONG[trap][0]), WRONG[trap][1]
    signed(served, image, how.pop("signer", None), **how)  # type: ignore[arg-type]
    refused(show(served), words)


MIDDLE, ENDED = holder("between", ca=True), holder("between", ca=True, **PAST)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("signer", "between", "words"),
    [
        (holder(by=MIDDLE), MIDDLE, ""),
        (holder(by=ENDED), ENDED, "is valid from 2007"),
        (holder(by=MIDDLE), holder("another", ca=True), "not a chain that ends in a root"),
        (holder(by=MIDDLE), None, "not a chain that ends in a root"),
        (holder(by=holder("leaf")), holder("leaf"), "O=leaf,ST=WA,C=US is not an authority"),
    ],
)
def test_a_chain_of_three_counts_in_its_order_and_with_valid_authorities_alone(
    served: Served, image: BuiltImage, signer: Holder, between: Holder | None, words: str
) -> None:
    signed(served, image, signer, between=between)
    if words:
        refused(show(served), words)
    else:
        assert show(served).read("app/1/rootfs/a") == b"a"


def test_an_expired_signature_is_refused_by_strict_and_passes_where_expiry_is_logged(
    served: Served, image: BuiltImage
) -> None:
    critical = ["io.cncf.notary.signingScheme", "io.cncf.notary.expiry"]
    signed(served, image, expiry="2020-01-01T00:00:00Z", crit=critical)
    refused(show(served), "it counted until 2020-01-01T00:00:00Z")
    shown = show(served, level="permissive")
    assert shown.read("app/1/rootfs/a") == b"a"
    assert info(shown)[-1].endswith("wants, though it counted until 2020-01-01T00:00:00Z")


def test_revocation_that_the_policy_skips_is_not_looked_at(served: Served, image: BuiltImage) -> None:
    signed(served, image, holder(crl="http://crl.example.org/ca.crl"))
    level = {"level": "strict", "override": {"revocation": "skip"}}
    assert show(served, signatureVerification=level).read("app/1/rootfs/a") == b"a"


def test_audit_shows_unsigned_images_and_says_of_a_stranger_s_signature_that_it_is_not_verified(
    served: Served, image: BuiltImage
) -> None:
    assert show(served, level="audit").read("app/1/rootfs/a") == b"a"
    signed(served, image, holder("mallory"))
    shown = show(served, level="audit")
    shown.app.repositories.refresh()
    assert shown.read("app/1/rootfs/a") == b"a"
    assert "verified: no: its signer is O=mallory" in info(shown)[-1]


def test_audit_refuses_a_signature_that_is_not_whole(served: Served, image: BuiltImage) -> None:
    signed(served, image, by=ROOT.key)
    refused(show(served, level="audit"), "has not made it")


def test_a_time_that_a_signing_authority_vouches_for_decides_for_expired_certificates(
    served: Served, image: BuiltImage
) -> None:
    critical = ["io.cncf.notary.signingScheme", "io.cncf.notary.authenticSigningTime"]
    how = {
        "signingScheme": "notary.x509.signingAuthority", "signingTime": None, "crit": critical,
        "authenticSigningTime": "2010-01-01T00:00:00Z",
    }  # fmt: skip
    signed(served, image, holder(**PAST), **how)  # type: ignore[arg-type]
    refused(show(served), "is in no trust store")  # a CA is no signing authority
    path = write_trust_policy(served.cache.parent, {"signingAuthority/acme": ROOT.certificate})
    assert served.show(policy=str(path)).read("app/1/rootfs/a") == b"a"


def test_the_policy_of_the_repository_decides_before_that_of_all(served: Served, image: BuiltImage) -> None:
    def policy(name: str, scope: str, level: str) -> dict[str, object]:
        return {
            "name": name, "registryScopes": [scope], "signatureVerification": {"level": level},
            "trustStores": ["ca:acme"], "trustedIdentities": ["*"],
        }  # fmt: skip

    app = f"{served.server.address}/app"
    assert show(served, policy("a", "*", "strict"), policy("b", app, "skip")).read("app/1/rootfs/a") == b"a"
    refused(show(served, policy("a", "registry.example/other", "skip")), f"no trust policy has {app} in its registry")
    refused(show(served, policy("a", "*", "strict")), "there is none")


def test_a_cose_envelope_is_refused_by_name(served: Served, image: BuiltImage) -> None:
    built = artifact_of(blob(b"\xd2\x84", "application/cose"), kind=NOTARY)
    refer(served.registry, "app", image.digest, built)
    refused(show(served), "COSE envelope, which regfs does not verify: sign with the format jws")


@pytest.mark.parametrize("what", ["no store", "an empty store", "a link", "a linked file", "no certificate"])
def test_a_trust_store_that_cannot_be_used_refuses_and_is_named(served: Served, image: BuiltImage, what: str) -> None:
    signed(served, image)
    shown = show(served)
    store = served.cache.parent / "truststore/x509/ca/acme"
    pem = store / "root.pem"
    content = pem.read_bytes()
    pem.unlink()
    if what == "no certificate":
        pem.write_bytes(b"no certificate")
    elif what == "a linked file":
        (store.parent / "elsewhere").write_bytes(content)
        pem.symlink_to(store.parent / "elsewhere")
    elif what in ("no store", "a link"):
        store.rmdir()
        if what == "a link":
            store.symlink_to("/etc")
    refused(shown, "truststore/x509/ca/acme.*(cannot be read|has no certificate|symbolic link|is not a certificate)")


def test_a_certificate_in_der_in_the_other_directory_is_read(served: Served, image: BuiltImage) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding

    signed(served, image)
    shown = show(served)
    base = served.cache.parent
    (base / "truststore").rename(base / "trust-store")
    (base / "trust-store/x509/ca/acme/root.pem").unlink()
    (base / "trust-store/x509/ca/acme/root.crt").write_bytes(ROOT.certificate.public_bytes(Encoding.DER))
    assert shown.read("app/1/rootfs/a") == b"a"


def test_without_cryptography_a_trust_policy_refuses_and_says_what_to_install(
    served: Served, image: BuiltImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed(served, image)
    monkeypatch.setitem(sys.modules, "cryptography.x509.verification", None)
    refused(show(served), r"pip install 'regfs\[verify\]'")


ENTRY: dict[str, object] = {
    "name": "a", "registryScopes": ["*"], "signatureVerification": {"level": "strict"}, "trustStores": ["ca:acme"],
    "trustedIdentities": ["*"],
}  # fmt: skip


@pytest.mark.parametrize(
    "changed",
    [
        {"more": 1},
        {"name": ""},
        {"registryScopes": []},
        {"registryScopes": ["*", "registry.example/app"]},
        {"registryScopes": ["app"]},
        {"registryScopes": ["registry.example/app:1"]},
        {"signatureVerification": {"level": "lax"}},
        {"signatureVerification": {"level": "skip"}},
        {"signatureVerification": {"level": "strict", "override": {"integrity": "log"}}},
        {"signatureVerification": {"level": "strict", "override": {"expiry": "skip"}}},
        {"signatureVerification": {"level": "strict", "verifyTimestamp": "never"}},
        {"trustStores": []},
        {"trustStores": ["ca:../../etc"]},
        {"trustStores": ["ca:.."]},
        {"trustStores": ["pgp:acme"]},
        {"trustedIdentities": []},
        {"trustedIdentities": ["*", "x509.subject: C=US, ST=WA, O=acme"]},
        {"trustedIdentities": ["acme"]},
        {"trustedIdentities": ["x509.subject: C=US, O=acme"]},
        {"trustedIdentities": ["x509.subject: C=US, C=DE, ST=WA, O=acme"]},
        {"trustedIdentities": ["x509.subject: C=US, ST=WA, O=acme;"]},
        {"trustedIdentities": ["x509.subject: C=US, ST=WA, O=acme", "x509.subject: C=US, ST=WA, O=acme, CN=x"]},
    ],
)
def test_a_trust_policy_that_is_not_understood_is_refused_as_a_whole(
    served: Served, changed: dict[str, object], tmp_path: Path
) -> None:
    path = tmp_path / "trust.json"
    path.write_text(json.dumps({"version": "1.0", "trustPolicies": [ENTRY | changed]}))
    with pytest.raises(InvalidOption, match=r"trust\.json.*--policy none"):
        served.show(policy=str(path))
    path.write_text(json.dumps({"version": "2.0", "trustPolicies": [ENTRY]}))
    with pytest.raises(InvalidOption, match=r"version is not 1\.0"):
        served.show(policy=str(path))
    path.write_text(json.dumps({"version": "1.0", "trustPolicies": [ENTRY, ENTRY | {"name": "b"}]}))
    with pytest.raises(InvalidOption, match="which another policy has"):
        served.show(policy=str(path))


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[TimestampAuthority, TimestampAuthority]:
    directory = tmp_path_factory.mktemp("timestamps")
    return TimestampAuthority(directory / "own"), TimestampAuthority(directory / "stranger")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("right", ""),
        ("of another signature", "its timestamp cannot be verified: Mismatch"),
        ("of a stranger", "its timestamp cannot be verified"),
        ("no bytes of one", "its timestamp cannot be verified"),
        ("none", "is valid from"),
        ("after the end", "is valid from"),
    ],
)
def test_a_timestamp_proves_that_a_certificate_was_valid_when_it_signed(
    served: Served,
    image: BuiltImage,
    authorities: tuple[TimestampAuthority, TimestampAuthority],
    what: str,
    words: str,
) -> None:
    own, stranger = authorities
    now_s = int(time.time())
    make = {"of another signature": lambda _: own.token(b"another"), "of a stranger": stranger.token,
            "no bytes of one": lambda _: b"0", "none": None}.get(what, own.token)  # fmt: skip
    signer = holder(start_s=now_s - 3600, end_s=now_s - 60 if what == "after the end" else now_s + 3600)
    signed(served, image, signer, timestamp=make)
    path = write_trust_policy(served.cache.parent, {**STORES, "tsa/own": own.root})
    policy = parse_notation_policy(path.read_bytes(), str(path))
    repository = served.show().app.repositories.repository(RepositoryName(served.server.address, "app"))
    reason = NotationRules(policy, clock=lambda: now_s + 86_400.0).refusal(repository, image.digest)
    assert words in reason
    assert bool(reason) == bool(words)


def test_without_the_package_a_timestamp_refuses_and_says_what_to_install(
    served: Served, image: BuiltImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed(served, image, timestamp=lambda _: b"token")
    path = write_trust_policy(served.cache.parent, {**STORES, "tsa/own": ROOT.certificate})
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    refused(served.show(policy=str(path)), r"pip install 'regfs\[sigstore\]'")


def test_a_timestamp_need_not_be_looked_at_while_the_certificates_are_valid(served: Served, image: BuiltImage) -> None:
    signed(served, image, timestamp=lambda _: b"token")
    level = {"level": "strict", "verifyTimestamp": "afterCertExpiry"}
    path = write_trust_policy(served.cache.parent, {**STORES, "tsa/own": ROOT.certificate}, signatureVerification=level)
    assert served.show(policy=str(path)).read("app/1/rootfs/a") == b"a"
