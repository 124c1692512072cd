"""Registries that want a login, and registries that redirect to another host for their blobs."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MountRegfs
from tests.e2e.conftest import Demo
from tests.support.auth_service import TokenServer
from tests.support.hello import hello_image, hello_program
from tests.support.mounted import Mounted, environment_for
from tests.support.proxy import BlobHost, RedirectingProxy
from tests.support.push import Pusher
from tests.support.registry import DockerRegistry, basic_authentication

USER, PASSWORD = "ada", "correct horse"


def log_in(home: Path, registry: str, *, password: str = PASSWORD) -> None:
    """Store credentials where `docker login` does."""
    (home / ".docker").mkdir(parents=True)
    encoded = base64.b64encode(f"{USER}:{password}".encode()).decode()
    (home / ".docker/config.json").write_text(json.dumps({"auths": {registry: {"auth": encoded}}}))


@pytest.fixture(scope="module")
def tokens(needs_docker_registry: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenServer]:
    """The token server: everybody may pull public/hello, ada everything."""
    directory = tmp_path_factory.mktemp("tokens")
    with TokenServer(directory, users={USER: PASSWORD}, public=("public/hello",)) as server:
        yield server


@pytest.fixture(scope="module")
def guarded(tokens: TokenServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """A registry that wants a token, with public/hello and private/hello."""
    directory = tmp_path_factory.mktemp("guarded")
    with DockerRegistry(directory, authentication=tokens.registry_configuration()) as registry:
        for repository in ("public/hello", "private/hello"):
            token = tokens.issue(USER, [f"repository:{repository}:pull,push"])
            Pusher(registry.url, token=token).image(repository, "latest", hello_image())
        yield registry


def hello_in(mount: Mounted, repository: str) -> bytes:
    return (mount.path / repository / "latest/rootfs/hello").read_bytes()


def test_what_is_public_is_pulled_without_a_login(mount_regfs: MountRegfs, guarded: DockerRegistry) -> None:
    mount = mount_regfs("--default-registry", guarded.address)
    assert hello_in(mount, "public/hello") == hello_program()


def test_a_token_serves_all_requests_of_its_repository(
    mount_regfs: MountRegfs, guarded: DockerRegistry, tokens: TokenServer
) -> None:
    mount = mount_regfs("--default-registry", guarded.address)
    tokens.seen.clear()
    hello_in(mount, "public/hello")
    assert len(tokens.paths("public(%2F|/)hello")) == 1


def test_what_is_private_is_denied_and_not_missing(mount_regfs: MountRegfs, guarded: DockerRegistry) -> None:
    mount = mount_regfs("--default-registry", guarded.address)
    with pytest.raises(PermissionError):
        hello_in(mount, "private/hello")
    assert guarded.address in mount.errors()


def test_credentials_of_docker_login_open_what_is_private(
    mount_regfs: MountRegfs, guarded: DockerRegistry, tmp_path: Path
) -> None:
    log_in(tmp_path / "home", guarded.address)
    mount = mount_regfs("--default-registry", guarded.address)
    assert hello_in(mount, "private/hello") == hello_program()


def test_a_wrong_password_is_denied_and_not_shown(
    mount_regfs: MountRegfs, guarded: DockerRegistry, tmp_path: Path
) -> None:
    log_in(tmp_path / "home", guarded.address, password="tr0ub4dor")
    mount = mount_regfs("--default-registry", guarded.address)
    with pytest.raises(PermissionError):
        hello_in(mount, "private/hello")
    assert "tr0ub4dor" not in mount.errors() + mount.log.read_text()
    assert base64.b64encode(f"{USER}:tr0ub4dor".encode()).decode() not in mount.errors() + mount.log.read_text()


def test_basic_authentication_works_with_stored_credentials(
    mount_regfs: MountRegfs, needs_docker_registry: None, tmp_path: Path
) -> None:
    (tmp_path / "basic").mkdir()
    authentication = basic_authentication(tmp_path / "basic", USER, PASSWORD)
    with DockerRegistry(tmp_path / "basic", authentication=authentication) as registry:
        Pusher(registry.url, user=(USER, PASSWORD)).image("any/hello", "latest", hello_image())
        log_in(tmp_path / "home", registry.address)
        mount = mount_regfs("--default-registry", registry.address)
        assert hello_in(mount, "any/hello") == hello_program()


def skopeo(*words: str, home: Path) -> None:
    """Run skopeo as a shell of root does that has no XDG_RUNTIME_DIR (by ssh, in cron)."""
    subprocess.run(["skopeo", *words], check=True, capture_output=True, env=environment_for(home), timeout=60)


@pytest.mark.skipif(os.getuid() != 0, reason="only root's login without XDG_RUNTIME_DIR goes below /run/containers")
@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed (apt-get install skopeo)")
def test_a_login_of_skopeo_as_root_without_a_runtime_directory_is_seen(
    mount_regfs: MountRegfs, needs_docker_registry: None, tmp_path: Path
) -> None:
    authentication = basic_authentication(tmp_path, USER, PASSWORD)
    with DockerRegistry(tmp_path, authentication=authentication) as registry:
        Pusher(registry.url, user=(USER, PASSWORD)).image("any/hello", "latest", hello_image())
        skopeo("login", "--tls-verify=false", "-u", USER, "-p", PASSWORD, registry.address, home=tmp_path)
        try:
            mount = mount_regfs("--default-registry", registry.address)
            assert hello_in(mount, "any/hello") == hello_program()
        finally:
            skopeo("logout", registry.address, home=tmp_path)


def test_credentials_do_not_follow_a_redirect_to_another_host(
    mount_regfs: MountRegfs, guarded: DockerRegistry, tmp_path: Path
) -> None:
    with BlobHost(guarded.storage) as blobs, RedirectingProxy(guarded.address, blobs) as front:
        log_in(tmp_path / "home", front.address)
        mount = mount_regfs("--default-registry", front.address)
        assert hello_in(mount, "private/hello") == hello_program()
        assert len(blobs.seen) >= 1
        assert [seen for seen in blobs.seen if "authorization" in seen.headers] == []
        assert [seen for seen in front.seen if "authorization" in seen.headers] != []
        assert "signature=secret" not in mount.log.read_text()


def test_blobs_come_through_redirects_without_credentials_too(
    mount_regfs: MountRegfs, demo: Demo, docker_registry: DockerRegistry
) -> None:
    with BlobHost(docker_registry.storage) as blobs, RedirectingProxy(demo.address, blobs) as front:
        mount = mount_regfs("--default-registry", front.address)
        assert (mount.path / "demo/real/v2/rootfs/etc/replaced").read_text() == "in the second layer\n"
        assert len(blobs.paths(str(demo.real.layers[0].digest))) >= 1


def test_a_pull_through_cache_serves_what_its_upstream_has(mount_regfs: MountRegfs, demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "through").mkdir()
    with DockerRegistry(tmp_path / "through", proxy_of=demo.url) as cache:
        mount = mount_regfs("--default-registry", cache.address)
        assert hello_in(mount, "library/hello-world") == hello_program()
