"""Renders manifests and indexes: new ones from descriptors, and existing ones with additions.

Fields of an existing document that regfs does not know stay in it. Sources: image-spec, manifest.md, image-index.md.
Used by images/, oci_layout.py and store/references/. Pure; any thread.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.model.media_types import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, oci_layer_type
from regfs.model.platform import Platform


def render_manifest(
    config: Descriptor,
    layers: Sequence[Descriptor],
    *,
    artifact_type: str = "",
    subject: Descriptor | None = None,
    annotations: Mapping[str, str] | None = None,
) -> bytes:
    """Return the OCI manifest of *config* and *layers*; empty arguments are left out."""
    optional = {
        "artifactType": artifact_type,
        "subject": None if subject is None else _fields(subject),
        "annotations": dict(annotations or {}),
    }
    return _bytes(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _fields(config),
            "layers": [_fields(layer) for layer in layers],
        }
        | {key: value for key, value in optional.items() if value}
    )


def render_index(manifests: Sequence[Descriptor]) -> bytes:
    """Return the OCI index of *manifests*, in ASCII: text from a registry may not be valid UTF-8."""
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [_fields(each) for each in manifests]}
    return json.dumps(index, separators=(",", ":")).encode()


def annotated_manifest(content: bytes, annotations: Mapping[str, str]) -> bytes:
    """Return the image manifest *content*, which was parsed before, as an OCI manifest with further *annotations*."""
    manifest = json.loads(content)
    manifest["mediaType"] = OCI_MANIFEST
    # Some registries do not treat a manifest of one vendor with a config of the other as an image.
    manifest["config"]["mediaType"] = OCI_CONFIG
    manifest["annotations"] = {**(manifest.get("annotations") or {}), **annotations}
    return _bytes(manifest)


def oci_manifest(content: bytes) -> bytes:
    """Return the image manifest *content* of Docker's type, which was parsed before, as an OCI manifest."""
    manifest = json.loads(annotated_manifest(content, {}))
    for layer in manifest.get("layers") or ():
        layer["mediaType"] = oci_layer_type(layer.get("mediaType") or "")
    if not manifest["annotations"]:
        del manifest["annotations"]
    return _bytes(manifest)


def index_with(
    content: bytes | None, manifest: Descriptor, *, instead_of: Digest, also: Descriptor, kind: str
) -> bytes:
    """Return an OCI index that has *manifest* where *content*, an index that was parsed before, has *instead_of*.

    *also* is appended, and replaces an entry of artifact type *kind* for the same platform. Without *content* the index
    has only *manifest* and *also*.
    """
    index: dict[str, Any] = {"schemaVersion": 2, "manifests": []} if content is None else json.loads(content)
    index["mediaType"] = OCI_INDEX
    entries = index["manifests"]
    places = [place for place, entry in enumerate(entries) if entry.get("digest") == str(instead_of)]
    for place in places:
        entries[place] = {**entries[place], **_fields(manifest), "platform": entries[place].get("platform")}
    if not places:
        entries.append(_fields(manifest))
    new = _fields(also)
    kept = [
        entry for entry in entries if entry.get("artifactType") != kind or entry.get("platform") != new.get("platform")
    ]
    index["manifests"] = [*kept, new]
    return _bytes(index)


def _fields(descriptor: Descriptor) -> dict[str, object]:
    fields: dict[str, object] = {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
    }
    if descriptor.artifact_type:
        fields["artifactType"] = descriptor.artifact_type
    if descriptor.annotations:
        fields["annotations"] = dict(descriptor.annotations)
    if descriptor.platform is not None:
        fields["platform"] = _platform(descriptor.platform)
    return fields


def _platform(platform: Platform) -> dict[str, object]:
    fields: dict[str, object] = {"architecture": platform.architecture, "os": platform.os}
    optional = {
        "os.version": platform.os_version,
        "os.features": list(platform.os_features),
        "variant": platform.variant,
    }
    return fields | {key: value for key, value in optional.items() if value}


def _bytes(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
