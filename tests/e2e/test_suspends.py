"""A machine that sleeps: a mount stands still, and meanwhile its registry, tokens, addresses and network change."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import MountRegfs
from tests.support.fault_server import Connection, FaultServer
from tests.support.images import file, image_of, layer
from tests.support.memory_registry import MemoryRegistry
from tests.support.mounted import REPOSITORY_ROOT, Mounted

BIG = os.urandom(3 << 20)
LAYERS = [layer(file("big", BIG)), layer(file("small", b"small"))]


def until(what: Callable[[], object]) -> None:
    """Wait until *what* returns something true."""
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def registry() -> MemoryRegistry:
    """A registry with app:1 and app:2, which wants tokens."""
    registry = MemoryRegistry(users={"ada": "secret"}, tokens=True)
    registry.public = True
    for number, each in enumerate(LAYERS, 1):
        image = image_of(each)
        for content in image.blobs().values():
            registry.add_blob("app", content)
        registry.add_manifest("app", image.manifest, tag=str(number), media_type=image.media_type)
    return registry


@pytest.fixture
def server(registry: MemoryRegistry) -> Iterator[FaultServer]:
    with FaultServer(registry) as served:
        yield served


@contextmanager
def asleep(mount: Mounted) -> Iterator[None]:
    """Stop all processes of *mount* while the block runs."""
    pids = mount.processes()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_a_download_that_a_suspend_cuts_goes_on_with_a_new_token(
    server: FaultServer, registry: MemoryRegistry, mount_regfs: MountRegfs
) -> None:
    mount = mount_regfs("--default-registry", server.address)
    begun, closed = threading.Event(), threading.Event()

    def half(connection: Connection) -> bool:
        response = connection.right()
        connection.send(response.head() + response.body[: len(response.body) // 2])
        begun.set()
        closed.wait(60)
        return False

    server.on("GET", str(LAYERS[0].digest), half, times=1)
    with subprocess.Popen(["cat", mount.path / "app/1/rootfs/big"], stdout=subprocess.PIPE) as reader:
        assert begun.wait(60)
        with asleep(mount):
            registry.revoke()
            closed.set()
        assert reader.communicate(timeout=100)[0] == BIG
    assert (mount.path / "app/2/rootfs/small").read_bytes() == b"small"
    assert mount.errors() == ""


def test_connections_that_were_closed_in_a_suspend_are_made_again(
    server: FaultServer, registry: MemoryRegistry, mount_regfs: MountRegfs
) -> None:
    mount = mount_regfs("--default-registry", server.address)
    assert (mount.path / "app/2/rootfs/small").read_bytes() == b"small"
    with asleep(mount):
        server.stop()
        port = int(server.address.rpartition(":")[2])
        again = FaultServer(registry, port=port)
    with again:
        assert (mount.path / "app/1/rootfs/big").read_bytes() == BIG
        assert mount.errors() == ""


# A resolver that answers what a file says: sitecustomize is the first module of each Python.
_RESOLVER = """
import socket, sys
_real = socket.getaddrinfo

def getaddrinfo(host, *arguments, **more):
    if host == "registry.test":
        said = open({file!r}).read()
        if not said:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        host = said
    return _real(host, *arguments, **more)

socket.getaddrinfo = getaddrinfo
if "--cache-dir" in sys.orig_argv:  # a daemon, not one of its workers
    from tests.support.shorter_waits import shorten_waits
    shorten_waits()
"""


@pytest.fixture
def resolver(tmp_path: Path) -> Path:
    """A file with the address of registry.test, empty while the resolver does not work, beside its shim."""
    shim = tmp_path / "shim"
    shim.mkdir()
    (shim / "sitecustomize.py").write_text(_RESOLVER.format(file=str(shim / "address")))
    (shim / "address").write_text("")
    return shim / "address"


def mounted_with(mount_regfs: MountRegfs, resolver: Path, name: str) -> Mounted:
    return mount_regfs(
        "--default-registry", name, "--insecure-registry", name, "--tag-ttl", "0", preloaded_runs=False,
        environment={"PYTHONPATH": f"{resolver.parent}:{REPOSITORY_ROOT}"},
    )  # fmt: skip


def test_a_mount_that_is_there_before_the_resolver_works_heals_by_itself(
    server: FaultServer, mount_regfs: MountRegfs, resolver: Path
) -> None:
    mount = mounted_with(mount_regfs, resolver, f"registry.test:{server.address.rpartition(':')[2]}")
    small = mount.path / "app/2/rootfs/small"
    with pytest.raises(OSError) as caught:
        small.read_bytes()
    assert not isinstance(caught.value, FileNotFoundError)
    assert "Temporary failure in name resolution" in mount.errors()
    resolver.write_text("127.0.0.1")

    def is_read() -> bool:
        try:
            return small.read_bytes() == b"small"
        except FileNotFoundError:
            raise
        except OSError:
            return False

    until(is_read)


def test_a_registry_that_has_moved_to_another_address_is_found_there(
    server: FaultServer, registry: MemoryRegistry, mount_regfs: MountRegfs, resolver: Path
) -> None:
    port = int(server.address.rpartition(":")[2])
    resolver.write_text("127.0.0.1")
    mount = mounted_with(mount_regfs, resolver, f"registry.test:{port}")
    assert (mount.path / "app/2/rootfs/small").read_bytes() == b"small"
    with FaultServer(registry, host="127.0.0.2", port=port):
        resolver.write_text("127.0.0.2")
        server.stop()
        assert (mount.path / "app/1/rootfs/big").read_bytes() == BIG
        assert mount.errors() == ""
