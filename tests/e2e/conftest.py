"""A registry with images in it, and mounts of it by either driver."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.hello import hello_image, host_architecture
from tests.support.images import BuiltImage, file, image_of, index_of, layer, layer_of_tar
from tests.support.mounted import Mounted
from tests.support.proxy import ReverseProxy
from tests.support.push import Pusher
from tests.support.real_root import real_layers
from tests.support.registry import DockerRegistry

DRIVERS = ("kernel", "fusepy")


@dataclass(frozen=True, slots=True)
class Demo:
    """The registry's address, and what was pushed: library/hello-world and demo/real, among others."""

    address: str
    url: str
    hello: BuiltImage
    real: BuiltImage
    base: BuiltImage
    index: str  # digest of demo/multi:latest: hello for this machine, and an empty image for the architecture `mips`
    nested: BuiltImage


@pytest.fixture(scope="session")
def demo(docker_registry: DockerRegistry, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Push the images that the commands of the README are tried on."""
    push = Pusher(docker_registry.url)
    here = {"os": "linux", "architecture": host_architecture()}
    hello = push.image("library/hello-world", "latest", hello_image())
    layers = [layer_of_tar(tar) for tar in real_layers(tmp_path_factory.mktemp("real"))]
    real = push.image("demo/real", "v2", image_of(*layers, architecture=here["architecture"]))
    base = push.image("demo/real", "v1", image_of(layers[0], architecture=here["architecture"]))
    # `nested` is a tag of library/hello-world, and a repository below it
    push.image("library/hello-world", "nested", image_of(layer(file("in-the-tag"))))
    nested = push.image("library/hello-world/nested", "1", image_of(layer(file("in-the-repository"))))
    push.image("demo/deeper/still/further", "1", image_of(layer(file("deep"))))
    push.image("demo/multi", "here", hello)
    other = push.image("demo/multi", "other", image_of(layer(file("other")), architecture="mips"))
    both = index_of(hello.descriptor(platform=here), other.descriptor(platform={"os": "linux", "architecture": "mips"}))
    index = push.manifest("demo/multi", "latest", both, "application/vnd.oci.image.index.v1+json")
    return Demo(docker_registry.address, docker_registry.url, hello, real, base, index, nested)


@pytest.fixture(scope="session", params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    """Each of the drivers in turn."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def reg(driver: str, demo: Demo, needs_fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The mount point of a mount whose default registry is the demo's, for tests that change nothing."""
    directory = tmp_path_factory.mktemp(f"reg-{driver}")
    with Mounted(directory, options=["--driver", driver, "--default-registry", demo.address]) as mount:
        yield mount.path


@pytest.fixture
def proxy(demo: Demo) -> Iterator[ReverseProxy]:
    """A server before the demo's registry that writes down all requests, and does what the test tells it."""
    with ReverseProxy(demo.address) as server:
        yield server


needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


def becomes(read: Callable[[], object], wanted: object) -> None:
    """Insist that *read* returns *wanted* in the end: libfuse remembers every name for a second."""
    end = time.monotonic() + 60
    while (found := read()) != wanted:
        assert time.monotonic() < end, f"still {found!r}"
        time.sleep(0.05)
