"""Images with programs, and `regfs run` of them as root or as an ordinary user, for the tests of this package."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import missing
from tests.support import preloaded
from tests.support.fault_server import FaultServer
from tests.support.hello import hello_program, host_architecture
from tests.support.images import BuiltImage, directory, file, image_of, layer, symlink
from tests.support.mounted import as_user, environment_for, mountinfo, regfs_command
from tests.support.real_root import busybox

PATIENCE_S = 60.0
_APPLETS = (
    "sh",
    "cat",
    "id",
    "ls",
    "sleep",
    "touch",
    "rm",
    "mkdir",
    "chown",
    "stat",
    "tty",
    "env",
    "ip",
    "dd",
    "grep",
    "mount",
)
_PASSWD = b"root:x:0:0::/root:/bin/sh\nalice:x:0:0::/home/alice:/bin/sh\ndaemon:x:1:1::/:/bin/sh\n"


def _tools() -> BuiltImage:
    program = busybox()
    if program is None:
        missing("busybox is not installed")
    links = [symlink(f"bin/{name}", "busybox") for name in _APPLETS]
    return image_of(
        layer(file("bin/busybox", program.read_bytes(), mode=0o755), *links),
        layer(
            directory("root", mode=0o700), directory("etc", uid=1, gid=1), file("etc/passwd", _PASSWD, uid=1, gid=1),
            file("etc/group", b"wheel:x:10:alice,root\n"), file("etc/other", b"1\n", uid=33, gid=33),
        ),
        architecture=host_architecture(), command=["cat", "/etc/other"],
        run={"Env": ["COLOUR=red", "PATH=/bin"], "WorkingDir": "/srv/work"},
    )  # fmt: skip


def _elsewhere() -> BuiltImage:
    other = "aarch64" if host_architecture() == "amd64" else "x86_64"
    name = "arm64" if host_architecture() == "amd64" else "amd64"
    return image_of(layer(file("hello", hello_program(other), mode=0o755)), architecture=name, command=["/hello"])


def images() -> dict[str, BuiltImage]:
    """Return images by name; many has 200 layers, daemon a user of its own."""
    hello = image_of(
        layer(file("hello", hello_program(), mode=0o755)), architecture=host_architecture(), command=["/hello"]
    )
    many = [layer(file(f"d/{number:03}", b"x")) for number in range(199)]
    return {
        "hello": hello,
        "tools": _tools(),
        "empty": image_of(layer(), architecture=host_architecture()),
        "elsewhere": _elsewhere(),
        "daemon": image_of(
            *_tools().layers, architecture=host_architecture(), command=["id", "-u"], run={"User": "daemon"}
        ),
        "many": image_of(*many, *hello.layers, architecture=host_architecture(), command=["/hello"]),
    }


class Runner:
    """Runs `regfs run` as one user, with a home and a cache of its own."""

    def __init__(self, server: FaultServer, uid: int | None, directory: Path) -> None:
        self.server = server
        self.uid = uid
        self.directory = directory

    def command(self, *words: str | Path) -> list[str]:
        return [*as_user(self.uid), *regfs_command(), *self._arguments(*words)]

    def _arguments(self, *words: str | Path, verb: str = "run", image: str | None = "tools") -> list[str]:
        shown = [] if image is None else [f"{self.server.address}/demo/{image}"]
        at = words.index("--") if "--" in words else len(words)
        options, rest = words[:at], words[at + 1 :]
        return [verb, *map(str, options), *shown, *map(str, rest)]

    def environment(self) -> dict[str, str]:
        cache = {"XDG_CACHE_HOME": str(self.directory / "cache"), "TERM": "vt100"}
        return environment_for(self.directory, cache)

    def __call__(
        self, *words: str | Path, verb: str = "run", image: str | None = "tools", given: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run it with options, then after "--" the command; *given* is standard input."""
        return preloaded.run(
            self._arguments(*words, verb=verb, image=image), environment=self.environment(), directory=self.directory,
            uid=self.uid, stdin=given,
        )  # fmt: skip

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """Start it, and return when the program has written a line, which is dropped."""
        started = subprocess.Popen(
            self.command(*words), env=self.environment(), cwd=self.directory, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert started.stdout is not None
        assert started.stdout.readline() != ""
        return started


@contextmanager
def runner_of(server: FaultServer, uid: int | None) -> Iterator[Runner]:
    """Give a Runner with a new home and an empty cache; at the end nothing may be mounted there."""
    directory = Path(tempfile.mkdtemp(prefix="regfs-tests-"))
    if uid is not None:
        os.chown(directory, uid, uid)
    yield Runner(server, uid, directory)
    assert [line for line in mountinfo() if str(directory) in line] == []
    shutil.rmtree(directory)


def may_unshare(runner: Runner) -> bool:
    """Tell whether its user may make user namespaces."""
    return subprocess.run([*as_user(runner.uid), "unshare", "-rm", "true"], check=False).returncode == 0
