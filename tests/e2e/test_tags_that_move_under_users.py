"""What runs in a tag's rootfs goes on when the tag moves or goes; after it has ended, the tag shows its new image."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.conftest import MountRegfs
from tests.e2e.conftest import becomes, needs_root
from tests.support.fault_server import reply
from tests.support.images import BuiltImage, directory, file, image_of, layer
from tests.support.mounted import Mounted, as_user
from tests.support.served import Served

_PRIVATE = ["unshare", "--mount", "--propagation", "private"]
_ROOTED = """
import os, sys
os.chroot(sys.argv[1])
os.chdir("/data")
print("ready", flush=True)
sys.stdin.readline()
print(os.getcwd(), open("../version").read(), *os.listdir("."))
"""


def image(text: str) -> BuiltImage:
    return image_of(layer(file("version", text.encode()), directory("data"), file("data/in-image", text.encode())))


class Running:
    """A process inside an image: it says when it is there, and what it sees when it is told to look once more.

    It goes there by itself: Popen's cwd would stop this process, and the registry in it, until the daemon has answered.
    """

    def __init__(self, *command: str | Path) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def sees(self) -> str:
        """Return what it sees now; it has ended then."""
        said, _ = self._process.communicate("\n", timeout=60)
        return said.strip()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


def with_a_volume(rootfs: Path) -> Running:
    """A container by hand: a mount namespace of its own, with a volume on /data."""
    look = "echo ready; read -r _; echo $(cat version) $(ls data)"
    volume = f"mount -t tmpfs volume {rootfs}/data && touch {rootfs}/data/in-volume && cd {rootfs} && {look}"
    return Running(*_PRIVATE, "sh", "-ec", volume)


def working(rootfs: Path, *prefix: str) -> Running:
    """A shell in the image."""
    return Running(*prefix, "sh", "-ec", 'cd "$0" && echo ready; read -r _; /bin/pwd; cat version', rootfs)


def rooted(rootfs: Path) -> Running:
    """A program whose root directory is the image."""
    return Running(sys.executable, "-c", _ROOTED, rootfs)


def overlaid(rootfs: Path, writable: Path) -> Running:
    """A container as `podman run --rootfs DIR:O` makes it: an overlay on the image, which alone is to be seen in it."""
    lies = f"mount -t tmpfs none {writable}; cd {writable}; mkdir upper work root"
    overlay = f"mount -t overlay none -o lowerdir={rootfs},upperdir=upper,workdir=work root; cd root"
    look = "echo new > data/written; echo ready; read -r _; echo $(cat version data/in-image) $(ls data)"
    return Running(*_PRIVATE, "sh", "-ec", f"{lies}; {overlay}; {look}")


@pytest.fixture
def start() -> Iterator[Callable[[Running], Running]]:
    """Return a function that ends the process that it is given, at the end of the test at the latest."""
    started: list[Running] = []

    def kept(running: Running) -> Running:
        started.append(running)
        return running

    yield kept
    for running in started:
        running.end()


Start = Callable[[Running], Running]


class Tag:
    """A tag whose image has been read in a mount that other tests use for tags of theirs."""

    def __init__(self, mount: Mounted, served: Served, name: str) -> None:
        self.mount = mount
        self.name = name
        self.path = mount.path / name / "v1"
        self.rootfs = self.path / "rootfs"
        self.served = served
        self.old = self.push("one")
        assert self.version() == "one"

    def push(self, text: str) -> BuiltImage:
        """Let the tag name an image of that *text*, and return it."""
        return self.served.push(self.name, "v1", image(text))

    def fails(self, status: int) -> None:
        """Let the registry answer *status* for all of the repository from now on."""
        self.served.server.on("*", f"/v2/{self.name}/", reply(status))

    def version(self) -> str:
        return (self.rootfs / "version").read_text()

    def is_looked_at_until_held(self) -> None:
        """Look at the tag, as a shell's completion does, until it has been told that something is inside."""

        def is_told() -> bool:
            assert sorted(os.listdir(self.rootfs)) == ["data", "version"]
            return re.search(f"{self.name}:v1 .* still in use", self.mount.errors()) is not None

        becomes(is_told, True)
        assert (self.path / "digest").read_text() == f"{self.old.digest}\n"
        assert self.version() == "one"

    def outcome(self) -> str:
        """Return the version that the tag shows now, or the name of the error."""
        try:
            return self.version()
        except OSError as error:
            return type(error).__name__


