"""--policy with signers of Fulcio's: certificates that were valid when the log heard of a signature."""

from __future__ import annotations

import base64
import json
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from regfs.errors import AccessDenied
from regfs.model.digest import Digest
from tests.support.artifacts import Artifact, artifact_of, blob
from tests.support.attached import (
    BUNDLE,
    COSIGN_SIGN,
    IN_TOTO,
    PROVENANCE,
    attach,
    encoded,
    refer,
    signed_payload,
    statement,
)
from tests.support.fulcio import EMAIL, ISSUER, SIGNED_S, Authority, new_key, pem_of, signed, spki
from tests.support.images import BuiltImage, file, image_of, layer
from tests.support.keyless import Sigstore, key_entry
from tests.support.served import Served
from tests.support.shown import Shown
from tests.support.timestamps import TimestampAuthority

OWN, OTHERS = Sigstore.make(), Sigstore.make("another")
VALID_NOW = Sigstore.make("now", valid_at_s=int(time.time()))
EXPIRED = Authority.make("expired", by=OWN.root, at_s=SIGNED_S - 100 * 86_400)
OTHER_DIGEST = Digest.of(b"another image")


@pytest.fixture
def image(served: Served) -> BuiltImage:
    return served.push("app", "1", image_of(layer(file("a", b"a"))))


def show(served: Served, requirement: object, trusted_root: object = None) -> Shown:
    policy, root = served.cache.parent / "policy.json", served.cache.parent / "trusted_root.json"
    scope = {f"{served.server.address}/app": [requirement]}
    policy.write_text(json.dumps({"default": [{"type": "reject"}], "transports": {"docker": scope}}))
    if trusted_root is not None:
        root.write_text(json.dumps(trusted_root))
    return served.show(policy=str(policy), trusted_root="" if trusted_root is None else str(root))


def refused(shown: Shown, words: str) -> None:
    with pytest.raises(AccessDenied, match=words):
        shown.find("app/1/rootfs")


def tagged(served: Served, digest: Digest, service: Sigstore = OWN, **how: object) -> Artifact:
    options = {"signer": service.signer(), "reference": f"{served.server.address}/app"} | how
    return service.payload(options.pop("signer"), options.pop("about", digest), **options)  # type: ignore[arg-type]


def bundled(digest: Digest, service: Sigstore = OWN, predicate: str = COSIGN_SIGN, **how: object) -> Artifact:
    payload = statement(digest, predicate, {})
    return service.bundle(how.pop("signer", None) or service.signer(), payload, **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["tag", "bundle", "bundle by the trusted root"])
def test_the_signer_whom_the_policy_names_is_accepted_though_the_certificate_ran_out_long_ago(
    served: Served, image: BuiltImage, how: str
) -> None:
    if how == "tag":
        attach(served.registry, "app", image.digest, ".sig", tagged(served, image.digest))
    else:
        refer(served.registry, "app", image.digest, bundled(image.digest))
    by_root = "root" in how
    shown = show(served, OWN.requirement(), OWN.trusted_root() if by_root else None)
    assert shown.read("app/1/rootfs/a") == b"a"
    info = shown.read("app/1/referrers/signatures/1.info").decode().splitlines()
    proof = "by the trusted root" if by_root else "logged 2026-09-21T14:13:20Z"
    assert (
        info[-1] == f"verified: by {EMAIL} (issuer {ISSUER}), {proof}, as {served.cache.parent / 'policy.json'} wants"
    )
    assert f"signer: {EMAIL} (issuer {ISSUER})" in info


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"about": OTHER_DIGEST}, "it is of sha256:"),
        ({"reference": "registry.example/another"}, "for the repository"),
        ({"signer": OWN.signer("mallory@example.org")}, f"its signer is mallory@example.org, not {EMAIL}"),
        ({"signer": OWN.signer(issuer="https://evil.example.org")}, "vouched for by 'https://evil.example.org'"),
        ({"signer": OWN.signer(at_s=SIGNED_S - 7200)}, "not one that an authority of the policy has issued for 2026"),
        ({"signer": OWN.signer(at_s=SIGNED_S + 1)}, "not one that an authority of the policy has issued for 2026"),
        ({"signer": OWN.signer(usage=ExtendedKeyUsageOID.SERVER_AUTH)}, "not for signing code"),
        ({"signer": OWN.signer(by=OTHERS.fulcio)}, "not one that an authority of the policy has issued"),
        (
            {"signer": OWN.signer(by=EXPIRED), "chain": pem_of(EXPIRED.certificate).decode()},
            "not one that an authority",
        ),
        ({"service": OTHERS}, "not one of the log that the policy names"),
        ({"by": OWN.signer()}, "its certificate has not made it"),
        ({"certificate": ""}, "a key has signed it, and the policy wants a certificate"),
        ({"bundle": ""}, "no log has promised to keep it"),
        ({"bundle": "{}"}, "its entry in the log has no Payload"),
        ({"certificate": "-----BEGIN CERTIFICATE-----"}, "not in PEM"),
        ({"certificate": pem_of(OWN.signer().certificate).decode()}, "about another signature"),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else "",
)
def test_wrong_signatures_under_cosign_s_tag_do_not_count(
    served: Served, image: BuiltImage, how: dict[str, object], words: str
) -> None:
    attach(served.registry, "app", image.digest, ".sig", tagged(served, image.digest, **how))  # type: ignore[arg-type]
    refused(show(served, OWN.requirement()), words)


