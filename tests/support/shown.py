"""A tree without FUSE, over a real registry: what the mount's drivers ask, asked by path.

with Shown(tmp_path, default_registry=registry.address) as shown:
    shown.names("library/debian")
    shown.read("library/debian/12/digest")
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from regfs.app import composition
from regfs.app.composition import Mount, Substitutes
from regfs.app.config import Config
from regfs.model.attributes import Attributes
from regfs.model.names import DOCKER_HUB
from regfs.model.node_id import ROOT
from regfs.model.platform import Platform
from regfs.registry.hosts.endpoints import Hosts
from regfs.registry.http.retry_policy import RetryPolicy
from regfs.store.layers.layer_store import LayerStore
from regfs.store.tables.open_tables import OpenTables
from regfs.tree.entry import FoundEntry, ListedEntry
from regfs.tree.tags_in_use import UsedDirectories

AMD64 = Platform("linux", "amd64")


class Shown:
    """A tree of its own; the cache is at *directory*, which other trees may share."""

    def __init__(
        self,
        directory: Path,
        *,
        default_registry: str = DOCKER_HUB,
        tag_ttl_s: float = 60.0,
        platform: Platform = AMD64,
        offline: bool = False,
        refused_s: float = 0.0,
        stall_s: float = 300.0,
        store: type[LayerStore] = LayerStore,
        hub_url: str = "",
        inode32: bool = False,
        background_fetch: bool = False,
        rest_from: float = 1 / 3,
        soci_v1: bool = False,
        policy: str = "none",
        trusted_root: str = "",
        used_directories: UsedDirectories = tuple,
        tables: OpenTables | None = None,
        limit: int | None = None,
        hosts: Hosts | None = None,
        named: frozenset[str] = frozenset(),
    ) -> None:
        """Errors clear at once, unless *refused_s* says for how long wrong layers are remembered.

        *stall_s* is how long an ingest or a merge may stand still; *store* may be one whose disk misbehaves.
        *hub_url* takes the place of Docker Hub's API, and lets it be asked. *used_directories* tells where in
        the mount processes are.
        """
        config = Config(
            default_registry=default_registry,
            insecure_registries=named,
            platform=platform,
            tag_ttl_s=tag_ttl_s,
            hub_listing=bool(hub_url),
            offline=offline,
            cache_dir=directory,
            cache_size=limit,
            inode32=inode32,
            background_fetch=background_fetch,
            rest_from=rest_from,
            soci_v1=soci_v1,
            policy=policy,
            trusted_root=trusted_root,
        )
        substitutes = Substitutes(
            hosts=hosts or Hosts(),
            retry=RetryPolicy(base_s=0.01, breaker_s=0.0),
            hub_url=hub_url,
            layer_store=store,
            tables=tables,
            refused_s=refused_s,
            stall_s=stall_s,
            held_s=0.0,
        )
        self.app = composition.build(
            config, {"HOME": "/nonexistent"}, mount=Mount(used_directories=used_directories), substitutes=substitutes
        )
        self.tree = self.app.tree
        self.stats = self.app.stats
        self.journal = self.app.journal
        self.repositories = self.app.repositories
        self.images = self.app.images
        self.contents = self.app.layer_cache
        self.tables = self.app.layers.tables
        self.cache = self.app.cache

    def find(self, path: str | bytes) -> FoundEntry:
        """Return the node at *path*, looked up component by component."""
        found = self.tree.attributes(ROOT)
        for name in (path.encode() if isinstance(path, str) else path).split(b"/"):
            if name:
                found = self.tree.lookup(found.node, name)
        return found

    def attributes(self, path: str | bytes) -> Attributes:
        """Return what stat(2) would tell of *path*."""
        return Attributes.unpack(self.find(path).attributes[8:])

    def inode(self, path: str | bytes) -> int:
        """Return the inode number of *path*."""
        return int.from_bytes(self.find(path).attributes[:8], "little")

    def names(self, path: str | bytes = "") -> list[str]:
        """Return what `ls` would show of *path*."""
        listed = self.tree.listing(self.find(path).node).entries(0, 1 << 30)
        return [entry.name.decode("utf-8", "surrogateescape") for entry in listed]

    def listed(self, path: str | bytes, name: bytes) -> ListedEntry:
        """Return what a listing of *path* tells of *name* at once, as READDIRPLUS does; counts as a look-up."""
        listing = self.tree.listing(self.find(path).node)
        names = [entry.name for entry in listing.entries(0, 1 << 20)]
        return listing.at_once(names.index(name))

    def read(self, path: str | bytes) -> bytes:
        """Return the bytes of the file at *path*."""
        opened = self.tree.open(self.find(path).node)
        try:
            return opened.read_at(0, 1 << 30)
        finally:
            opened.close()

    def link(self, path: str | bytes) -> bytes:
        """Return where the symbolic link at *path* points."""
        return self.tree.read_link(self.find(path).node)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.app.close()
