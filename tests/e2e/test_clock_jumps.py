"""A clock that is set while a mount is used: no answer is kept for ever, and nothing fails for ever.

The clock of the daemons alone is set, in Python: the library that Debian calls faketime also changes how long threads
wait for each other, so that a test with it takes minutes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MountRegfs
from tests.support.fault_server import FaultServer
from tests.support.images import BuiltImage, file, image_of, layer
from tests.support.memory_registry import MemoryRegistry
from tests.support.mounted import REPOSITORY_ROOT, run_regfs
from tests.support.restart_load import await_holder

YEAR_S = 365 * 24 * 3600
JUMPS = (10 * YEAR_S, -10 * YEAR_S, -24 * 3600, 60 - int(time.time()), 0)  # the last but one: to 1970
IMAGES = [image_of(layer(file("number", str(number).encode()))) for number in range(2 * len(JUMPS) + 1)]


# sitecustomize is the first module of each Python.
_CLOCK = """
import time
_time, _time_ns = time.time, time.time_ns

def jump():
    with open({file!r}) as file:
        return int(file.read() or 0)

time.time = lambda: _time() + jump()
time.time_ns = lambda: _time_ns() + jump() * 10**9
"""


class Tags:
    """The tags of `app` at a registry that wants tokens."""

    def __init__(self) -> None:
        self.registry = MemoryRegistry(users={"ada": "secret"}, tokens=True)
        self.registry.public = True
        self._images = iter(IMAGES)
        self.push("latest")

    def push(self, tag: str) -> BuiltImage:
        """Let *tag* point to an image that no tag has pointed to."""
        image = next(self._images)
        for content in image.blobs().values():
            self.registry.add_blob("app", content)
        self.registry.add_manifest("app", image.manifest, tag=tag, media_type=image.media_type)
        return image


@pytest.fixture
def tags() -> Tags:
    return Tags()


@pytest.fixture
def server(tags: Tags) -> Iterator[FaultServer]:
    with FaultServer(tags.registry) as served:
        yield served


def until_shown(path: Path, image: BuiltImage) -> None:
    """Wait until *path* shows *image*; any failure but a missing name fails the test."""
    end = time.monotonic() + 60
    number = str(IMAGES.index(image))
    while True:
        try:
            if (path / "rootfs/number").read_text() == number:
                return
        except FileNotFoundError:
            pass  # the tag's absence is remembered for a moment
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_clock_that_jumps_leaves_no_answer_for_ever_and_no_failure(
    mount_regfs: MountRegfs, server: FaultServer, tags: Tags, tmp_path: Path
) -> None:
    shim, clock = tmp_path / "shim", tmp_path / "clock"
    shim.mkdir()
    (shim / "sitecustomize.py").write_text(_CLOCK.format(file=str(clock)))
    clock.write_text("0")
    environment = {"PYTHONPATH": f"{shim}:{REPOSITORY_ROOT}"}
    options = ["--default-registry", server.address, "--tag-ttl", "0.1"]
    mount = mount_regfs(*options, environment=environment, preloaded_runs=False)
    await_holder(mount.path)
    app = mount.path / "app"
    until_shown(app / "latest", IMAGES[0])
    for number, jump in enumerate(JUMPS):
        absent = app / f"after-{number}"
        is_far = abs(jump) == 10 * YEAR_S
        assert not (is_far and absent.exists())
        clock.write_text(str(jump))
        tags.registry.revoke()
        until_shown(app / "latest", tags.push("latest"))
        day = time.strftime("%Y-%m-", time.gmtime(time.time() + jump))
        assert f"\n{day}" in (mount.path / ".regfs/requests").read_text()
        if is_far:  # that there was none is not remembered, and the next daemon reads what this one has written then
            until_shown(absent, tags.push(absent.name))
            assert run_regfs("restart", mount.path, home=mount.home).returncode == 0
    assert sorted(path.name for path in app.iterdir()) == ["after-0", "after-1", "latest"]
    assert mount.errors() == ""
