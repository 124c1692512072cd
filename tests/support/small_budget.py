"""More images than a cache may hold, read in random order, while something looks how much the cache holds.

    with many_images(60, size=20 << 20) as images, Mounted(…) as mount:
        watched = read_at_random(images, mount, reads=240, readers=2)

Thread rule: one thread calls; the readers and the watch are threads of read_at_random().
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from regfs.store.eviction.inventory import used_by
from tests.support.fault_server import FaultServer
from tests.support.hello import host_architecture
from tests.support.images import BuiltLayer, TarEntry, file, image_of, layer
from tests.support.memory_registry import MemoryRegistry
from tests.support.mounted import Mounted

FILES = 4
_LOOK_S = 0.005


@dataclass(frozen=True, slots=True)
class ManyImages:
    """*count* images of one layer each, of *size* bytes in *files* files, at the registry *address*."""

    address: str
    count: int
    size: int
    server: FaultServer
    files: int = FILES

    def content(self, image: int, number: int) -> bytes:
        """Return the bytes of one file."""
        return _content(image * self.files + number, self.size // self.files)


@dataclass(frozen=True, slots=True)
class Watched:
    """The most bytes that the cache held, what was read, wrong reads, and how long all took."""

    most_bytes: int
    read_bytes: int
    wrong: list[str]
    seconds: float


def _content(seed: int, size: int) -> bytes:
    part = random.Random(seed).randbytes(4096 + seed % FILES)
    return (part * (size // len(part) + 1))[:size]


def _plain(*entries: TarEntry) -> BuiltLayer:
    return layer(*entries, compression="none")


@contextmanager
def many_images(
    count: int, *, size: int, files: int = FILES, builders: Sequence[Callable[..., BuiltLayer]] = (_plain,)
) -> Iterator[ManyImages]:
    """Yield *count* images on a registry of their own; in no two images a file has the same bytes.

    Layers are made by *builders* in turn.
    """
    registry = MemoryRegistry()
    for image in range(count):
        entries = [file(f"file{n}", _content(image * files + n, size // files)) for n in range(files)]
        built = image_of(builders[image % len(builders)](*entries), architecture=host_architecture())
        for content in built.blobs().values():
            registry.add_blob(f"many/i{image}", content)
        registry.add_manifest(f"many/i{image}", built.manifest, tag="v1", media_type=built.media_type)
    with FaultServer(registry) as server:
        yield ManyImages(server.address, count, size, server, files)


def read_at_random(images: ManyImages, mount: Mounted, *, reads: int, readers: int, seed: int = 1) -> Watched:
    """Let *readers* threads read *reads* files of the images of *mount* in all, and compare every byte."""
    ended, wrong, most = threading.Event(), [], [0]

    def watch() -> None:
        while not ended.wait(_LOOK_S):
            most[0] = max(most[0], used_by(mount.cache))

    def read(chance: random.Random) -> int:
        image, number = chance.randrange(images.count), chance.randrange(images.files)
        path = Path(mount.path, f"many/i{image}/v1/rootfs/file{number}")
        try:
            found = path.read_bytes()
        except OSError as error:
            wrong.append(f"{path}: {error}")
            return 0
        if found != images.content(image, number):
            wrong.append(f"{path}: other bytes")
        return len(found)

    watching = threading.Thread(target=watch)
    watching.start()
    began = time.monotonic()
    try:
        with ThreadPoolExecutor(readers) as pool:
            total = sum(pool.map(read, [random.Random(f"{seed} {number}") for number in range(reads)]))
    finally:
        ended.set()
        watching.join()
    return Watched(most[0], total, wrong, time.monotonic() - began)
