"""The composition root: builds everything below the drivers from a Config, once, in the order in which it is used.

    Config → registry client → images → tree        the daemon adds a session, and the verbs use what they need

Used by the daemon, by the verbs and by tests; every other module is handed what it needs. Nothing here asks a registry,
so that regfs mounts and starts without a network.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from regfs.app.cache_directory import TemporaryCache, temporary_cache, usable_cache
from regfs.app.config import Config
from regfs.app.control import control_directory, control_texts
from regfs.app.policy import judge_of
from regfs.errors import CacheFailure
from regfs.images.layers.layer_cache import REFUSED_S, LayerCache
from regfs.images.lazy.background_fetch import Fetching
from regfs.images.pinned_images import Images
from regfs.images.repositories import Repositories
from regfs.model.platform import host_platform
from regfs.process.waiting.single_flight import Flights
from regfs.registry.client import RegistryClient
from regfs.store.blobs import BlobStore
from regfs.store.images.image_numbers import ImageNumbers
from regfs.store.layers.layer_store import LayerStore
from regfs.store.locks.work_locks import LOCKS, WorkLocks
from regfs.store.references.references import References
from regfs.telemetry.journal import Journal
from regfs.telemetry.request_log import RequestLog
from regfs.telemetry.stats import Stats
from regfs.tree.cached_parts import Ids
from regfs.tree.inode_numbers import InodeNumbers
from regfs.tree.one_image import KeptRoot, OneImage
from regfs.tree.root import Root
from regfs.tree.tags_in_use import HELD_S, NamesInUse, UsedDirectories
from regfs.tree.tree import Tree
from regfs.tree.usage import CacheUsage

if TYPE_CHECKING:
    from regfs.images.starts.trace import Trace
    from regfs.registry.client_parts import Parts
    from regfs.registry.hosts.endpoints import Hosts
    from regfs.registry.http.retry_policy import RetryPolicy
    from regfs.store.tables.open_tables import OpenTables

log = logging.getLogger(__name__)

# A shorter --timeout ends the wait of one operation. The request goes on for the next operation that needs its answer,
# and a slow disk may take longer than that for the last bytes of a layer.
_LEAST_S = 60.0
_REFERENCES = "references.sqlite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """What a daemon tells the tree about its mount. A verb has no mount: nothing is in use.

    *texts* are the files of `.regfs/` that the daemon writes, by name. *used_directories* returns the directories of
    the mount that processes are in. Both are called by requests, never while the app is built. *trace* records every
    read of a file's bytes (`regfs record`).
    """

    point: Path | None = None
    texts: Mapping[str, Callable[[], str]] = field(default_factory=dict)
    used_directories: UsedDirectories = tuple
    trace: Trace | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Substitutes:
    """What tests replace; None or empty means what a daemon uses.

    *hub_url* takes the place of Docker Hub's API. *layer_store* makes the store, for example on a disk that hangs.
    A layer that proved wrong is tried again after *refused_s*. An ingest or merge without progress for *stall_s* is
    ended. *held_s*: how long the kernel may cache the old meaning of a name while a process uses it.
    """

    hosts: Hosts | None = None
    retry: RetryPolicy | None = None
    hub_url: str = ""
    layer_store: type[LayerStore] = LayerStore
    tables: OpenTables | None = None
    refused_s: float = REFUSED_S
    stall_s: float | None = None
    held_s: float = HELD_S


@dataclass(frozen=True, slots=True)
class App:
    """All parts of regfs in one process. *note* tells the user that the cache directory cannot be used as asked."""

    config: Config
    stats: Stats
    journal: Journal
    layers: LayerStore
    registry: RegistryClient
    layer_cache: LayerCache
    repositories: Repositories
    images: Images
    tree: Tree
    cache: Path
    note: str | None
    _image_numbers: ImageNumbers
    _temporary: TemporaryCache | None

    def load_client(self) -> None:
        """Load the modules that the first request to a registry needs. Takes 150 ms, so no start waits for it."""
        import regfs.registry.http.transport  # noqa: F401 (the client imports it for its first request)

        self.registry.load()

    def one_image(self, path: Sequence[str], kept: KeptRoot | None = None) -> OneImage:
        """Return the tree below the image at *path*, or the one in *kept*.

        The look-up may block on the network, and raises the errors of Tree.lookup.
        """
        return OneImage(self.tree, path, kept)

    def sweep(self) -> None:
        """Remove what killed processes left in the cache; files of running processes stay. Raises CacheFailure."""
        self.layers.sweep()
        WorkLocks(self.cache / LOCKS).sweep()

    def close(self) -> None:
        """Flush the cache to the disk and close all open files and connections. Logs a CacheFailure."""
        self.layer_cache.stop()
        self.registry.close()
        try:
            self.layers.settle()
        except CacheFailure as failure:
            log.warning("%s", failure)
        self.layers.close()
        self._shrink()
        self._image_numbers.close()
        if self._temporary is not None:
            self._temporary.close()

    def _shrink(self) -> None:
        """Bring the cache back to its limit. A daemon's thread does it in time, but a verb ends before that."""
        budget = self.layers.budget
        if budget.exceeded:
            try:
                budget.trim()
            except CacheFailure as failure:
                log.warning("%s", failure)


