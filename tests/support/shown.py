"""A tree without FUSE, over a real registry: what the mount's drivers ask, asked by path.

with Shown(tmp_path, default_registry=registry.address) as shown:
    shown.names("library/debian")
    shown.read("library/debian/12/digest")
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from regfs.images.hub_listing import HubListing
from regfs.images.image import Images
from regfs.images.layer_cache import LayerCache
from regfs.images.repositories import Repositories
from regfs.model.attributes import Attributes
from regfs.model.names import DOCKER_HUB
from regfs.model.node_id import ROOT
from regfs.model.platform import Platform
from regfs.registry.client import RegistryClient
from regfs.registry.credentials.lookup import Credentials
from regfs.registry.hosts.endpoints import Hosts
from regfs.registry.http.retry_policy import RetryPolicy
from regfs.registry.parts import Parts
from regfs.store.blobs import BlobStore
from regfs.store.image_numbers import ImageNumbers
from regfs.store.layer_store import LayerStore
from regfs.store.open_tables import OpenTables
from regfs.store.references import References
from regfs.telemetry.journal import Journal
from regfs.telemetry.stats import Stats
from regfs.tree.control import ControlDirectory
from regfs.tree.entry import FoundEntry, ListedEntry
from regfs.tree.inode_numbers import InodeNumbers
from regfs.tree.names_in_use import NamesInUse, UsedDirectories
from regfs.tree.root import Root
from regfs.tree.tree import Tree
from regfs.tree.usage import CacheUsage
from regfs.waiting.flights import Flights

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
        used_directories: UsedDirectories = tuple,
        tables: OpenTables | None = None,
        limit: int | None = None,
        hosts: Hosts | None = None,
        named: frozenset[str] = frozenset(),
    ) -> None:
        """Errors clear at once, unless *refused_s* says for how long wrong layers are remembered.

        *stall_s* is how long a pass or a merge may stand still; *store* may be one whose disk misbehaves.
        *hub_url* takes the place of Docker Hub's API, and lets it be asked. *used_directories* tells where in
        the mount processes are.
        """
        self.stats = Stats()
        self.journal = Journal(self.stats)
        self.cache = directory
        flights = Flights()
        self._store = store(directory, tables=tables, limit=limit)
        self.tables = self._store.tables
        hub = {"hub_url": hub_url} if hub_url else {}
        retry = RetryPolicy(base_s=0.01, breaker_s=0.0)
        credentials = Credentials({"HOME": "/nonexistent"})
        self._client = RegistryClient(
            lambda: Parts(hosts or Hosts(), credentials, self.stats, offline=offline, retry=retry, **hub)
        )
        images = directory / "images"
        self.contents = LayerCache(
            self._store,
            images,
            flights=flights,
            stats=self.stats,
            refused_s=refused_s,
            stall_s=stall_s,
            note=self.journal.note,
        )
        self.repositories = Repositories(
            self._client,
            blobs=BlobStore(directory / "blobs"),
            references=References(directory / "references.sqlite"),
            flights=flights,
            stats=self.stats,
            tag_ttl_s=tag_ttl_s,
            hub=HubListing(lambda name: self._client.hub.namespace(name).repositories, flights) if hub_url else None,
            note=self.journal.note,
        )
        self.images = Images(self.contents, platform)
        control = ControlDirectory({"version": lambda: "0\n", "errors": self.journal.text})
        root = Root(default_registry, control, self.repositories, self.images, named)
        self.numbers = ImageNumbers(directory / "inode-numbers.sqlite")
        inode_numbers = InodeNumbers(self.numbers.number, only_32_bits=inode32)
        self.tree = Tree(
            root,
            numbers=inode_numbers,
            open_content=self.contents.open,
            cache=CacheUsage(directory),
            names=NamesInUse(used_directories, self.journal.note, held_s=0.0),
            tables=self._store.tables,
        )

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
        self._client.close()
        self.numbers.close()
        self._store.settle()
        self._store.close()