BUNDLES: list[tuple[Callable[[Digest], Artifact], str, str]] = [
    (lambda digest: bundled(OTHER_DIGEST), "it is of sha256:", "it is of sha256:"),
    (lambda digest: bundled(digest, predicate=PROVENANCE), "it is an attestation", "it is an attestation"),
    (lambda digest: bundled(digest, payload_type="text/plain"), "it signs 'text/plain'", "it signs 'text/plain'"),
    (lambda digest: bundled(digest, signer=OWN.signer("m@example.org")), "is m@example.org, not", "SANs do not match"),
    (lambda digest: bundled(digest, signer=OWN.signer(issuer="https://evil")), "vouched for by", "Issuer"),
    (lambda digest: bundled(digest, signer=OWN.signer(at_s=SIGNED_S - 7200)), "issued for 2026", "valid at"),
    (lambda digest: bundled(digest, signer=OWN.signer(by=OTHERS.fulcio)), "not one that an authority", "chain"),
    (lambda digest: bundled(digest, service=OTHERS), "not one of the log", "chain"),
    (lambda digest: bundled(digest, by=OWN.signer()), "has not made it", "[Ss]ignature"),
    (lambda digest: bundled(digest, logged=b"another"), "about another signature", "payload hash"),
    (lambda digest: bundled(digest, promised=False), "--trusted-root", "inclusion promise"),
]  # fmt: skip


@pytest.mark.parametrize("by_root", [False, True], ids=["keys", "root"])
@pytest.mark.parametrize("trap", range(len(BUNDLES)))
def test_wrong_bundles_do_not_count(served: Served, image: BuiltImage, trap: int, *, by_root: bool) -> None:
    make, by_keys, words = BUNDLES[trap]
    refer(served.registry, "app", image.digest, make(image.digest))
    refused(show(served, OWN.requirement(), OWN.trusted_root() if by_root else None), words if by_root else by_keys)


def test_a_bundle_of_100_mb_is_not_fetched(served: Served, image: BuiltImage) -> None:
    built = bundled(image.digest)
    manifest = json.loads(built.manifest)
    manifest["layers"][0]["size"] = 100 << 20
    big = Artifact(json.dumps(manifest).encode(), built.config, built.blobs)
    refer(served.registry, "app", image.digest, big)
    refused(show(served, OWN.requirement(), OWN.trusted_root()), "104857600 bytes")
    assert not [seen for seen in served.server.seen if str(built.blobs[0].digest) in seen.path]


@pytest.mark.parametrize("is_logged", [True, False])
def test_a_key_s_signature_counts_where_the_log_that_the_policy_names_has_promised_to_keep_it(
    served: Served, image: BuiltImage, *, is_logged: bool
) -> None:
    key = new_key()
    payload = signed_payload(
        lambda message: signed(key, message), image.digest, reference=f"{served.server.address}/app"
    ).blobs[0]
    signature = base64.b64decode(payload.annotations["dev.cosignproject.cosign/signature"])
    entry = key_entry(OWN if is_logged else OTHERS, key, payload.content, signature)
    logged = blob(payload.content, payload.media_type, {**payload.annotations, "dev.sigstore.cosign/bundle": entry})
    attach(served.registry, "app", image.digest, ".sig", artifact_of(logged))
    requirement = OWN.requirement() | {"keyData": encoded(spki(key.public_key(), Encoding.PEM))}
    del requirement["fulcio"]
    shown = show(served, requirement)
    if is_logged:
        assert shown.read("app/1/rootfs/a") == b"a"
    else:
        refused(shown, "not one of the log")


