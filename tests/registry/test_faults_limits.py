"""Rate limits and server errors: F25 to F30 of the fault catalogue, at the client."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable

import pytest

from regfs.errors import BadContent, NotFound, RateLimited, RegistryTimeout, RegistryUnavailable
from regfs.process.waiting.deadline import Deadline, under
from regfs.registry.client import RegistryClient
from regfs.registry.http.retry_policy import RetryPolicy, retry_after_s
from tests.support.client_rig import RETRY, Rig, repository_of
from tests.support.fault_server import FaultServer, changed, reply
from tests.support.memory_registry import MemoryRegistry

CONTENT = b"blob" * 5000


def registry() -> MemoryRegistry:
    made = MemoryRegistry()
    made.add_image("demo/app", "v1", CONTENT)
    return made


def tags(client: RegistryClient, server: FaultServer) -> list[str]:
    return client.listing.tags(repository_of(server))


def test_f25_429_is_waited_out_and_succeeds(rig: Rig) -> None:
    server = rig.server(registry())
    server.on("GET", "/tags/", reply(429, "slow down", {"Retry-After": "1"}), times=1)
    began = time.monotonic()
    assert tags(rig.client(server), server) == ["v1"]
    assert time.monotonic() - began >= 1.0  # not earlier: that would be the fault
    assert len(server.paths()) == 2


@pytest.mark.parametrize("after", ["86400", "99999999999999999999", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_f26_a_long_retry_after_fails_at_once_and_keeps_others_off(rig: Rig, after: str) -> None:
    server = rig.server(registry())
    server.on("GET", "/tags/", reply(429, "slow down", {"Retry-After": after}))
    client = rig.client(server)
    for _ in range(5):
        with pytest.raises(RateLimited):
            tags(client, server)
    with pytest.raises(RateLimited):
        client.manifests.resolve(repository_of(server), "v1")
    assert len(server.paths()) == 1


@pytest.mark.parametrize("after", ["-5", "abc", "", "Sat, 01 Jan 2000 00:00:00 GMT", "1_0", "+3", "1.5", None, "٣"])
def test_f26_a_retry_after_without_sense_is_ignored(rig: Rig, after: str | None) -> None:
    server = rig.server(registry())
    headers = {} if after is None else {"Retry-After": after.encode().decode("latin-1")}
    server.on("GET", "/tags/", reply(429, "slow down", headers), times=2)
    assert tags(rig.client(server), server) == ["v1"]


def test_f26_429_for_ever_is_given_up(rig: Rig) -> None:
    server = rig.server(registry())
    server.on("GET", "/tags/", reply(429, "slow down"))
    with pytest.raises(RateLimited, match="slow down"):
        tags(rig.client(server), server)
    assert len(server.paths()) == RETRY.attempts


def test_f26_a_wait_that_outlasts_the_callers_deadline_is_not_begun(rig: Rig) -> None:
    server = rig.server(registry())
    server.on("GET", "/tags/", reply(429, "slow down", {"Retry-After": "60"}))
    with under(Deadline(30)), pytest.raises(RateLimited):
        tags(rig.client(server, retry=RetryPolicy(throttle_s=3600)), server)


def test_retry_after_is_seconds_or_a_date_to_come() -> None:
    assert retry_after_s("120") == 120.0
    began = time.time()
    left_s = retry_after_s(email.utils.formatdate(began + 1000, usegmt=True))
    assert left_s is not None
    assert 0 <= 1000 - left_s <= time.time() - began + 1  # a date has no fractions of a second
    ours_is_wrong = "Sat, 01 Jan 2000 00:00:00 GMT"
    assert retry_after_s("Sat, 01 Jan 2000 00:00:07 GMT", date=ours_is_wrong) == 7.0
    assert retry_after_s("Sat, 01 Jan 2000 00:00:07 GMT", date="soon") is None
    assert [retry_after_s(text) for text in (None, "", "-1", "soon", "Sat, 01 Jan 2000 00:00:00 GMT")] == [None] * 5


@pytest.mark.parametrize("status", [408, 499, 500, 502, 503, 504, 522])
def test_f27_a_server_error_that_passes_is_not_noticed(rig: Rig, status: int) -> None:
    server = rig.server(registry())
    server.on("*", "/manifests/|/tags/|/blobs/", reply(status, "oops"), times=2)
    assert tags(rig.client(server), server) == ["v1"]
    assert rig.stats.value("registry.retries") == 2


def test_f28_503_for_ever_is_unavailable_and_the_host_is_left_alone_for_a_moment(rig: Rig) -> None:
    server = rig.server(registry())
    server.on("GET", "/v2/", reply(503, '{"errors":[{"code":"UNAVAILABLE","message":"maintenance"}]}'))
    client = rig.client(server)
    with pytest.raises(RegistryUnavailable, match="maintenance"):
        tags(client, server)
    for _ in range(5):
        with pytest.raises(RegistryUnavailable, match=r"failed \d+ s ago; next attempt in \d+ s"):
            tags(client, server)
    assert len(server.paths()) == RETRY.attempts


def test_a_host_that_is_back_is_asked_at_once_when_its_failures_are_forgotten(rig: Rig) -> None:
    server = rig.server(registry())
    server.on("GET", "/v2/", reply(503))
    client = rig.client(server)
    with pytest.raises(RegistryUnavailable):
        tags(client, server)
    server.heal()
    with pytest.raises(RegistryUnavailable, match="next attempt in"):
        tags(client, server)
    client.forget_failures()
    assert tags(client, server) == ["v1"]


def test_a_verb_does_not_speak_of_a_next_attempt(rig: Rig) -> None:
    server = rig.server(registry())
    server.on("GET", "/v2/", reply(503))
    client = rig.client(server, retry=RETRY._replace(tells_next_attempt=False))
    for _ in range(2):
        with pytest.raises(RegistryUnavailable) as caught:
            tags(client, server)
        assert "next attempt" not in str(caught.value)
    assert len(server.paths()) == RETRY.attempts


def test_forgotten_failures_do_not_disturb_a_host_that_asked_to_be_left_alone(rig: Rig) -> None:
    server = rig.server(registry())
    server.on("GET", "/tags/", reply(429, "slow down", {"Retry-After": "3600"}))
    client = rig.client(server)
    for _ in range(2):
        with pytest.raises(RateLimited):
            tags(client, server)
        client.forget_failures()
    assert len(server.paths()) == 1


@pytest.mark.parametrize("status", [408, 499, 500])
def test_f28_an_error_for_one_object_does_not_keep_us_from_the_others(rig: Rig, status: int) -> None:
    server = rig.server(registry())
    server.on("GET", "/tags/", reply(status))
    client = rig.client(server)
    with pytest.raises(RegistryUnavailable):
        tags(client, server)
    assert client.manifests.resolve(repository_of(server), "v1")


def test_f28_503_is_never_not_found_for_any_call(rig: Rig) -> None:
    application = registry()
    server = rig.server(application)
    server.on("*", "/v2/", reply(503))
    client = rig.client(server, retry=RetryPolicy(attempts=1, breaker_s=0.0001))
    blob = application.add_blob("demo/app", b"x" * 10)
    repository = repository_of(server)
    for call in (
        lambda: client.listing.tags(repository),
        lambda: client.manifests.resolve(repository, "v1"),
        lambda: client.manifests.fetch(repository, "v1"),
        lambda: list(client.blobs.stream(repository, blob)),
        lambda: client.blobs.range(repository, blob, 0, 5),
        lambda: client.referrers.of(repository, blob.digest),
        lambda: client.listing.repositories(server.address),
    ):
        with pytest.raises(RegistryUnavailable):
            call()


def test_f28_a_503_that_asks_to_wait_longer_than_we_can_ends_at_once(rig: Rig) -> None:
    server = rig.server(registry())
    server.on("GET", "/v2/", reply(503, headers={"Retry-After": "3600"}))
    with pytest.raises(RegistryUnavailable):
        tags(rig.client(server), server)
    assert len(server.paths()) == 1


def test_f28_retries_end_with_the_callers_deadline(rig: Rig) -> None:
    server = rig.server(registry())
    server.on("GET", "/v2/", reply(503))
    with under(Deadline(0.2)), pytest.raises((RegistryUnavailable, RegistryTimeout)):
        tags(rig.client(server, retry=RetryPolicy(attempts=1000, base_s=0.05, cap_s=0.05)), server)
    assert len(server.paths()) < 20


@pytest.mark.parametrize(
    "body",
    ['{"__type":"ThrottlingException","message":"Rate exceeded"}', '{"errors":[{"code":"TOOMANYREQUESTS"}]}'],
)
def test_f29_ecrs_400_for_throttling_is_a_rate_limit(rig: Rig, body: str) -> None:
    server = rig.server(registry())
    server.on("GET", "/tags/", reply(400, body), times=2)
    assert tags(rig.client(server), server) == ["v1"]
    server.on("GET", "/tags/", reply(400, body))
    with pytest.raises(RateLimited):
        tags(rig.client(server), server)


def test_a_plain_400_is_not_asked_again(rig: Rig) -> None:
    server = rig.server(registry())
    server.on("GET", "/tags/", reply(400, '{"errors":[{"code":"UNSUPPORTED"}]}'))
    with pytest.raises(BadContent):
        tags(rig.client(server), server)
    assert len(server.paths()) == 1


PAGE = "<!DOCTYPE html><html><body>Please accept our terms</body></html>"


@pytest.mark.parametrize("call", ["tags", "resolve", "manifest", "digest", "blob", "range", "catalog"])
def test_f30_a_web_page_with_200_is_an_error_for_every_call(rig: Rig, call: str) -> None:
    application = registry()
    blob = application.add_blob("demo/app", CONTENT)
    server = rig.server(application)
    digest = application.add_image("demo/app", "v1")
    server.on("*", "/v2/", reply(200, PAGE, {"Content-Type": "text/html"}))
    client, repository = rig.client(server), repository_of(server)
    calls: dict[str, Callable[[], object]] = {
        "tags": lambda: client.listing.tags(repository),
        "resolve": lambda: client.manifests.resolve(repository, "v1"),
        "manifest": lambda: client.manifests.fetch(repository, "v1"),
        "digest": lambda: client.manifests.fetch(repository, digest),
        "blob": lambda: list(client.blobs.stream(repository, blob)),
        "range": lambda: client.blobs.range(repository, blob, 5, 10),
        "catalog": lambda: client.listing.repositories(server.address),
    }
    with pytest.raises(BadContent):
        calls[call]()


def test_f30_a_web_page_from_a_mirror_makes_us_ask_the_registry(rig: Rig) -> None:
    application = registry()
    server, mirror = rig.server(application), rig.server()
    mirror.on("*", ".", reply(200, PAGE, {"Content-Type": "text/html"}))
    client, repository = rig.client(server, mirrors=[mirror]), repository_of(server)
    blob = application.add_blob("demo/app", CONTENT)
    assert client.listing.tags(repository) == ["v1"]
    assert client.manifests.fetch(repository, client.manifests.resolve(repository, "v1").digest).content
    assert b"".join(client.blobs.stream(repository, blob)) == CONTENT
    assert client.blobs.range(repository, blob, 4, 8) == CONTENT[4:8]


def test_what_is_left_of_the_quota_is_shown(rig: Rig) -> None:
    server = rig.server(registry())
    quota = changed(lambda right: right.with_header("RateLimit-Remaining", "76;w=21600"))
    server.on("HEAD", "/manifests/", quota)
    rig.client(server).manifests.resolve(repository_of(server), "v1")
    assert rig.stats.value(f"registry.ratelimit_remaining.{server.address}") == 76


def test_a_404_is_an_answer_and_not_asked_again(rig: Rig) -> None:
    server = rig.server(registry())
    with pytest.raises(NotFound):
        rig.client(server).listing.tags(repository_of(server, "demo/none"))
    assert len(server.paths()) == 1


def test_a_warning_of_the_registry_is_logged_once_and_changes_nothing(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    server = rig.server(registry())
    server.on("GET", ".", changed(lambda right: right.with_header("Warning", '299 - "this registry moves in May"')))
    server.on("HEAD", ".", changed(lambda right: right.with_header("Warning", "110 - stale")))
    client = rig.client(server)
    client.manifests.resolve(repository_of(server), "v1")
    assert tags(client, server) == tags(client, server) == ["v1"]
    assert caplog.text.count("moves in May") == 1
    assert "stale" not in caplog.text
