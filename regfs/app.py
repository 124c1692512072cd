"""Builds what is below the drivers, once, from a Config: store, registry client, images, tree.

Used by serve.py and the verbs of the command line. Everything else receives what it needs. Nothing here asks a
registry: regfs mounts and starts without a network.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from regfs import __version__
from regfs.config import Config
from regfs.errors import CacheFailure, InvalidOption
from regfs.images.hub_listing import HubListing
from regfs.images.image import Images
from regfs.images.layer_cache import LayerCache
from regfs.images.repositories import Repositories
from regfs.model.platform import host_platform
from regfs.registry.client import RegistryClient
from regfs.store.blobs import BlobStore
from regfs.store.image_numbers import ImageNumbers
from regfs.store.layer_store import LayerStore
from regfs.store.references import References
from regfs.store.work_locks import LOCKS, WorkLocks
from regfs.telemetry.journal import Journal
from regfs.telemetry.stats import Stats
from regfs.tree.control import ControlDirectory
from regfs.tree.inode_numbers import InodeNumbers
from regfs.tree.names_in_use import NamesInUse, UsedDirectories
from regfs.tree.root import Root
from regfs.tree.tree import Tree
from regfs.tree.usage import CacheUsage
from regfs.waiting.flights import Flights

if TYPE_CHECKING:
    from regfs.registry.parts import Parts

log = logging.getLogger(__name__)

# A short --timeout is for registries; a slow disk may take longer to take a layer's last bytes.
_LEAST_STALL_S = 60.0


@dataclass(frozen=True, slots=True)
class App:
    """What one process works with. *note* is for the user: the cache could not be used as asked."""

    stats: Stats
    journal: Journal
    layers: LayerStore
    registry: RegistryClient
    contents: LayerCache
    repositories: Repositories
    images: Images
    cache: Path
    note: str | None
    _temporary: tempfile.TemporaryDirectory[str] | None

    def tree(
        self,
        config: Config,
        texts_of_daemon: Mapping[str, Callable[[], str]],
        used_directories: UsedDirectories,
    ) -> Tree:
        """Return the tree that a mount shows.

        *texts_of_daemon* are files of `.regfs/` that the daemon writes; *used_directories* tells where in the mount
        processes are.
        """
        texts = {
            "version": lambda: f"regfs {__version__}\n",
            "stats.json": lambda: json.dumps(self.stats.snapshot(), indent=1) + "\n",
            "errors": self.journal.text,
            "fetching.json": self._fetching,
            **texts_of_daemon,
        }
        root = Root(
            config.default_registry, ControlDirectory(texts), self.repositories, self.images, config.insecure_registries
        )
        numbers = ImageNumbers(self.cache / "inode-numbers.sqlite")
        inode_numbers = InodeNumbers(numbers.number, only_32_bits=config.inode32)
        usage = CacheUsage(self.cache, lambda wait_s: self.layers.budget.standing(wait_s=wait_s))
        return Tree(
            root,
            numbers=inode_numbers,
            open_content=self.contents.open,
            cache=usage,
            names=NamesInUse(used_directories, self.journal.note),
            tables=self.layers.tables,
        )

    def _fetching(self) -> str:
        """Return what is being fetched and unpacked now, for `regfs status`."""
        passes = [
            {
                "origin": each.origin,
                "digest": str(each.digest),
                "size": each.size,
                "received": each.progress.received,
                "entries": each.progress.entries,
            }
            for each in self.contents.passing()
        ]
        return json.dumps(passes, indent=1) + "\n"

    def load_client(self) -> None:
        """Load what the first request to a registry needs: 150 ms that no start should wait for."""
        import regfs.registry.http.transport  # noqa: F401 (the client imports it for its first request)

        self.registry.load()

    def close(self) -> None:
        """Let what is cached reach the disk, and close what is open."""
        self.registry.close()
        try:
            self.layers.settle()
        except CacheFailure as failure:
            log.warning("%s", failure)
        self.layers.close()
        if self._temporary is not None:
            self._temporary.cleanup()


# With a shorter --timeout an operation gives up, but what was asked goes on for the next one that wants the answer.
_LEAST_S = 60.0
CACHE_PATH_MAX = 400
"""Bytes of the cache directory's path. SQLite's limit is 512 with all that it puts after a name; ours have 78."""


def build(config: Config, environment: Mapping[str, str], *, mountpoint: Path | None = None) -> App:
    """Return the rooms for *config*. A cache directory that cannot be used is replaced by one that goes with us.

    Raises InvalidOption where its path is too long for SQLite.
    """
    cache, temporary, note = _usable_cache(config.cache_dir)
    stats = Stats()
    journal = Journal(stats)
    layers = LayerStore(cache, limit=config.cache_size, note=journal.note)
    try:
        layers.recover()
    except CacheFailure as failure:
        log.warning("%s", failure)
    flights = Flights(max(config.timeout_s, _LEAST_S))
    registry = RegistryClient(lambda: _parts(config, environment, stats=stats, mountpoint=mountpoint))
    if config.insecure_registries:
        registry.load()  # what is no name of a registry is to be told at the start
    repositories = Repositories(
        registry,
        blobs=BlobStore(
            cache / "blobs", reserve=layers.budget.reserve, reserve_document=layers.budget.reserve_document
        ),
        references=References(cache / "references.sqlite"),
        flights=flights,
        stats=stats,
        tag_ttl_s=config.tag_ttl_s,
        hub=HubListing(lambda name: registry.hub.namespace(name).repositories, flights) if config.hub_listing else None,
        note=journal.note,
    )
    stall_s = max(config.timeout_s, _LEAST_STALL_S)
    contents = LayerCache(layers, cache / "images", flights=flights, stats=stats, stall_s=stall_s, note=journal.note)
    images = Images(contents, config.platform or host_platform())
    return App(stats, journal, layers, registry, contents, repositories, images, cache, note, temporary)


def _parts(config: Config, environment: Mapping[str, str], *, stats: Stats, mountpoint: Path | None) -> Parts:
    from regfs.registry.credentials.lookup import Credentials
    from regfs.registry.hosts.certificates import system_authorities
    from regfs.registry.hosts.endpoints import Hosts
    from regfs.registry.http.retry_policy import RetryPolicy
    from regfs.registry.http.sockets import Pace
    from regfs.registry.parts import Parts

    return Parts(
        Hosts.of_machine(environment, insecure=config.insecure_registries),
        Credentials(environment, mountpoint=mountpoint),
        stats,
        offline=config.offline,
        authorities=system_authorities(environment),
        pace=Pace(longest_s=max(config.timeout_s, _LEAST_S)),
        retry=RetryPolicy(tells_next_attempt=mountpoint is not None),  # a verb has ended by then
    )


def clean_up(rooms: App) -> None:
    """Remove what interrupted passes left in the cache, and what is too much of it. Takes as long as the disk does."""
    try:
        rooms.layers.sweep()
        WorkLocks(rooms.cache / LOCKS).sweep()
        rooms.layers.budget.trim()
    except CacheFailure as failure:
        log.warning("%s", failure)


def _usable_cache(wanted: Path) -> tuple[Path, tempfile.TemporaryDirectory[str] | None, str | None]:
    length = max(len(os.fsencode(os.path.abspath(wanted))), len(os.fsencode(os.path.realpath(wanted))))
    if length > CACHE_PATH_MAX:
        raise InvalidOption(
            f"the path of the cache directory has {length} bytes, and SQLite opens nothing below one of more than "
            f"{CACHE_PATH_MAX}: {wanted}; name a shorter one with --cache-dir"
        )
    try:
        wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=wanted):
            pass
    except OSError as error:
        temporary = tempfile.TemporaryDirectory(prefix="regfs-")
        remedy = f"using {temporary.name}, which is deleted at the end; choose another with --cache-dir"
        note = f"the cache directory {wanted} cannot be used ({error.strerror}): {remedy}"
        return Path(temporary.name), temporary, note
    return wanted, None, None
