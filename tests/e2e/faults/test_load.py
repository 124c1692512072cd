"""Quotas and servers that fail, seen by the user of a mount: F26 and F28 of the fault catalogue.

The variants of a fault run at once, each with a registry of its own: what is remembered of a host concerns it alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from regfs.model.digest import Digest
from tests.e2e.conftest import becomes
from tests.e2e.faults.conftest import by_itself
from tests.support.cache import blobs_in
from tests.support.fault_server import Action, reply
from tests.support.faulty_mount import FaultyMount
from tests.support.shorter_waits import WAIT_S
from tests.support.variants import all_at_once


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


TOO_LONG = {
    "a day": "86400",
    "more seconds than there are": "99999999999999999999",
    "a date": "Fri, 31 Dec 2100 23:59:59 GMT",
}


@by_itself
def test_f26_a_quota_that_is_used_up_is_told_at_once_and_costs_nothing_that_was_seen(faulty: FaultyMount) -> None:
    faulty.mount()
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


@by_itself
def test_f26_429_for_ever_costs_each_request_its_deadline_and_other_registries_nothing(faulty: FaultyMount) -> None:
    faulty.mount("--timeout", "500ms")
    registry = Registry(faulty)
    registry.is_wrong(reply(429, "slow down", {"Retry-After": "1"}))
    registry.costs_the_deadline("app/new/rootfs", os.listdir, f"tag {registry.server.address}/app:new")
    assert registry.is_asked_every(1.0)
    assert faulty.neighbour_lives()
    registry.recovers()


def test_f28_a_registry_that_is_down_is_left_alone_and_what_was_seen_stays(faulty: FaultyMount) -> None:
    faulty.mount()
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
    assert registry.is_asked_every(WAIT_S)
    assert faulty.neighbour_lives()
    assert "maintenance" in faulty.errors()
    assert registry.keeps_what_was_seen()
    registry.recovers()
    assert sorted(os.listdir(registry.path("app"))) == ["new", "seen"]
