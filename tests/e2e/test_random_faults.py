"""A mount with readers, tags that move and a registry that misbehaves at random. REGFS_SOAK_S says for how long (1 s).

Every read is right or an error, no wait is longer than its deadline, and nothing wrong is kept: `regfs cache verify`.
"""

from __future__ import annotations

import errno
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MountRegfs
from tests.support.fault_server import FaultServer
from tests.support.memory_registry import MemoryRegistry
from tests.support.mounted import regfs_command
from tests.tree.test_random_faults import Misbehaving, version

SOAK_S = float(os.environ.get("REGFS_SOAK_S", "1"))
READERS = 6
TIMEOUT_S = 20
BASE = b"base" * 30_000
# None of the faults says that something is missing, and what one asks for is always well-formed.
NEVER = (errno.ENOENT, errno.EINVAL, errno.ESTALE, errno.ENOTCONN, errno.EAGAIN)


class Published:
    """The repository `app`, whose tag `now` moves on and on."""

    def __init__(self, registry: MemoryRegistry) -> None:
        self._registry = registry
        self.count = 0

    def publish(self) -> None:
        """Let the tag be the next version."""
        image = version(self.count + 1)
        for content in image.blobs().values():
            self._registry.add_blob("app", content)
        self._registry.add_manifest("app", image.manifest, tag="now", media_type=image.media_type)
        self.count += 1

    def is_version(self, content: bytes) -> bool:
        """Tell whether *content* is what some version's files have."""
        return content in {b"version %d" % number for number in range(1, self.count + 1)}


class Reader:
    """Reads in a thread until told to stop, and keeps what it finds wrong."""

    def __init__(self, mount: Path, published: Published, seed: int) -> None:
        self.right, self.failed, self.slowest_s = 0, 0, 0.0
        self.wrong: list[str] = []
        self._rootfs = mount / "app/now/rootfs"
        self._published = published
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(8 * TIMEOUT_S)
        assert not self._thread.is_alive(), "a reader hangs"

    def _run(self) -> None:
        while not self._stop.is_set():
            begun_s = time.monotonic()
            try:
                self._step()
                self.right += 1
            except OSError as error:
                self.failed += 1
                if error.errno in NEVER:
                    self.wrong.append(f"{error}")
            self.slowest_s = max(self.slowest_s, time.monotonic() - begun_s)

    def _step(self) -> None:
        name = self._random.choice(["one", "two", "base", ""])
        if not name:
            if sorted(os.listdir(self._rootfs)) != ["base", "one", "two"]:
                self.wrong.append(f"{os.listdir(self._rootfs)}")
            return
        content = (self._rootfs / name).read_bytes()
        if content != BASE if name == "base" else not self._published.is_version(content):
            self.wrong.append(f"{name}: {content[:60]!r} ({len(content)} bytes)")


@pytest.fixture
def registry() -> Iterator[tuple[FaultServer, Published]]:
    memory = MemoryRegistry()
    published = Published(memory)
    published.publish()
    server = FaultServer(memory)
    yield server, published
    server.stop()


@pytest.mark.timeout(int(SOAK_S) + 300)
@pytest.mark.parametrize("driver", ["kernel", "fusepy"])
def test_a_mount_over_a_misbehaving_registry_is_right_or_fails(
    registry: tuple[FaultServer, Published], mount_regfs: MountRegfs, driver: str
) -> None:
    server, published = registry
    options = ["--driver", driver, "--default-registry", server.address, "--tag-ttl", "200ms"]
    mount = mount_regfs(*options, "--timeout", f"{TIMEOUT_S}s", shorter_waits=True)
    server.on("GET", "", Misbehaving(seed=1))
    server.on("HEAD", "", Misbehaving(seed=2))
    readers = [Reader(mount.path, published, seed) for seed in range(READERS)]
    end_s = time.monotonic() + SOAK_S
    while time.monotonic() < end_s:
        time.sleep(0.25)
        published.publish()
    for reader in readers:
        reader.stop()
    print(
        [(reader.right, reader.failed, round(reader.slowest_s, 1)) for reader in readers], published.count, "versions"
    )
    assert [wrong for reader in readers for wrong in reader.wrong] == []
    assert max(reader.slowest_s for reader in readers) < 6 * TIMEOUT_S  # one step looks names up, opens and reads
    verified = mount.run(*regfs_command(), "cache", "verify", "--cache-dir", mount.cache, check=False)
    assert verified.returncode == 0, verified.stdout + verified.stderr
