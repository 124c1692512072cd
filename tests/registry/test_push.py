"""Pushing to a docker-registry: with the token to write, each blob once, and never without a login."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from regfs.errors import AccessDenied
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.model.media_types import OCI_MANIFEST, OCTET_STREAM
from regfs.model.names import RepositoryName
from regfs.model.render import annotated_manifest, render_manifest
from regfs.telemetry.stats import Stats
from tests.registry.test_docker_registry import USER, client_in
from tests.support.auth_service import TokenServer
from tests.support.registry import DockerRegistry, basic_authentication

BLOB = b"a blob\n" * 1000


def artifact() -> bytes:
    config = Descriptor("application/vnd.example+json", Digest.of(b"{}"), 2)
    return render_manifest(config, [Descriptor(OCTET_STREAM, Digest.of(BLOB), len(BLOB))])


def check_push(directory: Path, registry: DockerRegistry) -> None:
    """Push an artifact, read it back, and see that it takes a login."""
    client = client_in(directory, registry.address, Stats(), login=True)
    repository, manifest = RepositoryName(registry.address, "push/app"), artifact()
    for blob in (BLOB, b"{}", BLOB):
        assert client.pushes.blob(repository, blob) == Digest.of(blob)
    client.pushes.manifest(repository, Digest.of(manifest), manifest, OCI_MANIFEST)
    assert client.pushes.manifest(repository, "1", manifest, OCI_MANIFEST) == Digest.of(manifest)
    assert client.manifests.fetch(repository, "1").content == manifest
    layer = Descriptor(OCTET_STREAM, Digest.of(BLOB), len(BLOB))
    assert b"".join(client.blobs.stream(repository, layer)) == BLOB
    anonymous = client_in(directory, registry.address, Stats())
    with pytest.raises(AccessDenied):
        anonymous.pushes.blob(repository, b"another")


def test_a_registry_with_a_password(tmp_path: Path) -> None:
    with DockerRegistry(tmp_path, authentication=basic_authentication(tmp_path, *USER)) as registry:
        check_push(tmp_path, registry)


def test_a_registry_with_tokens(tmp_path: Path) -> None:
    with (
        TokenServer(tmp_path, users=dict([USER])) as tokens,
        DockerRegistry(tmp_path, authentication=tokens.registry_configuration()) as registry,
    ):
        check_push(tmp_path, registry)


def test_what_a_manifest_has_that_regfs_does_not_know_stays() -> None:
    manifest = json.loads(artifact()) | {"futureField": [1], "annotations": {"a": "1"}}
    made = json.loads(annotated_manifest(json.dumps(manifest).encode(), {"b": "2"}))
    assert made["futureField"] == [1]
    assert made["annotations"] == {"a": "1", "b": "2"}
