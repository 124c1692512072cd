"""The client against Debian's docker-registry: plain, Basic, tokens, TLS with client certificates, pull-through."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from regfs.errors import AccessDenied, NotFound, RegfsError, RepositoryUnknown
from regfs.model.digest import Digest
from regfs.model.manifest import Manifest, parse_manifest
from regfs.model.names import RepositoryName
from regfs.registry.client import RegistryClient
from regfs.registry.credentials.lookup import Credentials
from regfs.registry.hosts.endpoints import Hosts
from regfs.telemetry.stats import Stats
from tests.support.auth_service import TokenServer
from tests.support.client_rig import client_of
from tests.support.memory_registry import MANIFEST
from tests.support.push import Pusher
from tests.support.registry import DockerRegistry, basic_authentication, make_certificates

LAYER = random.Random(2).randbytes(2_000_000)
USER = ("user", "s3cret-word")

pytestmark = pytest.mark.usefixtures("needs_docker_registry")


@dataclass(slots=True)
class Side:
    """A registry, what to push to it with, and a client that may pull."""

    registry: DockerRegistry
    pusher: Pusher
    client: RegistryClient
    stats: Stats

    def repository(self, path: str = "demo/app") -> RepositoryName:
        return RepositoryName(self.registry.address, path)

    def push(self, path: str = "demo/app", tag: str = "v1") -> Digest:
        config, layer = b"{}", LAYER
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": self.pusher.blob(path, config),
                "size": len(config),
            },
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": self.pusher.blob(path, layer),
                    "size": len(layer),
                }
            ],
        }
        return Digest.parse(self.pusher.manifest(path, tag, json.dumps(document).encode(), MANIFEST))


def client_in(
    directory: Path, address: str, stats: Stats, *, login: bool = False, certificates: Path | None = None
) -> RegistryClient:
    """Return a client with the home directory *directory*."""
    pair = base64.b64encode(":".join(USER).encode()).decode()
    (directory / ".docker").mkdir(exist_ok=True)
    (directory / ".docker" / "config.json").write_text(
        json.dumps({"auths": {address: {"auth": pair}} if login else {}})
    )
    hosts = Hosts(certificate_directories=[certificates] if certificates else [])
    return client_of(hosts, Credentials({"HOME": str(directory)}), stats)


@pytest.fixture
def plain(docker_registry: DockerRegistry, tmp_path: Path) -> Iterator[Side]:
    stats = Stats()
    client = client_in(tmp_path, docker_registry.address, stats)
    yield Side(docker_registry, Pusher(docker_registry.url), client, stats)
    client.close()


def check_pull(side: Side, path: str = "demo/app") -> None:
    """Pull everything of an image in every way."""
    digest = side.push(path)
    repository = side.repository(path)
    assert side.client.listing.tags(repository) == ["v1"]
    assert side.client.manifests.resolve(repository, "v1").digest == digest
    document = side.client.manifests.fetch(repository, digest)
    manifest = parse_manifest(document.content, content_type=document.content_type)
    assert isinstance(manifest, Manifest)
    (layer,) = manifest.layers
    assert b"".join(side.client.blobs.stream(repository, layer)) == LAYER
    assert side.client.blobs.range(repository, layer, 1_000_000, 1_000_100) == LAYER[1_000_000:1_000_100]
    assert side.client.referrers.of(repository, digest) == []
    with pytest.raises(NotFound):
        side.client.manifests.resolve(repository, "none")


def test_an_open_registry(plain: Side) -> None:
    check_pull(plain, "registry-client/open")
    assert "registry-client/open" in plain.client.listing.repositories(plain.registry.address)
    with pytest.raises(NotFound):
        plain.client.listing.tags(plain.repository("registry-client/none"))


def test_more_tags_than_a_page_are_listed(plain: Side) -> None:
    path = "registry-client/tags"
    plain.push(path, "v1")
    content = plain.client.manifests.fetch(plain.repository(path), "v1").content
    names = [f"t{number:03}" for number in range(120)]
    for name in names:
        plain.pusher.manifest(path, name, content, MANIFEST)
    assert plain.client.listing.tags(plain.repository(path)) == [*names, "v1"]


def test_a_registry_with_htpasswd(tmp_path: Path) -> None:
    with DockerRegistry(tmp_path, authentication=basic_authentication(tmp_path, *USER)) as registry:
        stats = Stats()
        check_pull(
            Side(
                registry,
                Pusher(registry.url, user=USER),
                client_in(tmp_path, registry.address, stats, login=True),
                stats,
            )
        )
        anonymous = client_in(tmp_path, registry.address, stats)
        with pytest.raises(AccessDenied, match="docker login"):
            anonymous.listing.tags(RepositoryName(registry.address, "demo/app"))


def test_a_registry_with_tokens_for_some_and_for_all(tmp_path: Path) -> None:
    with (
        TokenServer(tmp_path, users=dict([USER]), public=("demo/public",)) as tokens,
        DockerRegistry(tmp_path, authentication=tokens.registry_configuration()) as registry,
    ):
        stats = Stats()
        push = tokens.issue(USER[0], [f"repository:demo/{name}:pull,push" for name in ("app", "public")])
        client = client_in(tmp_path, registry.address, stats, login=True)
        check_pull(Side(registry, Pusher(registry.url, token=push), client, stats))
        assert stats.value("registry.token_requests") == 1
        pusher = Pusher(registry.url, token=push)
        anonymous = Side(registry, pusher, client_in(tmp_path, registry.address, stats), stats)
        check_pull(anonymous, "demo/public")
        with pytest.raises(AccessDenied):
            anonymous.client.listing.tags(anonymous.repository("demo/app"))


def test_a_registry_with_tls_and_client_certificates(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    with DockerRegistry(tmp_path, certificates=certificates, clients_need_certificates=True) as registry:
        directory = tmp_path / "certs.d" / registry.address
        directory.mkdir(parents=True)
        for source, name in (
            (certificates.authority, "ca.crt"),
            (certificates.client_certificate, "client.cert"),
            (certificates.client_key, "client.key"),
        ):
            (directory / name).write_bytes(source.read_bytes())
        client = client_in(tmp_path, registry.address, Stats(), certificates=tmp_path / "certs.d")
        with pytest.raises(NotFound):
            client.listing.tags(RepositoryName(registry.address, "demo/app"))
        anonymous = client_in(tmp_path, registry.address, Stats())
        with pytest.raises(RegfsError, match="not trusted"):
            anonymous.listing.tags(RepositoryName(registry.address, "demo/app"))


def test_a_pull_through_cache_is_one_hosts_toml_away(plain: Side, tmp_path: Path) -> None:
    digest = plain.push("registry-client/mirrored")
    (tmp_path / "mirror").mkdir()
    with DockerRegistry(tmp_path / "mirror", proxy_of=plain.registry.url) as mirror:
        toml = tmp_path / "hosts" / plain.registry.address / "hosts.toml"
        toml.parent.mkdir(parents=True)
        # The registry itself is out of reach: what comes, comes through the cache.
        toml.write_text(f'server = "http://127.0.0.1:1"\n[host."{mirror.url}"]\n')
        hosts = Hosts(hosts_directories=[tmp_path / "hosts"])
        client = client_of(hosts, Credentials({"HOME": "/nonexistent"}), Stats())
        repository = plain.repository("registry-client/mirrored")
        assert client.manifests.resolve(repository, "v1").digest == digest
        document = client.manifests.fetch(repository, digest)
        manifest = parse_manifest(document.content, content_type=document.content_type)
        assert isinstance(manifest, Manifest)
        assert b"".join(client.blobs.stream(repository, manifest.layers[0])) == LAYER
        assert client.listing.tags(repository) == ["v1"]


def test_it_tells_by_first_pages_what_is_there(plain: Side) -> None:
    plain.push("first/app", "v1")
    plain.push("first/app", "v2")
    plain.push("first-more/app", "v1")
    registry = plain.registry.address
    assert plain.client.listing.first_tags(plain.repository("first/app")).names
    for missing in ("first", "first/nope", "nope"):
        with pytest.raises(RepositoryUnknown):
            plain.client.listing.first_tags(plain.repository(missing))
    after = plain.client.listing.repositories_after(registry, "first/").names
    assert [name for name in after if name.startswith("first/")] == ["first/app"]
    assert not any(
        name.startswith("nope/") for name in plain.client.listing.repositories_after(registry, "nope/").names
    )
