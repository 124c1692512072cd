"""Quotas and servers that fail, seen by the user of a mount: F25 to F30 of the fault catalogue.

The variants of a fault run at once, each with a registry of its own: what is remembered of a host concerns it alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from regfs.model.digest import Digest
from tests.e2e.conftest import becomes
from tests.support.cache import blobs_in
from tests.support.fault_server import Action, Connection, Response, reply
from tests.support.faulty_mount import FaultyMount, all_at_once
from tests.support.memory_registry import MemoryRegistry

PAGE = b"<!DOCTYPE html><html><body>Please sign in to the hotel's network</body></html>"
WEB_PAGE = reply(200, PAGE, {"Content-Type": "text/html"})
THROTTLED_BY_ECR = '{"__type":"ThrottlingException","message":"Rate exceeded"}'


class Registry:
    """A registry of its own: app:seen was read before anything goes wrong, app:new was not."""

    def __init__(self, faulty: FaultyMount) -> None:
        self.faulty = faulty
        self.server = faulty.new_server()
        self.new = faulty.push_app(tag="new", server=self.server)
        self.seen = faulty.push_app(tag="seen", server=self.server)
        assert self.reads("seen")
        assert sorted(faulty.patiently(lambda: os.listdir(self.path("app")))) == ["new", "seen"]
        self._pattern, self._before, self._since_s = "", 0, 0.0

    def path(self, name: str) -> Path:
        return self.faulty.path(name, server=self.server)

    def motd(self, tag: str) -> Path:
        return self.path(f"app/{tag}/rootfs/motd")

    def reads(self, tag: str) -> bool:
        """Tell whether the file of that app has the bytes that were pushed."""
        return self.faulty.reads(self.motd(tag))

    def fails(self, name: str, do: Callable[[Path], object] = os.listdir) -> str:
        """Return the errno that *do* fails with at *name*."""
        return self.faulty.fails(self.path(name), do)

    def is_wrong(self, action: Action, *, pattern: str = "/v2/", times: int | None = None) -> None:
        """Let *action* answer what has *pattern* in its path; such requests are counted from here on."""
        self._pattern, self._before, self._since_s = pattern, len(self.server.paths(pattern)), time.monotonic()
        self.server.on("*", pattern, action, times=times)

    def asked(self) -> int:
        """Return how many of the requests came for which something is wrong."""
        return len(self.server.paths(self._pattern)) - self._before

    def is_asked_every(self, seconds: float) -> bool:
        """Tell whether no more requests came than two, and one for each so many *seconds* since something is wrong."""
        return self.asked() <= 2 + (time.monotonic() - self._since_s) / seconds

    def costs_the_deadline(self, name: str, do: Callable[[Path], object], what: str) -> None:
        """Insist that *do* misses its deadline at *name* for want of *what*; a busy machine may miss it before that."""
        becomes(lambda: (self.fails(name, do), what in self.faulty.errors()), ("ETIMEDOUT", True))

    def keeps_what_was_seen(self) -> bool:
        """Tell whether the cache still has the documents of the app that was read."""
        return {str(self.seen.digest), str(Digest.of(self.seen.config))} <= blobs_in(self.faulty.cache)

    def recovers(self) -> None:
        """Insist that the app that could not be had is there once the registry behaves."""
        self.server.heal()
        self.faulty.recovers(self.motd("new"))


@dataclass
class Quota:
    """Answer 429 for a second from the first request on, and then what is right."""

    refused: int = 0
    until: float = field(default=0.0)

    def __call__(self, connection: Connection) -> bool:
        now = time.monotonic()
        self.until = self.until or now + 1.0
        if now >= self.until:
            return connection.answer(connection.right())
        self.refused += 1
        return connection.answer(Response(429, (("Retry-After", "1"),), b"slow down"))


def test_f25_429_is_waited_out_and_nothing_is_asked_before_its_time(faulty: FaultyMount) -> None:
    faulty.mount("--timeout", "60s")

    def check(_name: str, pattern: str) -> None:
        registry = Registry(faulty)
        quota = Quota()
        registry.is_wrong(quota, pattern=pattern)
        if "tags" in pattern:
            assert sorted(os.listdir(registry.path("app"))) == ["new", "seen"]
        assert registry.reads("new")
        assert quota.refused == 1

    all_at_once(check, {"tags": "/tags/", "tag": "/manifests/new", "manifest": "/manifests/sha256", "blobs": "/blobs/"})
    assert faulty.errors() == ""


TOO_LONG = {
    "a day": "86400",
    "more seconds than there are": "99999999999999999999",
    "a date": "Fri, 31 Dec 2100 23:59:59 GMT",
}


def test_f26_a_quota_that_is_used_up_is_told_at_once_and_costs_nothing_that_was_seen(faulty: FaultyMount) -> None:
    faulty.mount("--timeout", "60s")
    registries: list[Registry] = []

    def check(_name: str, after: str) -> None:
        registry = Registry(faulty)
        registries.append(registry)
        registry.is_wrong(reply(429, "slow down", {"Retry-After": after}))
        assert registry.fails("app/new/rootfs") == "EBUSY"
        assert registry.fails("app/new/manifest.json", Path.read_bytes) == "EBUSY"
        assert registry.fails("app/new/layers") == "EBUSY"
        assert registry.asked() == 1
        assert registry.reads("seen")
        assert sorted(os.listdir(registry.path("app"))) == ["new", "seen"]
        assert registry.asked() == 1
        assert f"/app/new: RateLimited: {registry.server.address}: too many requests" in faulty.errors()
        assert registry.keeps_what_was_seen()

    all_at_once(check, TOO_LONG)
    faulty.heal()
    faulty.remount()  # what a registry asked for is kept to for as long as the mount lives, up to ten minutes
    for registry in registries:
        assert registry.reads("new")


SENSELESS = {"negative": "-5", "a word": "abc", "past": "Sat, 01 Jan 2000 00:00:00 GMT", "empty": "", "missing": None}


def after(value: str | None) -> dict[str, str]:
    return {} if value is None else {"Retry-After": value}


def test_f26_a_retry_after_without_sense_is_as_none(faulty: FaultyMount) -> None:
    faulty.mount("--timeout", "60s")

    def check(_name: str, value: str | None) -> None:
        registry = Registry(faulty)
        registry.is_wrong(reply(429, "slow down", after(value)), times=2)
        assert registry.reads("new")

    all_at_once(check, SENSELESS)
    assert faulty.errors() == ""


def test_f26_429_for_ever_costs_who_asks_their_deadline_and_nobody_else_anything(faulty: FaultyMount) -> None:
    faulty.mount("--timeout", "3s")
    registry = Registry(faulty)
    registry.is_wrong(reply(429, "slow down", {"Retry-After": "4"}))
    registry.costs_the_deadline("app/new/rootfs", os.listdir, f"tag {registry.server.address}/app:new")
    assert registry.is_asked_every(4.0)
    assert faulty.neighbour_lives()
    registry.recovers()


def test_f27_a_server_error_that_passes_is_not_noticed(faulty: FaultyMount) -> None:
    faulty.mount("--timeout", "60s")

    def check(_name: str, status: int) -> None:
        registry = Registry(faulty)
        registry.is_wrong(reply(status, "oops"), pattern="/manifests/|/blobs/", times=2)
        assert registry.reads("new")

    statuses = (408, 499, 500, 502, 503, 504, 522)
    all_at_once(check, {str(status): status for status in statuses})
    assert faulty.errors() == ""
    assert faulty.mounted.stats()["registry.retries"] >= len(statuses)


def test_f28_a_registry_that_is_down_is_left_alone_and_what_was_seen_stays(faulty: FaultyMount) -> None:
    faulty.mount("--timeout", "60s")
    registry = Registry(faulty)
    registry.is_wrong(
        reply(503, '{"errors":[{"code":"UNAVAILABLE","message":"maintenance"}]}', {"Retry-After": "3600"})
    )
    assert registry.fails("other") == "EHOSTUNREACH"
    assert registry.fails("app/new/rootfs") == "EHOSTUNREACH"
    assert registry.fails("app/new/config.json", Path.read_bytes) == "EHOSTUNREACH"
    assert registry.fails("app/new", os.listdir) == "EHOSTUNREACH"
    assert registry.reads("seen")
    assert sorted(os.listdir(registry.path("app"))) == ["new", "seen"]
    assert registry.is_asked_every(5.0)
    assert faulty.neighbour_lives()
    assert "maintenance" in faulty.errors()
    assert registry.keeps_what_was_seen()
    registry.recovers()
    assert sorted(os.listdir(registry.path("app"))) == ["new", "seen"]


def test_f28_a_server_error_for_ever_is_unreachable_after_five_attempts_and_never_missing(faulty: FaultyMount) -> None:
    faulty.mount("--timeout", "60s")

    def check(_name: str, status: int) -> None:
        registry = Registry(faulty)
        registry.is_wrong(reply(status, "oops"))
        assert registry.fails("app/new/rootfs") == "EHOSTUNREACH"
        # Five for whether `app` exists, five for what its tag is. A HEAD that fails with 500 may be at fault itself: it
        # is not repeated, the GET after it is. A registry that failed several times is left alone in between.
        assert 5 <= registry.asked() <= (11 if status == 500 else 10)
        assert faulty.neighbour_lives()
        assert f"RegistryUnavailable: the tags of {registry.server.address}/app" in faulty.errors() or (
            f"RegistryUnavailable: {registry.server.address}/app:new" in faulty.errors()
        )

    all_at_once(check, {str(status): status for status in (500, 502, 503, 504)})


def test_f28_a_server_error_for_ever_costs_who_asks_their_deadline(faulty: FaultyMount) -> None:
    faulty.mount("--timeout", "3s")
    registry = Registry(faulty)
    registry.is_wrong(reply(503, headers={"Retry-After": "4"}), pattern="/app/")
    registry.costs_the_deadline("app/new/rootfs", os.listdir, f"tag {registry.server.address}/app:new")
    assert registry.is_asked_every(4.0)
    registry.recovers()


def test_f28_an_object_that_cannot_be_had_does_not_cost_the_others(faulty: FaultyMount) -> None:
    faulty.mount("--timeout", "3s")
    registry = Registry(faulty)
    config = str(Digest.of(registry.new.config))
    registry.is_wrong(reply(500, headers={"Retry-After": "4"}), pattern=f"/blobs/{config}")
    registry.costs_the_deadline("app/new/config.json", Path.read_bytes, config)
    assert registry.is_asked_every(4.0)
    layer = registry.new.layers[0]
    assert faulty.patiently(registry.path(f"app/new/blobs/{layer.digest}").read_bytes) == layer.blob
    registry.recovers()


def test_f29_ecrs_400_for_throttling_is_waited_out(faulty: FaultyMount) -> None:
    faulty.mount("--timeout", "60s")

    def check(_name: str, body: str) -> None:
        registry = Registry(faulty)
        registry.is_wrong(reply(400, body), pattern="/manifests/sha256|/blobs/", times=2)
        assert registry.reads("new")

    all_at_once(check, {"its own": THROTTLED_BY_ECR, "the standard's": '{"errors":[{"code":"TOOMANYREQUESTS"}]}'})
    assert faulty.errors() == ""


def test_f29_ecrs_400_for_longer_is_a_used_up_quota_and_not_for_ever(faulty: FaultyMount) -> None:
    faulty.mount("--timeout", "60s")
    registry = Registry(faulty)
    registry.is_wrong(reply(400, THROTTLED_BY_ECR, {"Retry-After": "3600"}), pattern="/manifests/sha256")
    assert registry.fails("app/new/manifest.json", Path.read_bytes) == "EBUSY"
    assert registry.asked() == 1
    assert "Rate exceeded" in faulty.errors()
    assert registry.reads("seen")
    faulty.heal()
    faulty.remount()
    assert registry.reads("new")


# F30: the pattern that a web page answers, and where the user looks.
PAGES: Mapping[str, tuple[str, str, Callable[[Path], object]]] = {
    "tags": ("/tags/", "app", os.listdir),
    "tag": ("/manifests/new", "app/new/manifest.json", Path.read_bytes),
    "manifest": ("/manifests/sha256", "app/new/rootfs", os.listdir),
    "config": ("/blobs/", "app/new/config.json", Path.read_bytes),
    "layers": ("/blobs/", "app/new/rootfs", os.listdir),
}


def test_f30_a_web_page_is_an_error_and_is_not_kept(faulty: FaultyMount) -> None:
    faulty.mount("--timeout", "60s")

    def check(_name: str, where: tuple[str, str, Callable[[Path], object]]) -> None:
        pattern, name, do = where
        registry = Registry(faulty)
        registry.is_wrong(WEB_PAGE, pattern=pattern)
        assert registry.fails(name, do) == "EIO"
        assert registry.asked() <= 8
        assert f"{registry.server.address}/app" in faulty.errors()
        if "tags" not in pattern:
            assert registry.reads("seen")
        registry.server.heal()
        assert do(registry.path(name))
        registry.recovers()

    all_at_once(check, PAGES)
    assert str(Digest.of(PAGE)) not in blobs_in(faulty.cache)


def test_f30_a_web_page_for_a_catalog_leaves_the_known_names(faulty: FaultyMount) -> None:
    registry = Registry(faulty)
    registry.is_wrong(WEB_PAGE, pattern="/_catalog")
    assert os.listdir(faulty.mounted.path / registry.server.address) == ["app"]
    assert registry.reads("new")


def test_f30_a_web_page_for_a_token_is_a_denial(faulty: FaultyMount) -> None:
    server = faulty.new_server(MemoryRegistry(tokens=True))
    faulty.push_app(server=server)
    server.on("GET", "^/token", WEB_PAGE)
    motd = faulty.path("app/1/rootfs/motd", server=server)
    assert faulty.fails(motd, Path.read_bytes) == "EACCES"
    assert set(server.headers("authorization")) == {None}
    assert f"token server {server.address}" in faulty.errors()


def test_f30_a_web_page_from_a_mirror_makes_us_ask_the_registry(faulty: FaultyMount) -> None:
    mirror = faulty.other_server()
    mirror.on("*", "", WEB_PAGE)
    faulty.hosts_toml(faulty.server.address, f'server = "{faulty.server.url}"\n[host."{mirror.url}"]')
    faulty.push_app()
    assert os.listdir(faulty.path("app")) == ["1"]
    assert faulty.reads(faulty.path("app/1/rootfs/motd"))
    assert len(mirror.paths()) >= 1
    assert faulty.errors() == ""