_NO_MOUNT = Mount()
_NO_SUBSTITUTES = Substitutes()


def build(
    config: Config,
    environment: Mapping[str, str],
    *,
    mount: Mount = _NO_MOUNT,
    substitutes: Substitutes = _NO_SUBSTITUTES,
) -> App:
    """Return the app for *config*. If the cache directory cannot be used, a temporary one replaces it.

    Raises InvalidOption where the path of the cache directory is too long for SQLite, or a policy cannot be read.
    """
    cache, temporary, note = usable_cache(config.cache_dir, offline=config.offline, references=_REFERENCES)
    stats = Stats()
    shared = _Shared(
        config=config,
        cache=cache,
        stats=stats,
        journal=Journal(stats),
        flights=Flights(max(config.timeout_s, _LEAST_S)),
        substitutes=substitutes,
        requests=RequestLog(),
    )
    layers = _layer_store(shared)
    registry = RegistryClient(lambda: _client_parts(shared, environment, mount))
    if config.insecure_registries:
        registry.load()  # reports an invalid registry name at the start
    repositories = _repositories(shared, registry, layers)
    layer_cache = _layer_cache(shared, layers)
    images = _images(config, layer_cache, environment)
    image_numbers = ImageNumbers(cache / "inode-numbers.sqlite")
    texts = control_texts(stats, shared.journal, shared.requests, layer_cache)
    control = control_directory(
        {**texts, **mount.texts},
        repositories.history,
        config.default_registry,
        layers=layers,
        images=images,
        owner=_user_of_cache(config),
    )
    root = Root(
        config.default_registry, control, repositories, images, config.insecure_registries, note=shared.journal.note
    )
    numbers = InodeNumbers(image_numbers.number, only_32_bits=config.inode32)
    tree = _tree(shared, mount, root, layers, layer_cache, numbers)
    return App(
        config, stats, shared.journal, layers, registry, layer_cache, repositories, images, tree, cache, note,
        image_numbers, temporary,
    )  # fmt: skip


def _tree(
    shared: _Shared, mount: Mount, root: Root, layers: LayerStore, layer_cache: LayerCache, numbers: InodeNumbers
) -> Tree:
    return Tree(
        root,
        numbers=numbers,
        open_content=layer_cache.open if mount.trace is None else mount.trace.opener(layer_cache.open),
        cache=CacheUsage(shared.cache, lambda wait_s: layers.budget.standing(wait_s=wait_s)),
        names=NamesInUse(mount.used_directories, shared.journal.note, held_s=shared.substitutes.held_s),
        tables=layers.tables,
    )


def _user_of_cache(config: Config) -> Ids:
    """Return the ids that the mount shows as those of this process."""
    # --owner subuid shows root's files as this user's.
    return Ids(0, 0) if config.owner == "subuid" else Ids(os.geteuid(), os.getegid())


