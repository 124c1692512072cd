"""What tools attach to images, made by hand after their specifications: signatures, attestations, SBOMs.

image = served.push("app", "1", image_of(layer(file("a"))))
refer(served.registry, "app", image.digest, bundle(statement(image.digest, SPDX, {"spdxVersion": "SPDX-2.3"}), SPDX))
attach(served.registry, "app", image.digest, ".sig", artifact_of(simple_signing(image.digest), …))
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping

from regfs.model.digest import Digest
from tests.support.artifacts import Artifact, Blob, artifact_of, blob, push_artifact
from tests.support.images import OCI
from tests.support.memory_registry import MemoryRegistry

SPDX = "https://spdx.dev/Document"
PROVENANCE = "https://slsa.dev/provenance/v1"
COSIGN_SIGN = "https://sigstore.dev/cosign/sign/v1"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
DSSE = "application/vnd.dsse.envelope.v1+json"
IN_TOTO = "application/vnd.in-toto+json"
SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
NOTARY = "application/vnd.cncf.notary.signature"
SIGNER = "https://github.com/org/app/.github/workflows/release.yml@refs/heads/main"
ISSUER = "https://token.actions.githubusercontent.com"
SIGNED_S = 1_790_000_000
SIGNED = "2026-09-21T14:13:20Z"
# openssl made it: a certificate as Fulcio's are, for SIGNER, with both of its extensions for the issuer.
CERTIFICATE = base64.b64decode(
    "MIICQzCCAemgAwIBAgIUT0nTeLT+kGyDuYFT74l9xXazg/YwCgYIKoZIzj0EAwIwNzEVMBMGA1UECgwMc2lnc3RvcmUuZGV2MR4w"
    "HAYDVQQDDBVzaWdzdG9yZS1pbnRlcm1lZGlhdGUwHhcNMjYxMTI5MjIwOTUxWhcNMzYxMTI2MjIwOTUxWjA3MRUwEwYDVQQKDAxz"
    "aWdzdG9yZS5kZXYxHjAcBgNVBAMMFXNpZ3N0b3JlLWludGVybWVkaWF0ZTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABOZrPmCN"
    "zkrqU0lVkgID1mOfXl+f6VsbXxhoedgSlQuOBTL06AyB6ScJPjhr6FbrXVBDKE8aT5XA08V7KsMLlMqjgdIwgc8wVgYDVR0RAQH/"
    "BEwwSoZIaHR0cHM6Ly9naXRodWIuY29tL29yZy9hcHAvLmdpdGh1Yi93b3JrZmxvd3MvcmVsZWFzZS55bWxAcmVmcy9oZWFkcy9t"
    "YWluMBkGCisGAQQBg78wAQEEC2h0dHBzOi8vb2xkMDsGCisGAQQBg78wAQgELQwraHR0cHM6Ly90b2tlbi5hY3Rpb25zLmdpdGh1"
    "YnVzZXJjb250ZW50LmNvbTAdBgNVHQ4EFgQUTHfjRE6nE77J9DE6DeL5XBro5bYwCgYIKoZIzj0EAwIDSAAwRQIgPQq5zz4Y6uUh"
    "jqZJnEvSuWtfa7Q6NwJFIyBl8A783PoCIQD6aPt3OH3zoIM0H3ndZu3rg6FtVBLuXUB11WAC1d/6jQ=="
)


def statement(digest: Digest, predicate_type: str, predicate: object) -> bytes:
    """Return the in-toto statement about the manifest *digest*."""
    subject = [{"name": "app", "digest": {digest.algorithm: digest.encoded}}]
    return json.dumps(
        {"_type": "https://in-toto.io/Statement/v1", "subject": subject, "predicateType": predicate_type,
         "predicate": predicate}
    ).encode()  # fmt: skip


def dsse(payload: bytes, *, payload_type: str = IN_TOTO, key: str = "") -> dict[str, object]:
    """Return the envelope of *payload*; its signature is no right one."""
    signatures = [{"keyid": key, "sig": encoded(b"signature")}]
    return {"payloadType": payload_type, "payload": encoded(payload), "signatures": signatures}


def bundle(payload: bytes, predicate_type: str, *, created: str = "") -> Artifact:
    """Return cosign 3's artifact: a sigstore bundle with an envelope of *payload*, signed by SIGNER."""
    material = {"certificate": {"rawBytes": encoded(CERTIFICATE)}, "tlogEntries": [{"integratedTime": str(SIGNED_S)}]}
    document = {"mediaType": BUNDLE, "verificationMaterial": material, "dsseEnvelope": dsse(payload)}
    annotations = {"dev.sigstore.bundle.content": "dsse-envelope", "dev.sigstore.bundle.predicateType": predicate_type}
    if created:
        annotations["org.opencontainers.image.created"] = created
    return artifact_of(blob(json.dumps(document).encode(), BUNDLE), kind=BUNDLE, annotations=annotations)


