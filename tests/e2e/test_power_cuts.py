"""Power cuts, simulated: the disk as it is at random instants, without what nothing had flushed to it yet.

The cache is on a file system in a file, by a loop device. A copy of that file is what a power cut would leave: its
journal is replayed when it is mounted. After the next start as on another boot nothing in it is torn.

REGFS_SOAK_CUTS says how often that is looked at: 3 times in the usual run. Run with -s to see what was found.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from regfs.errors import CacheDamaged, NotFound
from regfs.model.digest import Digest
from regfs.store.eviction.inventory import take_inventory
from regfs.store.layers.layer_store import LayerStore
from regfs.store.verify import verify
from tests.conftest import missing
from tests.support.kill_load import kill_load_images
from tests.support.mounted import Mounted
from tests.support.small_budget import FILES

CUTS = int(os.environ.get("REGFS_SOAK_CUTS", "3"))
MIB = 1 << 20
DISK, LIMIT = 192 * MIB, 10 * MIB
pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root to mount a file system in a file")


@contextmanager
def mounted(image: Path, at: Path) -> Iterator[Path]:
    """Mount the file system in *image*; its journal is replayed."""
    at.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-o", "loop", image, at], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        missing(f"this machine mounts no file system in a file: {done.stderr}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", at], check=True)


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """Let the processes write nothing while the block runs."""
    try:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty ext4 in the file `disk`, mounted at `cache`."""
    if shutil.which("mkfs.ext4") is None:
        missing("mkfs.ext4 is not installed (apt-get install e2fsprogs)")
    with (tmp_path / "disk").open("wb") as file:
        file.truncate(DISK)
    subprocess.run(["mkfs.ext4", "-q", tmp_path / "disk"], check=True)
    with mounted(tmp_path / "disk", tmp_path / "cache") as cache:
        yield cache


def wrong_chunks(store: LayerStore) -> list[str]:
    """Return the chunks of lazy layers that would be read, and are not what their digests say."""
    wrong = []
    for path in sorted((store.root / "layers").glob("*.chunks")):
        layer = Digest("sha256", path.stem)
        with suppress(NotFound, CacheDamaged):  # it is fetched again
            index, data = store.open_index(layer), store.partial_data(layer)
            chunks = list(index.chunks_by_place())
            absent = set(data.missing(chunks))
            wrong += [
                f"{path}: {chunk}" for chunk in chunks
                if chunk not in absent and not chunk.digest.matches(os.pread(data.fd, chunk.size, chunk.start))
            ]  # fmt: skip
    return wrong


@pytest.mark.timeout(300 + CUTS * 20)
def test_what_a_power_cut_leaves_is_right_or_absent(
    tmp_path: Path, needs_fuse: None, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance, ended, counts = random.Random(1), threading.Event(), [0, 0]
    with kill_load_images() as images:
        options = ["--default-registry", images.address, "--cache-size", f"{LIMIT >> 10}K"]

        def read(seed: int) -> None:
            own = random.Random(seed)
            while not ended.is_set():
                image, number = own.randrange(images.count), own.randrange(FILES)
                path = Path(mount.path, f"many/i{image}/v1/rootfs/file{number}")
                assert path.read_bytes() == images.content(image, number)

        with Mounted(tmp_path, options=options, cache=disk) as mount, ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(read, seed) for seed in range(2)]
            try:
                for number in range(CUTS):
                    time.sleep(chance.random())
                    if (
                        chance.random() < 0.5
                    ):  # another program flushes: what was renamed is there, its bytes may not be
                        (disk / "other").touch()
                        subprocess.run(["sync", "-d", disk / "other"], check=True)
                    copy = tmp_path / f"cut{number % 2}"
                    with stopped(mount.processes()):  # a power cut is one instant, a copy is not
                        subprocess.run(["cp", "--sparse=always", tmp_path / "disk", copy], check=True)
                    boot = f"boot {number}"  # chunks from another boot are hashed before use
                    monkeypatch.setattr("regfs.store.layers.wrong_layers.boot_id", lambda boot=boot: boot)
                    with mounted(copy, tmp_path / "after") as after:
                        torn = list(verify(after, drop=False))
                        store = LayerStore(after, boot=boot)
                        store.recover()
                        store.sweep()
                        left = [str(problem) for problem in verify(after, drop=False)]
                        counts[0] += len(torn)
                        left += wrong_chunks(store)
                        counts[1] += sum(take_inventory(after).counts().values())
                        store.budget.trim(0)
                        leaked = take_inventory(after).size
                    assert left == [], torn
                    assert leaked == 0
            finally:
                ended.set()
            for reader in readers:
                reader.result(timeout=120)
    print(f"\n{CUTS} power cuts: {counts[0]} torn files found and dropped of {counts[1]} that were there")
