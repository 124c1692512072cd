"""Finds the signatures, attestations and SBOMs among the layers of a manifest that refers to an image.

    cosign 3        one sigstore bundle; annotations of the manifest tell what is in it
    cosign 1, 2     tags .sig, .att, .sbom: a layer for each signature, attestation, SBOM
    BuildKit        in-toto statements, unsigned; an annotation of the layer has the type of the predicate
    Notary          one JWS or COSE envelope
    others          an SBOM by its media type, or by the type of the artifact

Sources: cosign, specs/SIGNATURE_SPEC.md and pkg/types/media.go; sigstore, BUNDLE_SPEC; BuildKit,
docs/attestations/attestation-storage.md; Notary, signature-specification.md. Used by images/referring/, images/judging/
and the tree. Pure; any thread.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from regfs.model.manifest import Descriptor, Index, Manifest
from regfs.model.media_types import CONFIG_TYPES, OCI_EMPTY

SIGNATURES, ATTESTATIONS, SBOM = "signatures", "attestations", "sbom"
PLACES = (SIGNATURES, ATTESTATIONS, SBOM)

BUNDLE = "application/vnd.dev.sigstore.bundle"
SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
DSSE = "application/vnd.dsse.envelope.v1+json"
IN_TOTO = "application/vnd.in-toto+json"
NOTARY = "application/vnd.cncf.notary.signature"
JWS, COSE = "application/jose+json", "application/cose"
COSIGN_SIGN = "https://sigstore.dev/cosign/sign/v1"
_COSIGN_SIGNATURE = "application/vnd.dev.cosign.artifact.sig.v1+json"
_SIGNED = (BUNDLE, SIMPLE_SIGNING, DSSE, NOTARY, _COSIGN_SIGNATURE)

_BUNDLE_CONTENT = "dev.sigstore.bundle.content"
_PREDICATE_TYPES = ("in-toto.io/predicate-type", "predicateType", "dev.sigstore.bundle.predicateType")
_SBOMS = {"spdx": "spdx", "cyclonedx": "cyclonedx", "vnd.syft": "syft"}
_PREDICATES = {
    "https://spdx.dev/Document": "spdx",
    "https://cyclonedx.org/bom": "cyclonedx",
    "https://cosign.sigstore.dev/attestation/vuln/v1": "vuln",
}
_PROVENANCE = "https://slsa.dev/provenance/"
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+", re.ASCII)
_VERSION = re.compile(r"v?[0-9][0-9.]*", re.ASCII)
_MOST_NAME = 100
_REFERENCE_TYPE, _REFERENCE_DIGEST = "vnd.docker.reference.type", "vnd.docker.reference.digest"


class Finding(NamedTuple):
    """A layer that belongs below *place*, where its name begins with *stem*.

    *is_plain*: the blob is the SBOM itself, without an envelope or a statement around it.
    """

    place: str
    stem: str
    layer: Descriptor
    is_plain: bool = False


def findings(manifest: Manifest) -> list[Finding]:
    """Return the findings among the layers of *manifest*, in order. An attestation of an SBOM gives two."""
    found: list[Finding] = []
    for layer in manifest.layers:
        found += _findings(layer, manifest)
    if not found and len(manifest.layers) == 1 and (format_ := _sbom_format(type_of(manifest))):
        found = [Finding(SBOM, format_, manifest.layers[0], is_plain=True)]
    return found


def type_of(document: Manifest | Index) -> str:
    """Return the artifact type of *document*; for cosign's tags, which have none, the media type of the first layer."""
    if document.artifact_type or isinstance(document, Index):
        return document.artifact_type or document.media_type
    config = document.config.media_type
    if config in CONFIG_TYPES or config == OCI_EMPTY:
        return document.layers[0].media_type if document.layers else config
    return config


def is_signed(kind: str) -> bool:
    """Whether artifacts of the type *kind* are or contain signatures, so that signatures of them are not looked for."""
    return kind.startswith(_SIGNED)


def attested_by(entry: Descriptor) -> str:
    """Return the digest of the manifest that *entry* of an index has attestations for; "" if it has none.

    Read from BuildKit's annotation.
    """
    if entry.annotations.get(_REFERENCE_TYPE) != "attestation-manifest":
        return ""
    return entry.annotations.get(_REFERENCE_DIGEST, "")


def harmless(kind: str) -> str:
    """Return the media type *kind* with its unsafe characters replaced, as the name of a directory."""
    return _UNSAFE.sub("_", kind)[:_MOST_NAME].lstrip(".") or "unknown"


def predicate_stem(predicate: str) -> str:
    """Return the file name for a predicate of that type: `spdx`, `provenance`, or the last part of the type."""
    if predicate.startswith(_PROVENANCE):
        return "provenance"
    if predicate in _PREDICATES:
        return _PREDICATES[predicate]
    if predicate.startswith("https://cyclonedx.org/bom"):  # some tools append a version
        return "cyclonedx"
    parts = [part for part in predicate.rstrip("/").split("/") if part and not _VERSION.fullmatch(part)]
    stem = _UNSAFE.sub("_", parts[-1] if parts else "")[:_MOST_NAME].strip("._")
    return stem or "attestation"


def _findings(layer: Descriptor, manifest: Manifest) -> list[Finding]:
    media_type = layer.media_type
    if media_type == SIMPLE_SIGNING or (media_type in (JWS, COSE) and type_of(manifest) == NOTARY):
        return [Finding(SIGNATURES, "", layer)]
    if media_type.startswith(BUNDLE) or media_type in (DSSE, IN_TOTO):
        predicate = _predicate(layer, manifest)
        if predicate == COSIGN_SIGN or manifest.annotations.get(_BUNDLE_CONTENT) == "message-signature":
            return [Finding(SIGNATURES, "", layer)]
        stem = predicate_stem(predicate)
        found = [Finding(ATTESTATIONS, stem, layer)]
        if stem in _SBOMS.values():
            found.append(Finding(SBOM, stem, layer))
        return found
    format_ = _sbom_format(media_type)
    return [Finding(SBOM, format_, layer, is_plain=True)] if format_ else []


def _predicate(layer: Descriptor, manifest: Manifest) -> str:
    for said in (layer.annotations, manifest.annotations):
        for key in _PREDICATE_TYPES:
            if said.get(key):
                return said[key]
    return ""


def _sbom_format(media_type: str) -> str:
    name = media_type.partition("/")[2]
    return next((format_ for word, format_ in _SBOMS.items() if name.startswith((word, f"vnd.{word}"))), "")


def plain_suffix(media_type: str) -> str:
    """Return the suffix of the file name for an SBOM of that media type."""
    if "xml" in media_type:
        return ".xml"
    if media_type.startswith("text/spdx") and "json" not in media_type:
        return ".spdx"
    return ".json"
