"""The images that are measured, in a registry that is kept between runs outside of the repository.

    library/hello-world:latest   one static program
    bench/science:v1             Debian with python3, numpy and pandas, three layers with deletions: minutes, once
    bench/big:v1                 one file of 1 GiB
    bench/small:v1               4,000 files of 4 KiB in 40 directories
    bench/wire:v1                one file of 480 MB that no compression makes smaller, in a plain tar
    bench/unshared:a, :b         40,000 files, 1 GB, in one layer: equal but for their times, so that no layer is shared
    bench/million:v1             a million files in 1,000 directories
    bench/lazy:estargz           35,000 files of 4 KiB as eStargz, and as zstd:chunked (bench/lazy:zstd-chunked)

Another image takes the place of bench/science with BENCH_REGISTRY=host:port BENCH_IMAGE=repository:tag. Beside it the
same image with a SOCI index is pushed, the tag of which ends in -soci.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

from regfs.model.digest import Digest
from tests.bench.measure import run
from tests.support.hello import hello_image, host_architecture
from tests.support.images import BuiltImage, BuiltLayer, TarEntry, file, image_of
from tests.support.images import directory as directory_entry
from tests.support.lazy_layers import estargz, zstd_chunked
from tests.support.mounted import regfs_command
from tests.support.push import Pusher
from tests.support.registry import DockerRegistry

PACKAGES = "ca-certificates,python3,python3-numpy,python3-pandas"
BIG_SIZE, WIRE_SIZE = 1 << 30, 480 << 20
SMALL_FILES, SMALL_DIRECTORIES, SMALL_SIZE = 4000, 40, 4096
UNSHARED_FILES, UNSHARED_SIZE = 40_000, 1_000_000_000
MILLION_DIRECTORIES, MILLION_IN_EACH = 1000, 1000
LAZY_DIRECTORIES, LAZY_IN_EACH = 350, 100


def bench_directory() -> Path:
    """Return where images stay between runs: $REGFS_BENCH_DIR, or a place in the user's cache."""
    configured = os.environ.get("REGFS_BENCH_DIR")
    base = (
        Path(configured)
        if configured
        else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "regfs-bench"
    )
    base.mkdir(parents=True, exist_ok=True)
    return base


