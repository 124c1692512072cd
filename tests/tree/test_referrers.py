"""referrers/: what refers to an image, from all places where tools leave it, and what asking for it costs."""

from __future__ import annotations

import json

import pytest

from regfs.errors import NotFound, ProtocolViolation, RegistryUnavailable
from regfs.model.digest import Digest
from tests.support.artifacts import artifact_of, blob
from tests.support.attached import (
    BUNDLE,
    COSIGN_SIGN,
    DSSE,
    ISSUER,
    PROVENANCE,
    SIGNED,
    SIGNER,
    SPDX,
    attach,
    attestation_entry,
    attestation_manifest,
    bundle,
    described,
    dsse,
    notary,
    refer,
    simple_signing,
    statement,
)
from tests.support.fault_server import reply
from tests.support.images import OCI, BuiltImage, file, image_of, index_of, layer
from tests.support.memory_registry import INDEX, MANIFEST
from tests.support.served import Served
from tests.support.shown import Shown

AMD64 = {"platform": {"os": "linux", "architecture": "amd64"}}
PREDICATE = {"spdxVersion": "SPDX-2.3", "packages": [{"name": "a"}, {"name": '}]"\\'}], "n": 1.10}
BY_TYPE = "app/1/referrers/by-type"
BUNDLES = BUNDLE.replace("/", "_")


def pushed(served: Served) -> BuiltImage:
    return served.push("app", "1", image_of(layer(file("a"))))


def asked(served: Served) -> list[str]:
    """Return what was asked for, as method and kind."""
    return [f"{seen.method} {seen.path.split('/')[-2]}" for seen in served.server.seen]


def facts(shown: Shown, path: str) -> list[str]:
    return shown.read(path).decode().splitlines()


def digests_in(shown: Shown, path: str = BY_TYPE) -> list[str]:
    return [name for kind in shown.names(path) for name in shown.names(f"{path}/{kind}")]


def test_listing_referrers_asks_for_nothing_but_the_image(served: Served) -> None:
    image = pushed(served)
    refer(served.registry, "app", image.digest, bundle(statement(image.digest, COSIGN_SIGN, {}), COSIGN_SIGN))
    shown = served.show()
    assert shown.names("app/1/referrers") == ["by-type", "signatures", "attestations", "sbom"]
    for name in shown.names("app/1/referrers"):
        shown.attributes(f"app/1/referrers/{name}")
    assert len(asked(served)) <= 3


def test_a_list_of_referrers_costs_one_request_and_none_again(served: Served) -> None:
    image = pushed(served)
    refer(served.registry, "app", image.digest, bundle(statement(image.digest, COSIGN_SIGN, {}), COSIGN_SIGN))
    shown = served.show()
    shown.names("app/1")
    before = len(asked(served))
    assert shown.names(BY_TYPE) == [BUNDLES]
    assert len(shown.names(f"{BY_TYPE}/{BUNDLES}")) == 1
    assert asked(served)[before:] == ["GET referrers"]
    again = served.show(offline=True)
    assert again.names(BY_TYPE) == [BUNDLES]


def test_each_manifest_by_type_is_a_directory_like_the_image_s(served: Served) -> None:
    image = pushed(served)
    built = refer(served.registry, "app", image.digest, bundle(statement(image.digest, SPDX, PREDICATE), SPDX))
    shown = served.show()
    path = f"{BY_TYPE}/{BUNDLES}/{built.digest}"
    assert shown.read(f"{path}/manifest.json") == built.manifest
    assert shown.read(f"{path}/blobs/{built.blobs[0].digest}") == built.blobs[0].content
    assert "referrers" not in shown.names(path)
    with pytest.raises(NotFound):
        shown.find(f"{path}/referrers")


