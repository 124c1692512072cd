"""Mirrors and hosts that come and go: F69 and F70 of the fault catalogue, at the client."""

from __future__ import annotations

import pytest

from regfs.errors import AccessDenied, DigestMismatch, NotFound, RegistryUnavailable
from regfs.model.manifest import Descriptor
from regfs.registry.http.retry_policy import RetryPolicy
from tests.support.client_rig import ALONE, LESS_IMPATIENT, SILENT_MIRROR, Rig, basic, repository_of, saw_no_secret
from tests.support.fault_server import Action, FaultServer, close, cut, reply, reset, silence
from tests.support.memory_registry import MemoryRegistry

CONTENT = bytes(range(256)) * 2000
USER = ("user", "s3cret-word")
MIRROR_USER = ("mirror-user", "mirror-s3cret")


def filled(**more: object) -> tuple[MemoryRegistry, Descriptor]:
    registry = MemoryRegistry(**more)  # type: ignore[arg-type]
    registry.add_image("demo/app", "v1", CONTENT)
    return registry, registry.add_blob("demo/app", CONTENT)


def pair(rig: Rig) -> tuple[FaultServer, FaultServer, Descriptor]:
    """Return a registry, a mirror that has the same, and a blob of both."""
    (registry, blob), (copy, _blob) = filled(), filled()
    return rig.server(registry), rig.server(copy), blob


def test_a_mirror_answers_and_the_registry_is_not_asked(rig: Rig) -> None:
    server, mirror, blob = pair(rig)
    client, repository = rig.client(server, mirrors=[mirror]), repository_of(server)
    client.manifests.fetch(repository, client.manifests.resolve(repository, "v1").digest)
    assert client.listing.tags(repository) == ["v1"]
    assert b"".join(client.blobs.stream(repository, blob)) == CONTENT
    assert server.paths() == []
    assert all(path.endswith(f"?ns={server.address}") for path in mirror.paths())


def test_a_mirror_that_may_not_resolve_is_asked_for_bytes_alone(rig: Rig) -> None:
    server, mirror, blob = pair(rig)
    client = rig.client(server, mirrors=[mirror], mirror_options='capabilities = ["pull"]')
    repository = repository_of(server)
    digest = client.manifests.resolve(repository, "v1").digest
    assert mirror.paths() == []
    client.manifests.fetch(repository, digest)
    assert b"".join(client.blobs.stream(repository, blob)) == CONTENT
    assert server.paths() == ["HEAD /v2/demo/app/manifests/v1"]


def test_the_repositories_of_a_registry_are_not_those_of_its_mirror(rig: Rig) -> None:
    server, mirror, _blob = pair(rig)
    mirror.application.add_image("other/registrys", "v1")  # type: ignore[attr-defined]
    assert rig.client(server, mirrors=[mirror]).listing.repositories(server.address) == ["demo/app"]


FAILING = {
    "404": reply(404, '{"errors":[{"code":"NAME_UNKNOWN"}]}'),
    "401": reply(401),
    "403": reply(403),
    "429": reply(429, headers={"Retry-After": "3600"}),
    "500": reply(500),
    "503": reply(503),
    "400": reply(400),
    "html": reply(200, "<html>", {"Content-Type": "text/html"}),
    "empty": reply(200),
    "reset": reset(),
    "close": close,
    "silence": silence,
    "redirect": reply(307, headers={"Location": "file:///etc/passwd"}),
    "wrong digest": reply(200, '{"schemaVersion":2}', {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}),
}


@pytest.mark.parametrize("action", FAILING.values(), ids=FAILING)
def test_f69_where_a_mirror_fails_the_registry_answers(rig: Rig, action: Action) -> None:
    server, mirror, blob = pair(rig)
    mirror.on("*", ".", action)
    pace = SILENT_MIRROR if action is silence else LESS_IMPATIENT
    client = rig.client(server, mirrors=[mirror], pace=pace, mirror_options='capabilities = ["pull"]')
    repository = repository_of(server)
    digest = client.manifests.resolve(repository, "v1").digest
    assert client.manifests.fetch(repository, digest).digest == digest
    assert b"".join(client.blobs.stream(repository, blob)) == CONTENT
    assert client.blobs.range(repository, blob, 10, 20) == CONTENT[10:20]


def test_f69_a_dead_mirror_costs_one_attempt_not_one_for_each_file(rig: Rig) -> None:
    server, mirror, blob = pair(rig)
    mirror.on("*", ".", silence)
    client = rig.client(server, mirrors=[mirror], pace=SILENT_MIRROR, retry=RetryPolicy(base_s=0.001, breaker_s=60))
    for start in range(20):
        assert client.blobs.range(repository_of(server), blob, start, start + 1) == CONTENT[start : start + 1]
    assert len(mirror.paths()) == 1