class BenchImages:
    """A registry on loopback; an image is made and pushed when it is first asked for."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.registry = DockerRegistry(directory)
        self._made = directory / "made"
        self._made.mkdir(exist_ok=True)

    def hello(self) -> str:
        return self._once("library/hello-world:latest", lambda name: self._push(name, hello_image()))

    def science(self) -> tuple[str, str]:
        """Return the registry and the name of the large real image."""
        given = os.environ.get("BENCH_REGISTRY"), os.environ.get("BENCH_IMAGE")
        if given[0] and given[1]:
            return given[0], given[1]
        return self.registry.address, self._once("bench/science:v1", self._make_science)

    def indexed(self, registry: str, image: str) -> str:
        """Return the name of *image* with a SOCI index, which is made and pushed where it is not in *registry* yet."""
        name = f"{image}-soci"
        if not self._has(registry, name):
            print(f"making {name}, once …", flush=True)
            with tempfile.TemporaryDirectory(dir=self._directory) as cache:
                options = ["--push", "--quiet", "--cache-dir", cache, "--default-registry", registry]
                run([*regfs_command(), "index", *options, image])
        return name

    def recorded(self, registry: str, image: str, command: Sequence[str]) -> str:
        """Return the name of a copy of *image* with the record of *command*, made where *registry* does not have it."""
        repository, _, tag = image.partition(":")
        name = f"{repository}-recorded:{tag}"
        if not self._has(registry, name):
            print(f"making {name}, once …", flush=True)
            whole = f"docker://{registry}/"
            run(["skopeo", "copy", "-q", "--all", "--src-tls-verify=false", "--dest-tls-verify=false",
                 whole + image, whole + name])  # fmt: skip
            with tempfile.TemporaryDirectory(dir=self._directory) as cache:
                options = ["--push", "--quiet", "--cache-dir", cache, "--default-registry", registry]
                run([*regfs_command(), "record", *options, name, "--", *command])
        return name

    @staticmethod
    def _has(registry: str, image: str) -> bool:
        inspect = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{registry}/{image}"]
        return subprocess.run(inspect, capture_output=True, check=False).returncode == 0

    def big(self) -> str:
        return self._once("bench/big:v1", lambda name: self._push_stream(name, _write_big))

    def small(self) -> str:
        return self._once("bench/small:v1", lambda name: self._push_stream(name, _write_small))

    def wire(self) -> str:
        return self._once(
            "bench/wire:v1", lambda name: self._push(name, image_of(_wire_layer(), architecture=host_architecture()))
        )

    def unshared(self) -> tuple[str, str]:
        """Return the names of two images whose files are equal and whose layers are not."""
        a, b = (
            self._once(name, partial(self._push_stream, write=partial(_write_unshared, mtime=mtime)))
            for name, mtime in (("bench/unshared:a", 1_700_000_000), ("bench/unshared:b", 1_700_000_001))
        )
        return a, b

    def million(self) -> str:
        return self._once("bench/million:v1", lambda name: self._push_stream(name, _write_million))

    def lazy(self) -> dict[str, str]:
        """Return the names of one image in the formats that have a table of contents, by format."""
        return {
            "eStargz": self._once("bench/lazy:estargz", partial(self._push_lazy, estargz)),
            "zstd:chunked": self._once("bench/lazy:zstd-chunked", partial(self._push_lazy, zstd_chunked)),
        }

    def _push_lazy(self, build: Callable[..., BuiltLayer], name: str) -> None:
        self._push(name, image_of(build(*_lazy_entries()), architecture=host_architecture()))

    def _once(self, name: str, make: Callable[[str], None]) -> str:
        mark = self._made / name.replace("/", "_")
        if not mark.exists():
            print(f"making {name}, once …", flush=True)
            make(name)
            mark.touch()
        return name

    def _push(self, name: str, image: BuiltImage) -> None:
        repository, _, tag = name.partition(":")
        Pusher(self.registry.url).image(repository, tag, image)

    def _push_stream(self, name: str, write: Callable[[BinaryIO], None]) -> None:
        """Push an image of one layer that is too large for memory while it is a tar, but not when compressed."""
        compressed = io.BytesIO()
        with gzip.GzipFile(fileobj=compressed, mode="wb", compresslevel=1, mtime=0) as stream:
            hashing = _Hashing(stream)
            write(hashing)  # type: ignore[arg-type]
        media_type = "application/vnd.oci.image.layer.v1.tar+gzip"
        layer = StreamedLayer(b"", compressed.getvalue(), media_type, tar_digest=Digest.parse(hashing.digest()))
        self._push(name, image_of(layer, architecture=host_architecture()))

    def _make_science(self, name: str) -> None:
        if os.getuid() != 0 or not shutil.which("debootstrap") or not shutil.which("umoci"):
            raise RuntimeError("needs root, debootstrap and umoci; or name an image: BENCH_REGISTRY=… BENCH_IMAGE=…")
        with tempfile.TemporaryDirectory(dir=self._directory) as temporary:
            layout = _science_layout(Path(temporary))
            target = f"docker://{self.registry.address}/{name}"
            run(["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:science", target])

    def __enter__(self) -> BenchImages:
        return self

    def __exit__(self, *_reason: object) -> None:
        self.registry.stop()


@dataclass(frozen=True, kw_only=True)
class StreamedLayer(BuiltLayer):
    """A layer whose tar was never in memory, only its digest is known."""

    tar_digest: Digest = field(kw_only=True)

    @property
    def diff_id(self) -> Digest:
        return self.tar_digest


class _Hashing:
    """A stream that hashes what is written through it."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream, self._hash = stream, hashlib.sha256()

    def write(self, content: bytes) -> int:
        self._hash.update(content)
        return self._stream.write(content)

    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()