def test_a_signature_in_a_bundle_says_who_signed_and_that_nobody_verified_it(served: Served) -> None:
    image = pushed(served)
    signed = statement(image.digest, COSIGN_SIGN, {})
    built = refer(served.registry, "app", image.digest, bundle(signed, COSIGN_SIGN, created=SIGNED))
    shown = served.show()
    assert shown.names("app/1/referrers/signatures") == ["1.json", "1.raw", "1.info"]
    assert shown.attributes("app/1/referrers/signatures/1.raw").size == len(built.blobs[0].content)
    assert not [line for line in asked(served) if "blobs" in line]
    assert shown.read("app/1/referrers/signatures/1.json") == signed
    assert shown.read("app/1/referrers/signatures/1.raw") == built.blobs[0].content
    assert facts(shown, "app/1/referrers/signatures/1.info") == [
        "form: sigstore bundle",
        f"predicate: {COSIGN_SIGN}",
        f"says it is about: {image.digest}",
        f"signer: {SIGNER} (issuer {ISSUER})",
        f"signed: {SIGNED}",
        f"created: {SIGNED}",
        f"refers to: {image.digest}",
        f"manifest: {built.digest}, found by the registry's list of referrers",
        f"blob: {built.blobs[0].digest} ({BUNDLE})",
        "verified: no: there is no policy that names signers",
    ]


def test_an_sbom_in_a_statement_is_its_predicate_alone_byte_for_byte(served: Served) -> None:
    image = pushed(served)
    signed = statement(image.digest, SPDX, PREDICATE)
    refer(served.registry, "app", image.digest, bundle(signed, SPDX))
    shown = served.show()
    assert shown.names("app/1/referrers/signatures") == []
    assert shown.names("app/1/referrers/attestations") == ["spdx-1.json", "spdx-1.raw", "spdx-1.info"]
    assert shown.read("app/1/referrers/attestations/spdx-1.json") == signed
    predicate = shown.read("app/1/referrers/sbom/spdx-1.json")
    assert json.loads(predicate) == PREDICATE
    assert predicate in signed


def test_cosign_s_tags_are_found_without_a_request_for_each(served: Served) -> None:
    image = pushed(served)
    bundled = json.dumps({"Payload": {"integratedTime": 1_790_000_000}})
    signature = simple_signing(image.digest, **{"dev.sigstore.cosign/bundle": bundled})
    config = {"config": b"{}", "config_type": f"{OCI}.config.v1+json"}
    attach(served.registry, "app", image.digest, ".sig", artifact_of(signature, **config))  # type: ignore[arg-type]
    envelope = json.dumps(dsse(statement(image.digest, PROVENANCE, {"a": 1}), key="k")).encode()
    attached = blob(envelope, DSSE, {"predicateType": PROVENANCE})
    attach(served.registry, "app", image.digest, ".att", artifact_of(attached, **config))  # type: ignore[arg-type]
    sbom = artifact_of(blob(b"SPDXVersion: SPDX-2.2", "text/spdx"), **config)  # type: ignore[arg-type]
    attach(served.registry, "app", image.digest, ".sbom", sbom)
    shown = served.show()
    assert shown.names("app") == ["1"]
    assert shown.names("app/1/referrers/signatures") == ["1.json", "1.raw", "1.info"]
    assert asked(served).count("GET tags") == 1
    assert json.loads(shown.read("app/1/referrers/signatures/1.json"))["critical"]["image"] == {
        "docker-manifest-digest": str(image.digest)
    }
    info = facts(shown, "app/1/referrers/signatures/1.info")
    assert info[:4] == [
        "form: cosign signature", f"says it is about: {image.digest}", "signer: a key that is not named",
        f"signed: {SIGNED}",
    ]  # fmt: skip
    assert f"the tag sha256-{image.digest.encoded}.sig" in info[5]
    assert json.loads(shown.read("app/1/referrers/attestations/provenance-1.json"))["predicate"] == {"a": 1}
    assert "signer: key 'k'" in facts(shown, "app/1/referrers/attestations/provenance-1.info")
    assert shown.read("app/1/referrers/sbom/spdx-1.spdx") == b"SPDXVersion: SPDX-2.2"
    assert shown.attributes("app/1/referrers/sbom/spdx-1.spdx").size == 21
    assert "form: text/spdx, not signed" in facts(shown, "app/1/referrers/sbom/spdx-1.info")


