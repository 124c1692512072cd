"""--policy: which images may be shown, by containers-policy.json and signatures by keys."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from regfs.errors import AccessDenied, InvalidOption, Offline, RegistryUnavailable
from regfs.model.digest import Digest
from tests.support.artifacts import Artifact
from tests.support.attached import (
    COSIGN_SIGN,
    PROVENANCE,
    attach,
    refer,
    signed_bundle,
    signed_payload,
    statement,
)
from tests.support.fault_server import reply
from tests.support.images import BuiltImage, file, image_of, index_of, layer
from tests.support.keyless import Sigstore
from tests.support.memory_registry import INDEX
from tests.support.served import Served
from tests.support.shown import Shown

KEY, OTHER = generate_private_key(SECP256R1()), generate_private_key(SECP256R1())
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
DATA = base64.b64encode(PEM).decode()
REJECT = {"type": "reject"}
ACCEPT = {"type": "insecureAcceptAnything"}
SIGNED = {"type": "sigstoreSigned", "keyData": DATA, "signedIdentity": {"type": "matchRepository"}}
KEYLESS = Sigstore.make().requirement()
AMD64 = {"platform": {"os": "linux", "architecture": "amd64"}}


def sign(message: bytes) -> bytes:
    return KEY.sign(message, ECDSA(SHA256()))


def sign_otherwise(message: bytes) -> bytes:
    return OTHER.sign(message, ECDSA(SHA256()))


def pushed(served: Served, tag: str = "1", content: bytes = b"a") -> BuiltImage:
    return served.push("app", tag, image_of(layer(file("a", content))))


def show(served: Served, *requirements: object, default: object = ACCEPT, **options: object) -> Shown:
    """Return a tree with a policy that has *requirements* for the repository `app`."""
    policy = served.cache.parent / "policy.json"
    scopes = {f"{served.server.address}/app": list(requirements)} if requirements else {}
    policy.write_text(json.dumps({"default": [default], "transports": {"docker": scopes}}))
    return served.show(policy=str(policy), **options)


def refused(shown: Shown, path: str = "app/1", words: str = "no signature") -> None:
    for below in ("manifest.json", "rootfs", "blobs", "referrers"):
        with pytest.raises(AccessDenied, match=words):
            shown.find(f"{path}/{below}")
    with pytest.raises(AccessDenied, match=words):
        shown.names(path)


def test_what_the_policy_rejects_is_refused_with_the_reason_and_nothing_of_it_is_fetched(served: Served) -> None:
    image = pushed(served)
    shown = show(served, REJECT)
    refused(shown, words=r"policy\.json does not allow it: it is rejected")
    with pytest.raises(AccessDenied):
        shown.find(f"app/{image.digest}/manifest.json")
    assert not [seen for seen in served.server.seen if seen.method == "GET" and "/tags/" not in seen.path]


def test_what_is_cached_is_judged_as_well(served: Served) -> None:
    pushed(served)
    assert served.show().read("app/1/rootfs/a") == b"a"
    refused(show(served, REJECT), words="rejected")
    with pytest.raises(Offline):  # whether it is signed is not known
        show(served, SIGNED, offline=True).find("app/1/rootfs")


def test_the_most_specific_scope_decides(served: Served) -> None:
    pushed(served)
    served.push("team/app", "1", image_of(layer(file("b", b"b"))))
    shown = show(served, ACCEPT, default=REJECT)
    assert shown.read("app/1/rootfs/a") == b"a"
    refused(shown, "team/app/1", "rejected")


@pytest.mark.parametrize(
    ("requirement", "words"),
    [
        ({"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}, "signedBy"),
        ({"type": "sigstoreSigned", "pki": {"caRootsPath": "/ca"}, "signedIdentity": SIGNED["signedIdentity"]}, "pki"),
        ({"type": "sigstoreSigned", "keyData": DATA}, "matchRepoDigestOrExact"),
    ],
)
def test_what_regfs_cannot_judge_is_refused_by_name(served: Served, requirement: object, words: str) -> None:
    pushed(served)
    refused(show(served, requirement), words=words)


@pytest.mark.parametrize("how", ["tag", "bundle"])
def test_an_image_that_is_signed_by_the_key_is_shown_and_an_index_vouches_for_what_it_names(
    served: Served, how: str
) -> None:
    image = pushed(served, "other")
    index = index_of(image.descriptor(**AMD64))
    digest = Digest.parse(served.document("app", "1", index, INDEX))
    shown = show(served, SIGNED)
    refused(shown)
    if how == "tag":
        attach(served.registry, "app", digest, ".sig", in_repository(served, digest))
    else:
        refer(served.registry, "app", digest, signed_bundle(sign, statement(digest, COSIGN_SIGN, {})))
    shown.app.repositories.refresh()
    assert shown.read("app/1/rootfs/a") == b"a"
    assert shown.read("app/1/manifests/linux-amd64/manifest.json") == image.manifest
    assert len(shown.names("app/1/referrers/by-type")) == 1
    info = shown.read("app/1/referrers/signatures/1.info").decode().splitlines()
    assert info[-1] == f"verified: by a key, as {served.cache.parent / 'policy.json'} wants"
    refused(shown, "app/other")  # the manifest alone is not signed


def in_repository(served: Served, digest: Digest, by: Callable[[bytes], bytes] = sign, name: str = "app") -> Artifact:
    return signed_payload(by, digest, reference=f"{served.server.address}/{name}")


def test_wrong_signatures_under_cosign_s_tag_do_not_count(served: Served) -> None:
    image, other = pushed(served), pushed(served, "2", b"b")
    for wrong in (
        in_repository(served, image.digest, sign_otherwise),
        in_repository(served, other.digest),
        in_repository(served, image.digest, name="another"),
    ):
        attach(served.registry, "app", image.digest, ".sig", wrong)
        served.cache = served.cache.with_name(f"cache-{wrong.digest.encoded[:8]}")
        refused(show(served, SIGNED))


@pytest.mark.parametrize("trap", ["another key", "another digest", "a payload type", "an attestation", "100 MB"])
def test_wrong_bundles_do_not_count(served: Served, trap: str) -> None:
    image = pushed(served)
    right = statement(image.digest, COSIGN_SIGN, {})
    built = {
        "another key": signed_bundle(sign_otherwise, right),
        "another digest": signed_bundle(sign, statement(Digest.of(b"other"), COSIGN_SIGN, {})),
        "a payload type": signed_bundle(sign, right, payload_type="application/json"),
        "an attestation": signed_bundle(sign, statement(image.digest, PROVENANCE, {})),
        "100 MB": signed_bundle(sign, right),
    }[trap]
    if trap == "100 MB":
        manifest = json.loads(built.manifest)
        manifest["layers"][0]["size"] = 100 << 20
        object.__setattr__(built, "manifest", json.dumps(manifest).encode())
    refer(served.registry, "app", image.digest, built)
    refused(show(served, SIGNED))


def test_a_signature_behind_too_many_others_is_refused_and_the_reason_says_that_some_were_not_read(
    served: Served,
) -> None:
    image = pushed(served)
    said = statement(image.digest, COSIGN_SIGN, {})
    for number in range(66):
        refer(served.registry, "app", image.digest, signed_bundle(lambda _, n=number: b"%d" % n, said))  # type: ignore[misc]
    refer(served.registry, "app", image.digest, signed_bundle(sign, said))
    refused(show(served, SIGNED), words="3 others were not looked at: there are too many")


def test_a_refusal_of_the_new_image_disturbs_no_one_in_the_old_one(served: Served) -> None:
    image = pushed(served)
    attach(served.registry, "app", image.digest, ".sig", in_repository(served, image.digest))
    shown = show(served, SIGNED, tag_ttl_s=0.0)
    inside = shown.find("app/1/rootfs")
    pushed(served, "1", b"unsigned")
    refused(shown)
    assert shown.tree.lookup(inside.node, b"a").node


@pytest.mark.parametrize(
    ("path", "reason"),
    [("nowhere.pub", "nowhere.pub of the policy cannot be read"), ("policy.json", "is not a public key")],
)
def test_a_key_that_cannot_be_read_refuses_and_is_named(served: Served, path: str, reason: str) -> None:
    pushed(served)
    key = str(served.cache.parent / path)
    refused(
        show(served, {"type": "sigstoreSigned", "keyPath": key, "signedIdentity": {"type": "matchRepository"}}),
        words=reason,
    )


def test_without_cryptography_a_policy_with_keys_refuses_and_says_what_to_install(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed(served)
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    refused(show(served, SIGNED), words=r"pip install 'regfs\[verify\]'")


def test_a_registry_that_does_not_tell_of_signatures_is_an_error_of_its_own(served: Served) -> None:
    pushed(served)
    served.server.on("GET", "/referrers/", reply(503))
    with pytest.raises(RegistryUnavailable):
        show(served, SIGNED).find("app/1/rootfs")


@pytest.mark.parametrize(
    "policy",
    [
        {},
        {"default": []},
        {"default": [{"type": "accept"}]},
        {"default": [REJECT | {"keyPath": "/k"}]},
        {"default": [REJECT], "transport": {}},
        {"default": [SIGNED | {"keyPath": "/k"}]},
        {"default": [SIGNED | {"keyData": "%"}]},
        {"default": [KEYLESS | {"rekorPublicKeyData": None}]},
        {"default": [KEYLESS | {"rekorPublicKeyPath": "/rekor.pub"}]},
        {"default": [KEYLESS | {"fulcio": {"caPath": "/ca", "oidcIssuer": "i"}}]},
        {"default": [KEYLESS | {"fulcio": {"caPath": "/ca", "oidcIssuer": "i", "subjectEmail": "e", "more": 1}}]},
        {"default": [KEYLESS | {"fulcio": {"oidcIssuer": "i", "subjectEmail": "e"}}]},
        {"default": [REJECT], "transports": {"docker": {"docker.io/library/app:1": [ACCEPT]}}},
    ],
)
def test_a_policy_that_is_not_understood_is_refused_as_a_whole(served: Served, policy: object, tmp_path: Path) -> None:
    path = tmp_path / "strict.json"
    path.write_text(json.dumps(policy))
    with pytest.raises(InvalidOption, match=r"strict\.json.*--policy none"):
        served.show(policy=str(path))


def test_a_policy_that_is_not_there_is_an_error_and_none_shows_all(served: Served, tmp_path: Path) -> None:
    pushed(served)
    with pytest.raises(InvalidOption, match="nowhere"):
        served.show(policy=str(tmp_path / "nowhere.json"))
    assert served.show(policy="none").read("app/1/rootfs/a") == b"a"


def test_an_unsigned_image_that_says_it_refers_to_a_signed_one_shows_no_files(served: Served) -> None:
    image = pushed(served)
    attach(served.registry, "app", image.digest, ".sig", in_repository(served, image.digest))
    unsigned = pushed(served, "evil", b"evil")
    built = Artifact(unsigned.manifest, unsigned.config, ())
    referrer = refer(served.registry, "app", image.digest, built, kind="application/vnd.example")
    below = f"app/1/referrers/by-type/application_vnd.example/{referrer.digest}"
    assert served.show().read(f"{below}/rootfs/a") == b"evil"
    shown = show(served, SIGNED)
    assert shown.read(f"{below}/manifest.json") == referrer.manifest
    for part in ("rootfs", "layers", "oci", "packages", "blobs"):
        with pytest.raises(AccessDenied, match="no signature"):
            shown.find(f"{below}/{part}")
    copied = set(shown.names("app/1/oci/blobs/sha256"))
    assert copied.isdisjoint(digest.encoded for digest in (referrer.digest, *unsigned.blobs()))
    assert image.digest.encoded in copied


def test_the_words_of_a_stranger_s_signature_are_told_without_control_characters(served: Served) -> None:
    image = pushed(served)
    subject = [{"name": "app", "digest": {"sha256": "\x1b[2J\nall is well"}}]
    wrong = json.loads(statement(image.digest, COSIGN_SIGN, {})) | {"subject": subject}
    refer(served.registry, "app", image.digest, signed_bundle(sign, json.dumps(wrong).encode()))
    with pytest.raises(AccessDenied) as refusal:
        show(served, SIGNED).find("app/1/rootfs")
    assert "it is of sha256:?[2J?all is well" in str(refusal.value)