def _science_layout(directory: Path) -> Path:
    """Return an OCI layout with the image `science`: a Debian, python3 and its libraries, then a layer that deletes."""
    debian, layout, bundle = directory / "debian", directory / "oci", directory / "bundle"
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    suite = release.get("VERSION_CODENAME", "stable").strip('"')
    run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, debian, *_package_source()])
    image = f"{layout}:science"
    run(["umoci", "init", "--layout", layout])
    run(["umoci", "new", "--image", image])
    run(["umoci", "unpack", "--image", image, bundle])
    python = [path for path in ("usr/lib/python3", "usr/share") if (debian / path).exists()]
    kept_back = {path: directory / path.replace("/", "_") for path in python}
    for path, aside in kept_back.items():  # the second layer's
        (debian / path).rename(aside)
    run(["cp", "-a", f"{debian}/.", bundle / "rootfs"])
    run(["umoci", "repack", "--image", image, "--refresh-bundle", bundle])
    for path, aside in kept_back.items():
        run(["cp", "-a", aside, bundle / "rootfs" / path])
    run(["umoci", "repack", "--image", image, "--refresh-bundle", bundle])
    shutil.rmtree(bundle / "rootfs/usr/share/doc", ignore_errors=True)
    (bundle / "rootfs/app").mkdir()
    (bundle / "rootfs/app/main.py").write_text("import numpy, pandas\n")
    run(["umoci", "repack", "--image", image, bundle])
    return layout


def _package_source() -> list[str]:
    """Return the place that this machine's apt takes Debian from, for debootstrap; nothing: its default."""
    command = ["apt-get", "indextargets", "--format", "$(SITE)", "CREATED_BY: Packages"]
    sites = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    plain = [site for site in sites if site.rstrip("/").endswith("debian")]
    return plain[:1]


def _wire_layer() -> BuiltLayer:
    content = random.Random(4).randbytes(1 << 20) * (WIRE_SIZE >> 20)
    tar = _entry("wire", WIRE_SIZE).tobuf() + content + bytes(1024)
    return BuiltLayer(tar, tar, "application/vnd.oci.image.layer.v1.tar")


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = size, 0o644, 1_700_000_000
    return entry


def _write_big(stream: BinaryIO) -> None:
    block = random.Random(1).randbytes(16 << 10) * 64  # 1 MiB that gzip finds again: small on the wire, real on disk
    stream.write(_entry("big", BIG_SIZE).tobuf())
    for _ in range(BIG_SIZE // len(block)):
        stream.write(block)
    stream.write(bytes(1024))


def _write_small(stream: BinaryIO) -> None:
    content = random.Random(2).randbytes(SMALL_SIZE)
    for name in small_names():
        stream.write(_entry(name, SMALL_SIZE).tobuf() + content)
    stream.write(bytes(1024))


def _write_unshared(stream: BinaryIO, mtime: int) -> None:
    """Write files of the sizes that a system has: most are small, and a few have most of the bytes."""
    content = random.Random(5)
    block = content.randbytes(16 << 10)  # which gzip finds again
    weights = [content.lognormvariate(0, 1.8) for _ in range(UNSHARED_FILES)]
    scale = UNSHARED_SIZE / sum(weights)
    for number, weight in enumerate(weights):
        size = int(weight * scale)
        entry = _entry(f"d{number // 400:03}/f{number:05}", size)
        entry.mtime = mtime
        stream.write(entry.tobuf() + (block * (size // len(block) + 1))[:size] + bytes(-size % 512))
    stream.write(bytes(1024))


def small_names() -> Iterator[str]:
    """Yield the paths of the small files."""
    for number in range(SMALL_FILES):
        yield f"d{number % SMALL_DIRECTORIES:02}/file-{number:04}"


def _lazy_entries() -> Iterator[TarEntry]:
    content = random.Random(3)
    for number in range(LAZY_DIRECTORIES):
        yield directory_entry(f"d{number:03}")
        for other in range(LAZY_IN_EACH):
            yield file(f"d{number:03}/f{other:03}", content.randbytes(SMALL_SIZE))


def _write_million(stream: BinaryIO) -> None:
    # A header made by tarfile for each of a million files takes a minute; so one is made, and renamed.
    for directory in range(MILLION_DIRECTORIES):
        template = bytearray(_entry(f"d{directory:03}/f000", 0).tobuf())
        base_sum = sum(template) - sum(template[148:156]) + 8 * 0x20
        zero_digits = sum(template[6:9])
        entries = bytearray()
        for number in range(MILLION_IN_EACH):
            digits = b"%03d" % number
            template[6:9] = digits
            template[148:156] = b"%06o\0 " % (base_sum - zero_digits + sum(digits))
            entries += template
        stream.write(bytes(entries))
    stream.write(bytes(1024))