@pytest.mark.parametrize("new", [False, True])
def test_buildkit_s_attestations_and_what_signs_them_are_those_of_their_platform(served: Served, *, new: bool) -> None:
    image = served.push("app", "amd64", image_of(layer(file("a"))))
    other = served.push("app", "arm64", image_of(layer(file("b")), architecture="arm64"))
    subject = image.descriptor() if new else None
    statements = [statement(image.digest, SPDX, PREDICATE), statement(image.digest, PROVENANCE, {})]
    built = attestation_manifest(*statements, subject=subject)
    for each in (built.config, *(one.content for one in built.blobs)):
        served.registry.add_blob("app", each)
    served.registry.add_manifest("app", built.manifest)
    if new:  # the registry lists what the index names too
        kind = json.loads(built.manifest)["artifactType"]
        entries = served.registry.repository("app").referrers.setdefault(str(image.digest), [])
        entries.append(described(built) | {"artifactType": kind})
    index = index_of(
        image.descriptor(**AMD64), other.descriptor(platform={"os": "linux", "architecture": "arm64"}),
        attestation_entry(built, image.digest),
    )  # fmt: skip
    served.document("app", "1", index, INDEX)
    signature = bundle(statement(built.digest, COSIGN_SIGN, {}), COSIGN_SIGN)
    signed = refer(served.registry, "app", built.digest, signature)
    shown = served.show()
    expected = {str(built.digest), str(signed.digest)}
    assert sorted(digests_in(shown)) == sorted(expected)
    assert set(digests_in(shown, "app/1/manifests/linux-amd64/referrers/by-type")) == expected
    assert digests_in(shown, "app/1/manifests/linux-arm64/referrers/by-type") == []
    assert json.loads(shown.read("app/1/referrers/sbom/spdx-1.json")) == PREDICATE
    attestations = shown.names("app/1/referrers/attestations")
    assert {"spdx-1.json", "provenance-1.json"} <= set(attestations)
    info = facts(shown, "app/1/referrers/attestations/provenance-1.info")
    assert info[0] == "form: in-toto statement, not signed"
    assert f"refers to: {built.digest}" in facts(shown, "app/1/referrers/signatures/1.info")


def test_a_signature_by_notation_is_decoded(served: Served) -> None:
    image = pushed(served)
    refer(served.registry, "app", image.digest, notary(image.digest))
    shown = served.show()
    assert json.loads(shown.read("app/1/referrers/signatures/1.json"))["targetArtifact"]["size"] == 7
    info = facts(shown, "app/1/referrers/signatures/1.info")
    assert info[0] == "form: Notary signature"
    assert {f"says it is about: {image.digest}", f"signed: {SIGNED}"} <= set(info)


def test_a_signature_of_another_digest_says_so(served: Served) -> None:
    image, other = pushed(served), Digest.of(b"other")
    refer(served.registry, "app", image.digest, bundle(statement(other, COSIGN_SIGN, {}), COSIGN_SIGN))
    info = facts(served.show(), "app/1/referrers/signatures/1.info")
    assert f"says it is about: {other}, which is another manifest" in info


def test_a_manifest_that_is_listed_for_the_wrong_image_is_left_out_and_told(served: Served) -> None:
    image, other = pushed(served), Digest.of(b"other")
    signature = bundle(statement(image.digest, COSIGN_SIGN, {}), COSIGN_SIGN)
    wrong = refer(served.registry, "app", other, signature, listed_for=image.digest)
    shown = served.show()
    assert shown.names("app/1/referrers/signatures") == []
    assert "which it does not name" in shown.journal.text()
    with pytest.raises(ProtocolViolation):
        shown.find(f"{BY_TYPE}/{BUNDLES}/{wrong.digest}")


def test_referrers_beyond_the_first_thousand_are_told_and_not_left_out_in_silence(served: Served) -> None:
    image = pushed(served)
    listed = served.registry.repository("app").referrers.setdefault(str(image.digest), [])
    for number in range(1500):
        digest = str(Digest.of(b"%d" % number))
        listed.append({"mediaType": MANIFEST, "digest": digest, "size": 7, "artifactType": BUNDLE})
    shown = served.show()
    assert len(shown.names(f"{BY_TYPE}/{BUNDLES}")) == 1000
    assert "more than 1000 manifests refer to it" in shown.journal.text()


