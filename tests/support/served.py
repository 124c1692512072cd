"""A registry in memory, behind a server that misbehaves by rule, and trees of it.

    served.push("app", "1", image_of(layer(file("a"))))
    served.server.on("GET", "blobs", cut(1000), times=1)
    served.show().read("app/1/rootfs/a")

Thread rule: belongs to one test; what it shows may be asked by any thread.
"""

from __future__ import annotations

import threading
from pathlib import Path

from tests.support.cache import assert_cache_is_clean
from tests.support.fault_server import FaultServer
from tests.support.images import BuiltImage
from tests.support.memory_registry import MemoryRegistry
from tests.support.shown import Shown


class Served:
    """A registry in memory behind a server that misbehaves by rule (`server.on`), and trees of it on one cache."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.registry = MemoryRegistry()
        self.server = FaultServer(self.registry)
        self._shown: list[Shown] = []

    def push(self, name: str, tag: str, image: BuiltImage) -> BuiltImage:
        """Put *image* into the registry and let *tag* name it."""
        for content in image.blobs().values():
            self.registry.add_blob(name, content)
        self.document(name, tag, image.manifest, image.media_type)
        return image

    def document(self, name: str, tag: str, content: bytes, media_type: str) -> str:
        """Put any document into the registry, let *tag* name it, and return its digest."""
        return str(self.registry.add_manifest(name, content, tag=tag, media_type=media_type))

    def show(self, **options: object) -> Shown:
        """Return a tree; all of them share one cache."""
        shown = Shown(self.cache, default_registry=self.server.address, **options)  # type: ignore[arg-type]
        self._shown.append(shown)
        return shown

    def close(self) -> None:
        """Take everything down, and look at what is left in the cache."""
        self.server.stop()
        for thread in threading.enumerate():
            if thread.name.startswith("flight "):
                thread.join(60)  # work goes on after its last reader has gone
        for shown in self._shown:
            shown.__exit__(None, None, None)
        assert_cache_is_clean(self.cache)
