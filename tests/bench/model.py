"""A model's weights, read through files/ as a program that runs it reads them."""

from __future__ import annotations

import mmap
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.bench.measure import Row, drop_page_cache, run, timed
from tests.support.artifacts import artifact_of, blob
from tests.support.mounted import Mounted
from tests.support.push import Pusher
from tests.support.registry import DockerRegistry

_SIZE = 1 << 30
_NAME = "model.safetensors"
_TIMES = 5


def rows(registry: DockerRegistry, drivers: Sequence[str], scratch: Path) -> list[Row]:
    """Return how fast a model of 1 GiB is read that is here, by read(2) and by mmap(2), and what ext4 does."""
    _push(registry)
    read = Row("sequential read of a 1 GiB model in files/, cold page cache", "MB/s", more_is_better=True)
    mapped = Row("  the same by mmap", "MB/s", more_is_better=True)
    directory = Path(tempfile.mkdtemp(dir=scratch))
    with ExitStack() as mounts:
        files = {}
        for driver in drivers:
            options = ["--driver", driver, "--default-registry", registry.address]
            mount = mounts.enter_context(Mounted(directory / driver, options=options, preloaded_runs=False))
            files[driver] = mount.path / f"bench/model/v1/files/{_NAME}"
            run(["cmp", files[driver], files[driver]])  # fetched
        files["ext4"] = directory / _NAME
        shutil.copyfile(files[drivers[0]], files["ext4"])
        for _ in range(_TIMES):  # in turn, as the speed of a disk varies from minute to minute
            for column, file in files.items():
                for row, work in ((read, _copy), (mapped, _map)):
                    row.values[column] = max(row.values.get(column, 0.0), _speed(file, work))
    read.goal, mapped.goal = 0.9 * read.values["ext4"], 0.9 * mapped.values["ext4"]
    read.note = f"goal: 0.9 of ext4; best of {_TIMES}"
    return [read, mapped]


def _push(registry: DockerRegistry) -> None:
    content = random.Random(5).randbytes(1 << 20) * (_SIZE >> 20)
    built = artifact_of(
        blob(content, "application/vnd.cncf.model.weight.v1.raw", {"org.cncf.model.filepath": _NAME}),
        kind="application/vnd.cncf.model.manifest.v1+json",
    )
    pusher = Pusher(registry.url)
    for each in (built.config, content):
        pusher.blob("bench/model", each)
    pusher.manifest("bench/model", "v1", built.manifest, "application/vnd.oci.image.manifest.v1+json")


def _speed(path: Path, work: Callable[[Path], None]) -> float:
    drop_page_cache()
    return _SIZE / timed(lambda: work(path)) / 1e6


def _copy(path: Path) -> None:
    run(["dd", f"if={path}", "of=/dev/null", "bs=1M"])


def _map(path: Path) -> None:
    """Touch each page of the mapped file, as inference does when it loads the weights."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        mapped.madvise(mmap.MADV_SEQUENTIAL)
        assert len(mapped[:: mmap.PAGESIZE]) == _SIZE // mmap.PAGESIZE