def _images(config: Config, layer_cache: LayerCache, environment: Mapping[str, str]) -> Images:
    """Return the Images for the wanted platform. Raises InvalidOption where the policy cannot be read."""
    judge = judge_of(config.policy, environment, trusted_root=config.trusted_root)
    # A signature does not vouch for an index that only refers to the image.
    with_soci_v1 = config.soci_v1 and judge is None
    return Images(layer_cache, config.platform or host_platform(), with_soci_v1=with_soci_v1, judge=judge)


class _Shared(NamedTuple):
    """What build() hands to several parts of one app."""

    config: Config
    cache: Path
    stats: Stats
    journal: Journal
    flights: Flights
    substitutes: Substitutes
    requests: RequestLog


def _layer_store(shared: _Shared) -> LayerStore:
    layers = shared.substitutes.layer_store(
        shared.cache, limits=shared.config.limits, tables=shared.substitutes.tables, note=shared.journal.note
    )
    try:
        layers.recover()
    except CacheFailure as failure:
        log.warning("%s", failure)
    return layers


def _repositories(shared: _Shared, registry: RegistryClient, layers: LayerStore) -> Repositories:
    budget = layers.budget
    return Repositories(
        registry,
        store=BlobStore(shared.cache / "blobs", reserve=budget.reserve, reserve_document=budget.reserve_document),
        references=References(shared.cache / _REFERENCES),
        flights=shared.flights,
        stats=shared.stats,
        tag_ttl_s=shared.config.tag_ttl_s,
        hub_listing=shared.config.hub_listing,
        note=shared.journal.note,
    )


def _layer_cache(shared: _Shared, layers: LayerStore) -> LayerCache:
    stall_s = shared.substitutes.stall_s
    return LayerCache(
        layers,
        shared.cache / "images",
        flights=shared.flights,
        stats=shared.stats,
        refused_s=shared.substitutes.refused_s,
        stall_s=max(shared.config.timeout_s, _LEAST_S) if stall_s is None else stall_s,
        note=shared.journal.note,
        fetching=Fetching(background=shared.config.background_fetch, rest_from=shared.config.rest_from),
        make_overflow=partial(_overflow, shared, layers),
    )


def _overflow(shared: _Shared, layers: LayerStore) -> tuple[LayerCache, Callable[[], None]]:
    """Return a layer cache in a temporary directory, for what *layers* cannot take, and what removes it.

    Raises OSError.
    """
    temporary = temporary_cache()
    temporary.path.mkdir(mode=0o700, exist_ok=True)
    store = LayerStore(temporary.path, tables=layers.tables, note=shared.journal.note, names_only=True)
    store.unkept = layers.unkept
    cache = LayerCache(
        store,
        temporary.path / "images",
        flights=Flights(max(shared.config.timeout_s, _LEAST_S)),
        stats=shared.stats,
        refused_s=shared.substitutes.refused_s,
        note=shared.journal.note,
        lender=layers,
    )
    return cache, temporary.close


def _client_parts(shared: _Shared, environment: Mapping[str, str], mount: Mount) -> Parts:
    from regfs.registry.client_parts import Parts
    from regfs.registry.credentials.lookup import Credentials
    from regfs.registry.docker_hub import HUB_URL
    from regfs.registry.hosts.certificates import system_authorities
    from regfs.registry.hosts.endpoints import Hosts
    from regfs.registry.http.retry_policy import RetryPolicy
    from regfs.registry.http.sockets import Pace

    config, substitutes = shared.config, shared.substitutes
    return Parts(
        substitutes.hosts or Hosts.of_machine(environment, insecure=config.insecure_registries),
        Credentials(environment, mountpoint=mount.point),
        shared.stats,
        offline=config.offline,
        connections=config.connections,
        authorities=system_authorities(environment),
        pace=Pace(longest_s=max(config.timeout_s, _LEAST_S)),
        # A verb ends before the next attempt, so its message must not announce one.
        retry=substitutes.retry or RetryPolicy(tells_next_attempt=mount.point is not None),
        hub_url=substitutes.hub_url or HUB_URL,
        request_log=shared.requests,
    )