@pytest.mark.parametrize(
    ("action", "attempts"),
    [(reply(503), 2), (reply(500), 2), (reset(), 2), (silence, 1)],
    ids=["503", "500", "reset", "silence"],
)
def test_f69_no_request_waits_long_for_a_mirror_while_the_registry_can_be_asked(
    rig: Rig, action: Action, attempts: int
) -> None:
    server, mirror, blob = pair(rig)
    mirror.on("*", ".", action)
    pace = SILENT_MIRROR if action is silence else LESS_IMPATIENT
    client = rig.client(server, mirrors=[mirror], pace=pace, retry=RetryPolicy(base_s=0.001, breaker_s=60))
    assert b"".join(client.blobs.stream(repository_of(server), blob)) == CONTENT
    assert len(mirror.paths()) == attempts


def test_f69_a_mirrors_404_alone_is_not_not_found(rig: Rig) -> None:
    server, mirror, _blob = pair(rig)
    mirror.on("*", ".", reply(404))
    server.on("*", ".", reply(503))
    client = rig.client(server, mirrors=[mirror])
    with pytest.raises(RegistryUnavailable, match="mirror"):
        client.manifests.resolve(repository_of(server), "v1")


def test_f69_the_registrys_404_is_the_verdict_with_what_the_mirror_said(rig: Rig) -> None:
    server, mirror, _blob = pair(rig)
    mirror.on("*", ".", reply(403, "mirror says no"))
    with pytest.raises(NotFound, match="mirror says no"):
        rig.client(server, mirrors=[mirror]).manifests.resolve(repository_of(server), "none")


def test_f69_a_mirror_with_wrong_bytes_is_found_out_and_left_out(rig: Rig) -> None:
    server, mirror, blob = pair(rig)
    mirror.on("GET", "/blobs/", reply(200, bytes(len(CONTENT))))
    client = rig.client(server, mirrors=[mirror])
    with pytest.raises(DigestMismatch, match=mirror.address):
        list(client.blobs.stream(repository_of(server), blob))
    assert b"".join(client.blobs.stream(repository_of(server), blob)) == CONTENT
    assert len(mirror.paths()) == 1


def test_f69_a_transfer_that_a_mirror_gives_up_is_finished_by_the_registry(rig: Rig) -> None:
    server, mirror, blob = pair(rig)
    mirror.on("GET", "/blobs/", cut(100_000), times=1)
    mirror.on("GET", "/blobs/", reply(404))
    client = rig.client(server, mirrors=[mirror])
    assert b"".join(client.blobs.stream(repository_of(server), blob)) == CONTENT
    assert server.headers("range") == [f"bytes=100000-{len(CONTENT) - 1}"]


def test_a36_each_host_sees_its_own_credentials_alone(rig: Rig) -> None:
    registry, blob = filled(users=dict([USER]))
    copy, _blob = filled(users=dict([MIRROR_USER]))
    server, mirror = rig.server(registry), rig.server(copy)
    client = rig.client(server, mirrors=[mirror], logins={server.address: USER, mirror.address: MIRROR_USER})
    repository = repository_of(server)
    assert b"".join(client.blobs.stream(repository, blob)) == CONTENT
    mirror.on("*", ".", reply(500))
    assert client.listing.tags(repository) == ["v1"]
    assert set(mirror.headers("authorization")) == {None, basic(*MIRROR_USER)}
    assert set(server.headers("authorization")) == {None, basic(*USER)}


def test_a36_a_mirror_without_a_login_gets_none(rig: Rig) -> None:
    registry, _blob = filled(users=dict([USER]))
    copy, _blob = filled(users=dict([MIRROR_USER]))
    server, mirror = rig.server(registry), rig.server(copy)
    client = rig.client(server, mirrors=[mirror], login=USER)
    assert client.listing.tags(repository_of(server)) == ["v1"]
    assert saw_no_secret(mirror, USER[1])


def test_f70_a_registry_that_comes_back_is_asked_again_by_itself(rig: Rig) -> None:
    registry, _blob = filled()
    server = rig.server(registry, host=ALONE)
    now = [0.0]
    client = rig.client(server, retry=RetryPolicy(attempts=1, breaker_s=5), clock=lambda: now[0])
    repository = repository_of(server)
    server.stop()
    with pytest.raises(RegistryUnavailable):
        client.listing.tags(repository)
    now[0] = 6.0
    rig.server(registry, host=ALONE, port=int(server.address.rpartition(":")[2]))
    assert client.listing.tags(repository) == ["v1"]


def test_f70_a_registry_that_restarts_between_two_requests_is_not_noticed(rig: Rig) -> None:
    registry, _blob = filled()
    server = rig.server(registry, host=ALONE)
    client, repository = rig.client(server), repository_of(server)
    client.listing.tags(repository)
    server.stop()
    rig.server(registry, host=ALONE, port=int(server.address.rpartition(":")[2]))
    assert client.listing.tags(repository) == ["v1"]


def test_a_denial_by_the_registry_is_not_hidden_by_a_mirror(rig: Rig) -> None:
    mirror = rig.server()
    denying = rig.server()
    denying.on("*", ".", reply(403, "no"))
    with pytest.raises(AccessDenied):
        rig.client(denying, mirrors=[mirror]).listing.tags(repository_of(denying))