def simple_signing(digest: Digest, **annotations: str) -> Blob:
    """Return a layer of cosign 1 and 2: the payload, whose signature is an annotation."""
    image = {"docker-manifest-digest": str(digest)}
    identity = {"docker-reference": "registry.example/app"}
    critical = {"identity": identity, "image": image, "type": "cosign container image signature"}
    payload = json.dumps({"critical": critical, "optional": None}).encode()
    return blob(payload, SIMPLE_SIGNING, {"dev.cosignproject.cosign/signature": encoded(b"signature"), **annotations})


def notary(digest: Digest) -> Artifact:
    """Return notation's artifact: a JWS."""
    target = {"mediaType": f"{OCI}.manifest.v1+json", "digest": str(digest), "size": 7}
    protected = {"alg": "ES256", "cty": "application/vnd.cncf.notary.payload.v1+json",
                 "io.cncf.notary.signingTime": SIGNED}  # fmt: skip
    document = {
        "payload": unpadded(json.dumps({"targetArtifact": target}).encode()),
        "protected": unpadded(json.dumps(protected).encode()),
        "header": {"x5c": [encoded(CERTIFICATE)]},
        "signature": unpadded(b"signature"),
    }
    return artifact_of(blob(json.dumps(document).encode(), "application/jose+json"), kind=NOTARY)


def attestation_manifest(*statements: bytes, subject: Mapping[str, object] | None = None) -> Artifact:
    """Return BuildKit's manifest of *statements*: with *subject* as 0.32 writes it, else as earlier releases."""
    layers = [
        blob(each, IN_TOTO, {"in-toto.io/predicate-type": json.loads(each)["predicateType"]}) for each in statements
    ]
    if subject is not None:
        kind = "application/vnd.docker.attestation.manifest.v1+json"
        return artifact_of(*layers, kind=kind, subject=subject)
    return artifact_of(
        *layers, config=b'{"architecture":"unknown","os":"unknown"}', config_type=f"{OCI}.config.v1+json"
    )


def attestation_entry(built: Artifact, digest: Digest) -> dict[str, object]:
    """Return the entry of an index that BuildKit writes for its attestations of the manifest *digest*."""
    annotations = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": str(digest)}
    platform = {"os": "unknown", "architecture": "unknown"}
    return described(built) | {"annotations": annotations, "platform": platform}


def signed_bundle(sign: Callable[[bytes], bytes], payload: bytes, *, payload_type: str = IN_TOTO) -> Artifact:
    """Return cosign 3's artifact with a signature by a key, whose id nobody knows."""
    message = b"DSSEv1 %d %s %d %s" % (len(payload_type), payload_type.encode(), len(payload), payload)
    signatures = [{"keyid": "another", "sig": encoded(sign(message))}]
    envelope = {"payloadType": payload_type, "payload": encoded(payload), "signatures": signatures}
    document = {"mediaType": BUNDLE, "verificationMaterial": {"publicKey": {"hint": "?"}}, "dsseEnvelope": envelope}
    annotations = {"dev.sigstore.bundle.predicateType": COSIGN_SIGN}
    return artifact_of(blob(json.dumps(document).encode(), BUNDLE), kind=BUNDLE, annotations=annotations)


def signed_payload(sign: Callable[[bytes], bytes], digest: Digest, *, reference: str) -> Artifact:
    """Return what cosign 1 and 2 push under a tag: a signature by a key."""
    image = {"docker-manifest-digest": str(digest)}
    critical = {"identity": {"docker-reference": reference}, "image": image, "type": "cosign container image signature"}
    payload = json.dumps({"critical": critical, "optional": None}).encode()
    layer = blob(payload, SIMPLE_SIGNING, {"dev.cosignproject.cosign/signature": encoded(sign(payload))})
    return artifact_of(layer, config_type=f"{OCI}.config.v1+json")


def refer(
    registry: MemoryRegistry, name: str, subject: Digest, built: Artifact, *, listed_for: Digest | None = None,
    kind: str = "",
) -> Artifact:  # fmt: skip
    """Push *built*, as an artifact whose subject is *subject*, and let the referrers API list it, as of type *kind*."""
    manifest = json.loads(built.manifest)
    manifest["subject"] = {"mediaType": f"{OCI}.manifest.v1+json", "digest": str(subject), "size": 7}
    referring = Artifact(json.dumps(manifest).encode(), built.config, built.blobs)
    push_artifact(registry, name, None, referring)
    said = {"artifactType": kind or manifest["artifactType"], "annotations": manifest.get("annotations", {})}
    entries = registry.repository(name).referrers.setdefault(str(listed_for or subject), [])
    entries.append(described(referring) | said)
    return referring


def attach(registry: MemoryRegistry, name: str, subject: Digest, suffix: str, built: Artifact) -> Artifact:
    """Push *built* under cosign's tag for *subject*: .sig, .att or .sbom."""
    return push_artifact(registry, name, f"sha256-{subject.encoded}{suffix}", built)


def described(built: Artifact) -> dict[str, object]:
    """Return the descriptor of the artifact."""
    return {"mediaType": f"{OCI}.manifest.v1+json", "digest": str(built.digest), "size": len(built.manifest)}


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def unpadded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
