"""Artifacts made by hand after their specifications: an ORAS push, a ModelPack, a Helm chart …

built = artifact_of(blob(b"text", "text/plain", {TITLE: "notes.txt"}), kind="application/vnd.example.notes")
push_artifact(served.registry, "notes", "1", built)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from regfs.model.digest import Digest
from regfs.model.manifest import Manifest, parse_manifest
from tests.support.images import OCI, TarEntry, compressed, tar_of
from tests.support.memory_registry import MANIFEST, MemoryRegistry

TITLE = "org.opencontainers.image.title"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"


@dataclass(frozen=True)
class Blob:
    """A layer of an artifact."""

    content: bytes
    media_type: str
    annotations: Mapping[str, str]

    @property
    def digest(self) -> Digest:
        return Digest.of(self.content)

    def descriptor(self) -> dict[str, object]:
        """Return the entry of the manifest's layers."""
        annotations = {"annotations": dict(self.annotations)} if self.annotations else {}
        return {"mediaType": self.media_type, "digest": str(self.digest), "size": len(self.content), **annotations}


@dataclass(frozen=True)
class Artifact:
    """An artifact: its manifest, its config, its blobs."""

    manifest: bytes
    config: bytes
    blobs: tuple[Blob, ...]

    @property
    def digest(self) -> Digest:
        return Digest.of(self.manifest)

    @property
    def parsed(self) -> Manifest:
        """The manifest as regfs reads it."""
        parsed = parse_manifest(self.manifest, content_type="")
        assert isinstance(parsed, Manifest)
        return parsed


def blob(content: bytes, media_type: str, annotations: Mapping[str, str] | None = None) -> Blob:
    """Return a layer of these bytes."""
    return Blob(content, media_type, annotations or {})


def archive(
    *entries: TarEntry, media_type: str, compression: str = "gzip", annotations: Mapping[str, str] | None = None
) -> Blob:
    """Return a layer that is a tar."""
    return Blob(compressed(tar_of(*entries), compression), media_type, annotations or {})


def artifact_of(
    *blobs: Blob,
    kind: str = "",
    config: bytes = b"{}",
    config_type: str = EMPTY_TYPE,
    annotations: Mapping[str, str] | None = None,
    subject: Mapping[str, object] | None = None,
) -> Artifact:
    """Return the artifact of *blobs*; *kind* is its artifactType."""
    manifest: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": {"mediaType": config_type, "digest": str(Digest.of(config)), "size": len(config)},
        "layers": [each.descriptor() for each in blobs],
    }
    optional = {"artifactType": kind, "annotations": dict(annotations or {}), "subject": subject}
    manifest |= {key: value for key, value in optional.items() if value}
    return Artifact(json.dumps(manifest).encode(), config, blobs)


def push_artifact(registry: MemoryRegistry, name: str, tag: str | None, built: Artifact) -> Artifact:
    """Put *built* into the registry and let *tag* name it."""
    registry.add_blob(name, built.config)
    for each in built.blobs:
        registry.add_blob(name, each.content)
    registry.add_manifest(name, built.manifest, tag=tag, media_type=MANIFEST)
    return built
