"""A mount that is shown image after image, while the kernel forgets none of them, stays as small as it was.

REGFS_SOAK_IMAGES says how many images of twelve layers are visited: 12 in the usual run, 2,000 for the promise. First
one after the other, then at random. Run with -s to see what the visits cost.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.fault_server import FaultServer
from tests.support.hello import host_architecture
from tests.support.images import BuiltImage, file, image_of, layer
from tests.support.memory_registry import MemoryRegistry
from tests.support.mounted import Mounted

IMAGES = int(os.environ.get("REGFS_SOAK_IMAGES", "12"))
LAYERS = 12
IN_A_REPOSITORY = 100
# With so few descriptors, and as many layers as the usual run has, none could keep one of its own.
FEW_DESCRIPTORS = 128
MOST_DESCRIPTORS = 500
MOST_RESIDENT = 150 << 20
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Figures:
    """What a process has at a moment: descriptors, resident bytes, seconds of CPU that it took until then."""

    descriptors: int
    resident: int
    cpu_s: float

    @classmethod
    def of(cls, pid: int) -> Figures:
        process = Path("/proc", str(pid))
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        times = (process / "stat").read_text().rpartition(")")[2].split()
        cpu_s = (int(times[11]) + int(times[12])) / _TICKS
        return cls(len(os.listdir(process / "fd")), int(status["VmRSS"].split()[0]) << 10, cpu_s)


def content_of(image: int, number: int) -> bytes:
    return f"layer {number} of image {image}\n".encode() * 50


def image(number: int) -> BuiltImage:
    """Return the image of that number; it shares no layer with any other."""
    layers = [
        layer(file(f"usr/share/doc/{own}/copyright", content_of(number, own)), file("last", content_of(number, own)))
        for own in range(LAYERS)
    ]
    return image_of(*layers, architecture=host_architecture())


def place_of(number: int) -> tuple[str, str]:
    """Return repository and tag of the image of that number."""
    return f"many/r{number // IN_A_REPOSITORY}", f"t{number % IN_A_REPOSITORY}"


@pytest.fixture
def many() -> Iterator[FaultServer]:
    """A registry with all the images."""
    registry = MemoryRegistry()
    for number in range(IMAGES):
        repository, tag = place_of(number)
        built = image(number)
        for content in built.blobs().values():
            registry.add_blob(repository, content)
        registry.add_manifest(repository, built.manifest, tag=tag, media_type=built.media_type)
    server = FaultServer(registry)
    yield server
    server.stop()


class Visits:
    """Visits images of *mount* and measures its daemon."""

    def __init__(self, mount: Mounted) -> None:
        self._mount = mount
        self._pid = mount.daemon
        self._inodes: dict[int, int] = {}
        self._random = random.Random(1)
        self.figures = [Figures.of(self._pid)]

    def walk(self, numbers: list[int]) -> None:
        """Visit the images of *numbers*, a hundred and a hundred measured."""
        for start in range(0, len(numbers), 100):
            part = numbers[start : start + 100]
            began = time.monotonic()
            for number in part:
                self._visit(number)
            took_s, before, now = time.monotonic() - began, self.figures[-1], Figures.of(self._pid)
            self.figures.append(now)
            each_ms = 1000 / len(part)
            print(
                f"{start:5} … {start + len(part):5}: {took_s * each_ms:6.1f} ms an image, daemon's CPU"
                f" {(now.cpu_s - before.cpu_s) * each_ms:6.1f} ms, {now.descriptors} descriptors,"
                f" {now.resident >> 20} MiB resident"
            )

    def _visit(self, number: int) -> None:
        rootfs = self._mount.path.joinpath(*place_of(number), "rootfs")
        assert os.listdir(rootfs) == ["last", "usr"]
        own = self._random.randrange(LAYERS)
        copyright_file = rootfs / f"usr/share/doc/{own}/copyright"
        assert copyright_file.read_bytes() == content_of(number, own)
        assert (rootfs / "last").read_bytes() == content_of(number, LAYERS - 1)
        inode = (rootfs / "last").stat().st_ino
        assert self._inodes.setdefault(number, inode) == inode


@pytest.mark.timeout(300 + IMAGES * 3)
def test_images_that_the_kernel_remembers_cost_neither_descriptors_nor_memory(
    many: FaultServer, driver: str, needs_fuse: None, tmp_path: Path
) -> None:
    options = ["--driver", driver, "--default-registry", many.address, "--tag-ttl", "1h"]
    mount = Mounted(tmp_path, options=options)
    few = min(FEW_DESCRIPTORS, MOST_DESCRIPTORS) if IMAGES < 1000 else 1024
    mount.command[:0] = ["prlimit", f"--nofile={few}:{few}"]
    with mount:
        visits = Visits(mount)
        visits.walk(list(range(IMAGES)))
        ingests = mount.stats()["layers.ingests"]
        at_random = random.Random(2).choices(range(IMAGES), k=IMAGES)
        visits.walk(at_random)
        assert ingests == mount.stats()["layers.ingests"] == IMAGES * LAYERS
        assert mount.stats()["images.merges"] == IMAGES
        assert mount.errors() == ""
        assert max(each.descriptors for each in visits.figures) <= min(MOST_DESCRIPTORS, few)
        assert max(each.resident for each in visits.figures) <= MOST_RESIDENT
        assert mount.stats()["bugs"] == 0
