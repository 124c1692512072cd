"""cachetools' caches are not safe for threads: each one that threads share is touched under its owner's lock alone."""

from __future__ import annotations

import contextlib
from typing import Any

from cachetools import Cache

from regfs.errors import RegfsError
from regfs.registry.client import RegistryClient
from tests.support.client_rig import Rig, repository_of
from tests.support.fault_server import reply
from tests.support.memory_registry import MemoryRegistry

_USES = ("__getitem__", "__setitem__", "__delitem__", "__contains__", "__len__", "get", "pop", "setdefault", "clear")


def guard(owner: object, *, seen: set[int], unlocked: list[str], found: list[str]) -> None:
    """Let every cache below *owner* note in *unlocked* when it is used while its owner's lock is free."""
    if id(owner) in seen or not type(owner).__module__.startswith("regfs."):
        return
    seen.add(id(owner))
    for name, value in dict(getattr(owner, "__dict__", {})).items():
        if isinstance(value, Cache):
            found.append(name)
            value.__class__ = guarded(type(value), owner, name, unlocked)
        guard(value, seen=seen, unlocked=unlocked, found=found)


def guarded(kind: type[Cache[Any, Any]], owner: Any, name: str, unlocked: list[str]) -> type[Cache[Any, Any]]:
    def noting(use: str) -> Any:
        def method(cache: Cache[Any, Any], *words: Any, **more: Any) -> Any:
            if not owner._lock.locked():
                unlocked.append(f"{type(owner).__name__}.{name}.{use}")
            return getattr(super(Guarded, cache), use)(*words, **more)

        return method

    class Guarded(kind):  # type: ignore[valid-type, misc]
        pass

    for use in _USES:
        setattr(Guarded, use, noting(use))
    return Guarded


def use_all(client: RegistryClient, rig: Rig, registry: MemoryRegistry, *, path: str = "demo/app") -> None:
    repository = repository_of(rig.servers[0], path)
    blob = registry.add_blob(path, b"content of a blob")
    document = client.manifests.resolve(repository, "v1")
    client.manifests.fetch(repository, document.digest)
    client.listing.tags(repository)
    client.referrers.of(repository, document.digest)
    assert b"".join(client.blobs.stream(repository, blob)) == b"content of a blob"
    client.blobs.range(repository, blob, 1, 5)
    with contextlib.suppress(RegfsError):
        client.listing.repositories(repository.registry)
    with contextlib.suppress(RegfsError):
        client.manifests.resolve(repository, "missing")


def test_a_table_that_threads_share_is_never_touched_without_its_lock(rig: Rig) -> None:
    registry = MemoryRegistry(users={}, tokens=True)
    registry.add_image("demo/app", "v1")
    registry.refresh_tokens = {"identity", "newer"}
    registry.token_fields = {"refresh_token": "newer", "expires_in": 300}
    server, mirror = rig.server(registry), rig.server(MemoryRegistry())
    client = rig.client(server, mirrors=[mirror])
    rig.write_config({"auths": {server.address: {"identitytoken": "identity"}}})
    use_all(client, rig, registry)
    unlocked: list[str] = []
    found: list[str] = []
    guard(client, seen=set(), unlocked=unlocked, found=found)
    assert {"_refresh_tokens", "_tokens", "_demands", "_said", "_slow", "_recent", "_failures"} <= set(found)
    registry.add_image("other/app", "v1")
    registry.revoke()
    use_all(client, rig, registry)
    use_all(client, rig, registry, path="other/app")
    server.on("GET", "/tags/", reply(400))
    with contextlib.suppress(RegfsError):
        client.listing.tags(repository_of(server))
    assert unlocked == []
