"""A registry with images in it, and mounts of it by either driver."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.hello import hello_program
from tests.support.mounted import Mounted
from tests.support.proxy import ReverseProxy
from tests.support.push import Pushed, Pusher, host_architecture, tar_of
from tests.support.real_root import real_layers
from tests.support.registry import DockerRegistry

DRIVERS = ("kernel", "fusepy")


@dataclass(frozen=True, slots=True)
class Demo:
    """The registry's address, and what was pushed: library/hello-world and demo/real, among others."""

    address: str
    url: str
    hello: Pushed
    real: Pushed
    base: Pushed
    index: str  # digest of demo/multi:latest: hello for this machine, and an empty image for the architecture `mips`
    nested: Pushed


@pytest.fixture(scope="session")
def demo(docker_registry: DockerRegistry, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Push the images that the commands of the README are tried on."""
    push = Pusher(docker_registry.url)
    hello = push.image(
        "library/hello-world", "latest", [tar_of({"hello": hello_program()})], settings={"Cmd": ["/hello"]}
    )
    layers = real_layers(tmp_path_factory.mktemp("real"))
    real = push.image("demo/real", "v2", layers)
    base = push.image("demo/real", "v1", layers[:1])
    # `nested` is a tag of library/hello-world, and a repository below it
    push.image("library/hello-world", "nested", [tar_of({"in-the-tag": b""})])
    nested = push.image("library/hello-world/nested", "1", [tar_of({"in-the-repository": b""})])
    push.image("demo/deeper/still/further", "1", [tar_of({"deep": b""})])
    here = push.image("demo/multi", "here", [tar_of({"hello": hello_program()})])
    other = push.image("demo/multi", "other", [tar_of({"other": b""})], architecture="mips")
    index = push.index("demo/multi", "latest", {f"linux/{host_architecture()}": here, "linux/mips": other})
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
