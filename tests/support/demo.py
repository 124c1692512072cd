"""`make run`: mounts a registry in front of your eyes, lists it, reads it, changes root into an image, and unmounts.

    python -m tests.support.demo [REGISTRY]

Takes REGISTRY where one is named, otherwise Docker Hub. Where Docker Hub is out of reach it says so, and starts a
docker-registry of its own with a hello-world that is made on the spot.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.support.hello import hello_image
from tests.support.mounted import mounts_at
from tests.support.push import Pusher
from tests.support.registry import DockerRegistry, is_installed

DOCKER_HUB = "docker.io"
IMAGE = "library/hello-world/latest"
_PING_TIMEOUT_S = 8


def say(text: str) -> None:
    print(f"\033[1m{text}\033[0m" if sys.stdout.isatty() else text, flush=True)


def show(*command: str | Path) -> int:
    """Print *command*, run it and return its exit status."""
    words = [str(word) for word in command]
    say(f"$ {shlex.join(words)}")
    return subprocess.run(words, check=False, stdin=subprocess.DEVNULL).returncode


def reaches_docker_hub() -> bool:
    """Tell whether Docker Hub answers; it asks for a token, so that 401 is the good answer."""
    try:
        urllib.request.urlopen("https://registry-1.docker.io/v2/", timeout=_PING_TIMEOUT_S).close()
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        return False
    return True


@contextlib.contextmanager
def some_registry(directory: Path, wanted: str | None) -> Iterator[str]:
    """Yield the registry to show: the *wanted* one, Docker Hub, or one that is started for this."""
    if wanted:
        yield wanted
    elif reaches_docker_hub():
        yield DOCKER_HUB
    elif is_installed():
        say("Docker Hub cannot be reached from here: a docker-registry of our own takes its place.")
        with DockerRegistry(directory) as registry:
            Pusher(registry.url).image("library/hello-world", "latest", hello_image())
            yield registry.address
    else:
        sys.exit("Docker Hub cannot be reached, and docker-registry is not installed: apt-get install docker-registry")


def change_root(rootfs: Path) -> list[str | Path]:
    """Return the command that runs /hello in *rootfs*: an ordinary user needs a user namespace for it.

    chroot(8) is in /usr/sbin, which is not in the PATH of Debian's ordinary users; unshare(1) changes root itself.
    """
    return [*(["unshare", "-rR"] if os.getuid() else ["chroot"]), rootfs, "/hello"]


def tour(regfs: str, mountpoint: Path, directory: Path, registry: str) -> int:
    """Mount, look around, unmount; return 0 if every command worked."""
    default = [] if registry == DOCKER_HUB else ["--default-registry", registry]
    failures = show(regfs, *default, "--cache-dir", directory / "cache", mountpoint)
    if failures:
        return failures
    try:
        failures += show("ls", mountpoint)
        failures += show("ls", "-l", mountpoint / IMAGE)
        failures += show("cat", mountpoint / IMAGE / "digest")
        failures += show("head", "-c", "300", mountpoint / IMAGE / "config.json")
        print()
        failures += show("ls", "-l", mountpoint / IMAGE / "layers/0", mountpoint / IMAGE / "rootfs")
        failures += show(*change_root(mountpoint / IMAGE / "rootfs"))
    finally:
        failures += show(regfs, "umount", mountpoint)
        if mounts_at(mountpoint):
            subprocess.run(["umount", "-l", mountpoint], check=False)
    return failures


def main() -> int:
    regfs = str(Path(sys.executable).with_name("regfs"))
    wanted = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(prefix="regfs-demo-") as name:
        directory = Path(name)
        mountpoint = directory / "reg"
        mountpoint.mkdir()
        with some_registry(directory, wanted) as registry:
            failures = tour(regfs, mountpoint, directory, registry)
    say("That was all: nothing is left mounted or running." if not failures else "Something above failed.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