@pytest.fixture(scope="module")
def tags(needs_fuse: None, driver: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Tag]]:
    """Return a function that makes a tag in a repository of its own; each is asked for at every look-up."""
    made, numbers = Served(tmp_path_factory.mktemp("served")), count()
    options = ["--driver", driver, "--tag-ttl", "0s", "--default-registry", made.server.address]
    with Mounted(tmp_path_factory.mktemp("tags"), options=options, shorter_waits=True) as mount:
        yield lambda: Tag(mount, made, f"team/app{next(numbers)}")
    made.close()


@pytest.fixture
def tag(tags: Callable[[], Tag]) -> Tag:
    """A tag that nothing has moved yet."""
    return tags()


def moves(tag: Tag) -> None:
    tag.push("two")


def is_refused(tag: Tag) -> None:
    tag.fails(403)


def is_deleted(tag: Tag) -> None:
    tag.fails(404)


@needs_root
@pytest.mark.parametrize(
    ("happens", "afterwards"),
    [(moves, "two"), (is_refused, "PermissionError"), (is_deleted, "FileNotFoundError")],
    ids=["it moves", "it is refused", "it is deleted"],
)
def test_mounts_and_directories_below_a_tag_survive_when(
    tag: Tag, start: Start, happens: Callable[[Tag], None], afterwards: str
) -> None:
    container, shell = start(with_a_volume(tag.rootfs)), start(working(tag.rootfs))
    happens(tag)
    tag.is_looked_at_until_held()
    assert shell.sees() == f"{tag.rootfs}\none"
    tag.is_looked_at_until_held()
    assert container.sees() == "one in-volume"
    becomes(tag.outcome, afterwards)


@needs_root
def test_a_container_with_an_overlay_on_a_tag_sees_its_files_stay(tag: Tag, start: Start, tmp_path: Path) -> None:
    """With fusepy, a running container saw its files become those of the newer image."""
    (writable := tmp_path / "writable").mkdir()
    container = start(overlaid(tag.rootfs, writable))
    tag.push("two")
    for _ in range(3):
        assert os.listdir(tag.rootfs / "data") == ["in-image"]
    assert container.sees() == "oneone in-image written"
    becomes(tag.version, "two")


@needs_root
def test_a_program_that_has_changed_root_into_a_tag_keeps_its_image(tag: Tag, start: Start) -> None:
    program = start(rooted(tag.rootfs))
    moves(tag)
    tag.is_looked_at_until_held()
    assert program.sees() == "/data one in-image"
    becomes(tag.outcome, "two")


@needs_root
def test_a_refresh_takes_no_mount_away(tag: Tag, start: Start) -> None:
    container = start(with_a_volume(tag.rootfs))
    moves(tag)
    pid = tag.mount.daemon
    os.kill(pid, signal.SIGHUP)
    tag.is_looked_at_until_held()
    assert container.sees() == "one in-volume"
    becomes(tag.outcome, "two")


@needs_root
def test_while_an_old_image_is_in_use_the_newer_one_is_told_and_opens_by_digest(tag: Tag, start: Start) -> None:
    shell = start(working(tag.rootfs))
    new = tag.push("two")
    tag.is_looked_at_until_held()
    assert os.getxattr(tag.path, "user.regfs.digest") == str(tag.old.digest).encode()
    assert os.getxattr(tag.path, "user.regfs.newer") == str(new.digest).encode()
    below_digest = tag.mount.path / os.fsdecode(os.getxattr(tag.path, "user.regfs.path"))
    assert (below_digest / "rootfs/version").read_text() == "one"
    assert (below_digest.with_name(f"@sha256-{new.digest.encoded}") / "rootfs/version").read_text() == "two"
    assert shell.sees() == f"{tag.rootfs}\none"
    becomes(tag.outcome, "two")
    assert "user.regfs.newer" not in os.listxattr(tag.path)


def test_a_working_directory_survives_in_the_mount_of_an_ordinary_user(
    mount_regfs: MountRegfs, served: Served, driver: str, start: Start, ordinary_user: int | None
) -> None:
    served.push("team/app", "v1", image("one"))
    options = ["--driver", driver, "--tag-ttl", "0s", "--default-registry", served.server.address]
    mount = mount_regfs(*options, uid=ordinary_user, shorter_waits=True)
    rootfs = mount.path / "team/app/v1/rootfs"
    assert mount.run("cat", rootfs / "version").stdout == "one"
    shell = start(working(rootfs, *as_user(ordinary_user)))
    served.push("team/app", "v1", image("two"))
    becomes(lambda: mount.run("cat", rootfs / "version", mount.path / ".regfs/errors").stdout.count("still in use"), 1)
    assert shell.sees() == f"{rootfs}\none"
    becomes(lambda: mount.run("cat", rootfs / "version").stdout, "two")