def test_without_the_package_sigstore_a_trusted_root_refuses_and_says_what_to_install(
    served: Served, image: BuiltImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    refer(served.registry, "app", image.digest, bundled(image.digest))
    monkeypatch.setitem(sys.modules, "sigstore.models", None)
    refused(show(served, OWN.requirement(), OWN.trusted_root()), r"pip install 'regfs\[sigstore\]'")


@pytest.mark.parametrize(
    ("root", "words"),
    [
        (OTHERS.trusted_root(), "has none of the certificates that the policy has for Fulcio"),
        ({}, "has none of the certificates"),
        (OWN.trusted_root() | {"tlogs": []}, "is not a trusted_root.json: .*no transparency log"),
        (OWN.trusted_root() | {"tlogs": 5}, "is not a trusted_root.json"),
        ([], "is not a trusted_root.json: the document is not a JSON object"),
    ],
)
def test_a_trusted_root_that_is_of_no_use_refuses_and_is_named(
    served: Served, image: BuiltImage, root: object, words: str
) -> None:
    refer(served.registry, "app", image.digest, bundled(image.digest))
    refused(show(served, OWN.requirement(), root), f"trusted_root.json {words}|{words}")


def test_files_of_a_policy_are_read_once_and_one_that_is_missing_refuses(
    served: Served, image: BuiltImage, tmp_path: Path
) -> None:
    requirement = OWN.requirement()
    authority = tmp_path / "fulcio.pem"
    requirement["fulcio"] = {"caPath": str(authority), "oidcIssuer": ISSUER, "subjectEmail": EMAIL}
    attach(served.registry, "app", image.digest, ".sig", tagged(served, image.digest))
    refused(show(served, requirement), "fulcio.pem of the policy cannot be read: No such file")
    authority.write_bytes(pem_of(OWN.root.certificate))  # the chain is in the signature
    shown = show(served, requirement)
    assert shown.read("app/1/rootfs/a") == b"a"


def test_sigstore_s_services_are_never_asked(
    served: Served, image: BuiltImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    connect = socket.socket.connect

    def watched(self: socket.socket, address: object) -> None:
        asked.append(address)
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", watched)
    refer(served.registry, "app", image.digest, bundled(image.digest))
    assert show(served, OWN.requirement(), OWN.trusted_root()).read("app/1/rootfs/a") == b"a"
    assert {address[1] for address in asked if isinstance(address, tuple)} <= {
        int(served.server.address.rpartition(":")[2])
    }


def test_a_bundle_in_which_two_readers_find_two_envelopes_is_refused(served: Served, image: BuiltImage) -> None:
    other, forged = (json.loads(bundled(each).blobs[0].content) for each in (OTHER_DIGEST, image.digest))
    other["dsse_envelope"] = other["dsseEnvelope"]
    other["dsseEnvelope"] = forged["dsseEnvelope"]
    for order in (other, dict(reversed(other.items()))):
        served.cache = served.cache.with_name(f"cache-{next(iter(order))}")
        built = artifact_of(blob(json.dumps(order).encode(), BUNDLE), kind=BUNDLE)
        refer(served.registry, "app", image.digest, built)
        refused(show(served, OWN.requirement(), OWN.trusted_root()), "two envelopes|does not verify|cannot be read")


def test_the_info_of_an_attestation_says_that_it_is_verified_though_it_lets_no_image_be_used(
    served: Served, image: BuiltImage
) -> None:
    attach(served.registry, "app", image.digest, ".sig", tagged(served, image.digest))
    refer(served.registry, "app", image.digest, bundled(image.digest, predicate=PROVENANCE))
    unsigned = statement(image.digest, PROVENANCE, {})
    refer(served.registry, "app", image.digest, artifact_of(blob(unsigned, IN_TOTO), kind=IN_TOTO))
    shown = show(served, OWN.requirement())
    found = [
        shown.read(f"app/1/referrers/attestations/{name}").decode().splitlines()[-1]
        for name in shown.names("app/1/referrers/attestations")
        if name.endswith(".info")
    ]
    policy = served.cache.parent / "policy.json"
    assert sorted(found) == [
        f"verified: by {EMAIL} (issuer {ISSUER}), logged 2026-09-21T14:13:20Z, as {policy} wants",
        "verified: no: it is not signed",
    ]


@pytest.mark.parametrize("what", ["right", "no timestamp", "by the keys", "of a stranger", "an old certificate"])
def test_a_bundle_of_rekor_2_counts_by_its_timestamp(
    served: Served, image: BuiltImage, tmp_path: Path, what: str
) -> None:
    own = TimestampAuthority(tmp_path / "own")
    stranger = TimestampAuthority(tmp_path / "stranger") if what == "of a stranger" else own
    signer = VALID_NOW.signer(at_s=int(time.time()) - (3600 if what == "an old certificate" else 60))
    token = None if what == "no timestamp" else stranger.token
    payload = statement(image.digest, COSIGN_SIGN, {})
    refer(served.registry, "app", image.digest, VALID_NOW.stamped_bundle(signer, payload, token=token))
    root = None if what == "by the keys" else VALID_NOW.trusted_root(*own.chain)
    shown = show(served, VALID_NOW.requirement(), root)
    words = {
        "no timestamp": "inclusion promise or signed timestamp", "by the keys": "--trusted-root FILE",
        "of a stranger": "not enough sources of verified time", "an old certificate": "valid at|expired",
    }  # fmt: skip
    if what == "right":
        assert shown.read("app/1/rootfs/a") == b"a"
    else:
        refused(shown, words[what])