def test_referrers_that_the_registry_lacks_do_not_crowd_other_failures_out_of_the_errors(served: Served) -> None:
    image = pushed(served)
    listed = served.registry.repository("app").referrers.setdefault(str(image.digest), [])
    for number in range(900):
        digest = str(Digest.of(b"%d" % number))
        listed.append({"mediaType": MANIFEST, "digest": digest, "size": 7, "artifactType": BUNDLE})
    shown = served.show()
    shown.journal.note("another failure")
    assert shown.names("app/1/referrers/signatures") == []
    assert "index.json" in shown.names("app/1/oci")
    assert shown.read("app/1/oci/index.json")
    told = shown.journal.text()
    assert "another failure" in told
    assert "of 197 more manifests each is left out of referrers/" in told
    assert "more manifests each is left out of oci/" in told
    assert len(told.splitlines()) < 12
    assert len(served.server.paths("manifests/")) < 500


def test_thousands_of_attestations_that_an_index_names_cost_no_request_each(served: Served) -> None:
    image = pushed(served)
    entries = [image.descriptor(**AMD64)]
    for number in range(1500):
        said = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": str(image.digest)}
        entries.append(
            {"mediaType": MANIFEST, "digest": str(Digest.of(b"%d" % number)), "size": 3, "annotations": said}
        )
    served.document("app", "many", index_of(*entries), INDEX)
    shown = served.show()
    assert len(shown.names("app/many/referrers/by-type/unknown")) == 1000
    told = shown.journal.text()
    assert "1300 manifests that refer to it are in by-type/unknown" in told
    assert "of 197 more manifests each refers to it, and cannot be read" in told
    assert len(told.splitlines()) < 10
    assert len(served.server.paths("manifests/")) < 220


def test_a_registry_that_fails_is_an_error_and_no_empty_listing(served: Served) -> None:
    pushed(served)
    served.server.on("GET", "/referrers/", reply(503))
    shown = served.show()
    for name in ("by-type", "signatures", "attestations", "sbom"):
        with pytest.raises(RegistryUnavailable):
            shown.names(f"app/1/referrers/{name}")


def test_a_registry_without_the_api_is_asked_for_it_once_and_then_for_the_tag(served: Served) -> None:
    image, other = pushed(served), served.push("app", "2", image_of(layer(file("b"))))
    served.server.on("GET", "/referrers/", reply(404))
    built = refer(served.registry, "app", image.digest, bundle(statement(image.digest, SPDX, PREDICATE), SPDX))
    entry = described(built) | {"artifactType": BUNDLE}
    served.document("app", f"sha256-{image.digest.encoded}", index_of(entry), INDEX)
    shown = served.show()
    assert digests_in(shown) == [str(built.digest)]
    assert digests_in(shown, "app/2/referrers/by-type") == []
    assert asked(served).count("GET referrers") == 1
    tags = [f"/v2/app/manifests/sha256-{each.digest.encoded}" for each in (image, other)]
    assert [seen.path for seen in served.server.seen if "manifests/sha256-" in seen.path] == tags


def test_cosign_s_tags_in_a_circle_have_an_end(served: Served) -> None:
    image = pushed(served)
    name = f"sha256-{image.digest.encoded}.sig"
    served.registry.repository("app").tags[name] = str(image.digest)
    shown = served.show()
    (kind,) = shown.names(BY_TYPE)
    assert "referrers" not in shown.names(f"{BY_TYPE}/{kind}/{image.digest}")


def test_a_hostile_type_is_one_name(served: Served) -> None:
    image = pushed(served)
    for kind in ("../../up", "..", "a\nb"):
        refer(served.registry, "app", image.digest, artifact_of(blob(b"1", "text/plain"), kind=kind))
    names = served.show().names(BY_TYPE)
    assert names == ["_.._up", "a_b", "unknown"]


def test_a_bundle_of_100_mb_is_refused_by_its_size(served: Served) -> None:
    image = pushed(served)
    built = bundle(statement(image.digest, COSIGN_SIGN, {}), COSIGN_SIGN)
    manifest = json.loads(built.manifest)
    manifest["layers"][0]["size"] = 100 << 20
    object.__setattr__(built, "manifest", json.dumps(manifest).encode())
    refer(served.registry, "app", image.digest, built)
    shown = served.show()
    assert "which cannot be decoded" in facts(shown, "app/1/referrers/signatures/1.info")[0]
    assert not [line for line in asked(served) if "blobs" in line]
