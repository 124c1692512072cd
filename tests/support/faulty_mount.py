"""A real mount of registries that misbehave by rule, and what must hold of it after whatever went wrong.

    faulty.push_app()                                   app:1 with rootfs/motd, at faulty.server
    faulty.mount("--timeout", "5s")                     the real command, in the background, with one of the drivers
    faulty.server.on("GET", "/blobs/", cut(10))         see fault_server.py; faulty.server.paths() is the request log
    assert faulty.fails(faulty.path("app/1/rootfs"), os.listdir) == "EIO"
    assert "sha256:" in faulty.errors()                 what `.regfs/errors` says
    faulty.recovers(faulty.path("app/1/rootfs/motd"))      heal() first; it is readable in the end, never ENOENT

Mounting is dear and a server is cheap: tests share a mount where *shared* is given (shared_mounts.py), and variants of
one fault do, each with a server of its own (`new_server`), because what a mount remembers of a failing host belongs to
that host. `errors` tells what is new, and of no server of another test. `other_server` is where nothing
secret may arrive. `secret(text, server, …)` marks a text that only those servers may see; `log_in` stores a marked
password as `docker login` does.

`close` (the fixture `faulty` calls it) heals all servers and insists on this, every time:

    1. every file in the cache is what its name says, and `regfs cache verify` would find nothing
    2. no marked secret came to a server that it is not for, nor into any file that the daemon wrote
    3. `.regfs` answers, the neighbour (a healthy image of another server) can be read, `regfs umount` ends
    4. no process of the mount ever had more than 300 MiB
    5. every errno is in the table of regfs/mount/errnos.py; no bug was counted; the log has no traceback
    6. no path that failed is missing afterwards, unless it failed with ENOENT

Of a shared mount 1, the files of 2, the end of 3 and the log of 5 are looked at once, when it ends.

Thread rule: belongs to one test; `fails` may be called by any thread.
"""

from __future__ import annotations

import base64
import errno
import itertools
import json
import random
import re
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from regfs.mount.errnos import ERRNOS
from tests.support.after_faults import (
    Secrets,
    assert_it_serves,
    assert_its_files_are_right,
    assert_none_went_missing,
)
from tests.support.fault_server import Application, FaultServer
from tests.support.hello import host_architecture
from tests.support.images import BuiltImage, BuiltLayer, file, image_of, layer
from tests.support.memory_registry import MemoryRegistry
from tests.support.mounted import Mounted, environment_for, mounts_at
from tests.support.shared_mounts import SharedMounts

T = TypeVar("T")
_PATIENCE_S = 60.0
# A minute for an operation, and no tag is trusted for long.
_PATIENT = ("--timeout", "60s", "--tag-ttl", "0s")
_ADDRESS = re.compile(r"127\.0\.0\.\d+:\d+")
_numbers = itertools.count(1)


class FaultyMount:
    """One mount by *driver* below *directory*, or one of *shared*; `server` serves `registry`.

    That is the default registry of a mount below *directory*.
    """

    def __init__(self, driver: str, directory: Path, shared: SharedMounts | None = None) -> None:
        self.driver = driver
        self.home = directory / "home" if shared is None else shared.home
        self.servers: list[FaultServer] = []
        self.registry = MemoryRegistry()
        self.server = self.new_server(self.registry)
        self._directory = directory
        self._mount: Mounted | None = None
        self._printed = ""
        self._output = directory / "output"
        self._daemon: subprocess.Popen[bytes] | None = None
        self._others: list[FaultServer] = []
        self._shared = shared
        self._secrets = Secrets() if shared is None else shared.secrets
        self._logins: dict[str, object] = {} if shared is None else shared.logins
        self._told_before: set[str] = set()
        self._writing = threading.Lock()
        self._contents: dict[str, bytes] = {}
        self._failed: dict[Path, str] = {}
        self._neighbour = self.new_server(MemoryRegistry())
        self.push_app("healthy", server=self._neighbour)

    # Servers and what is in them.

    def new_server(
        self, application: Application | None = None, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> FaultServer:
        """Return another registry: the mount shows it below its address."""
        server = FaultServer(application or MemoryRegistry(), host=host, tls=tls)
        self.servers.append(server)
        return server

    def other_server(
        self, application: Application | None = None, *, host: str = "127.0.0.2", tls: ssl.SSLContext | None = None
    ) -> FaultServer:
        """Return a server that must not be shown any Authorization, cookie or marked secret."""
        server = self.new_server(application, host=host, tls=tls)
        self._others.append(server)
        return server

    def restart(self, stopped: FaultServer) -> FaultServer:
        """Let a server that was stopped come back at its address, without its rules; return it."""
        server = FaultServer(stopped.application, port=int(stopped.address.rpartition(":")[2]))
        self.servers.append(server)
        return server

    def push(self, name: str, tag: str, image: BuiltImage, *, server: FaultServer | None = None) -> BuiltImage:
        """Put *image* into a registry (the default one), let *tag* name it, and return it."""
        application = (server or self.server).application
        assert isinstance(application, MemoryRegistry)
        for content in image.blobs().values():
            application.add_blob(name, content)
        application.add_manifest(name, image.manifest, tag=tag, media_type=image.media_type)
        return image

    def push_app(
        self,
        name: str = "app",
        *,
        tag: str = "1",
        server: FaultServer | None = None,
        random_bytes: int = 0,
        above: Sequence[BuiltLayer] = (),
    ) -> BuiltImage:
        """Push an image of one layer with `motd` and `etc/hosts`, and those *above*; no other image has its bytes.

        With *random_bytes* the `motd` ends with as many that do not compress, so that the layer is at least that big.
        """
        number = next(_numbers)
        content = f"welcome number {number}\n".encode() * 100 + random.Random(number).randbytes(random_bytes)
        files = layer(file("motd", content), file("etc/hosts", b"127.0.0.1 localhost\n"))
        self._contents[f"{(server or self.server).address}/{name}/{tag}/rootfs/motd"] = content
        return self.push(name, tag, image_of(files, *above, architecture=host_architecture()), server=server)

    # Secrets.

    def secret(self, text: str, *allowed: FaultServer) -> str:
        """Mark *text*, which only the *allowed* servers may be shown and no file of the daemon may have; return it."""
        self._secrets.mark(text, allowed)
        return text

    def log_in(
        self, *allowed: FaultServer, user: str = "ada", password: str = "", server: FaultServer | None = None
    ) -> tuple[str, str]:
        """Store a login for a server as `docker login` does, marked as secret; return user and password.

        *allowed* are the servers, such as a token server, that may see it beside the one that it is for.
        """
        owner = server or self.server
        password = password or f"marked-password-{next(_numbers)}-"
        encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
        for text in (password, encoded):
            self.secret(text, owner, *allowed)
        with self._writing:  # variants that run at once log in at once
            self._logins[owner.address] = {"auth": encoded}
            self.write_config({"auths": self._logins})
        return user, password

    def write_config(self, document: object) -> None:
        """Write docker's config.json; a str is written as it is."""
        path = self.home / ".docker" / "config.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(document if isinstance(document, str) else json.dumps(document))

    def hosts_toml(self, registry: str, text: str) -> None:
        """Write the hosts.toml of *registry* in the home of the user that mounts."""
        path = self.home / ".config" / "containerd" / "certs.d" / registry / "hosts.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    # The mount.

    def mount(self, *options: str, environment: Mapping[str, str] | None = None) -> Mounted:
        """Mount: a minute for an operation unless *options* say otherwise, and no tag is trusted for long.

        Give a deadline of seconds only where it is to be missed: a busy machine alone may stand still for as long.
        """
        if self._shared is not None:
            assert self._mount is None, "mounted already"
            assert environment is None, "a mount with an environment of its own is marked `by_itself`"
            self._mount = self._shared.mount(self.driver, [*_PATIENT, *options])
            self._told_before = set(self._mount.errors().splitlines())
            return self._mount
        made = self._made(options, environment)
        try:
            self._printed += made.mount()
        except BaseException:
            made.clean_up()
            raise
        self._mount = made
        return made

    def mount_in_foreground(self, *options: str, environment: Mapping[str, str] | None = None) -> Mounted:
        """Mount with the debug log on, which keeps the daemon in the foreground; what it prints is looked at, too."""
        made = self._made(options, environment)
        arguments, end = made.command[len(made.regfs) :], time.monotonic() + _PATIENCE_S
        command = [sys.executable, "-m", "tests.support.shorter_waits", "-d", *arguments]
        with self._output.open("wb") as output:
            self._daemon = subprocess.Popen(
                command, env=environment_for(made.home, environment), cwd=self._directory, stdout=output, stderr=output
            )
        while not mounts_at(made.path):
            if self._daemon.poll() is not None or time.monotonic() > end:
                self._daemon.kill()
                self._daemon.wait()
                raise AssertionError(f"{command}: {self._output.read_text()}")
            time.sleep(0.02)
        self._mount = made
        return made

    def _made(self, options: Sequence[str], environment: Mapping[str, str] | None) -> Mounted:
        assert self._mount is None, "mounted already"
        fixed = ["--driver", self.driver, "--default-registry", self.server.address, *_PATIENT]
        return Mounted(self._directory, options=[*fixed, *options], environment=environment, shorter_waits=True)

    @property
    def cache(self) -> Path:
        """The cache directory of the mount; what other tests fetched is in there, too, where the mount is shared."""
        return self._directory / "cache" if self._shared is None else self.mounted.cache

    @property
    def mounted(self) -> Mounted:
        """The mount, which is made now where it has not been made yet."""
        return self._mount or self.mount()

    def remount(self, *options: str, environment: Mapping[str, str] | None = None) -> Mounted:
        """Unmount and mount again over the same cache: what the daemon had in mind is gone, what it wrote is not."""
        assert self._shared is None, "a test that unmounts is marked `by_itself`"
        self.mounted.unmount()
        self._mount = None
        return self.mount(*options, environment=environment)

    def path(self, name: str, *, server: FaultServer | None = None) -> Path:
        """Return the path of *name* (`app/1/rootfs`) in the mount, below the address of *server*."""
        return self.mounted.path / (server or self.server).address / name

    def errors(self) -> str:
        """Return what `.regfs/errors` says since this test has the mount, without the servers of other tests."""
        told = self.mounted.errors()
        if self._shared is None:
            return told
        retired = self._shared.retired_addresses()
        lines = (line for line in told.splitlines(keepends=True) if line.rstrip("\n") not in self._told_before)
        return "".join(line for line in lines if retired.isdisjoint(_ADDRESS.findall(line)))

    def printed(self, text: str) -> None:
        """Keep what a command printed: it must not have a marked secret either."""
        self._printed += text

    # What a user does.

    def fails(self, path: Path, do: Callable[[Path], object]) -> str:
        """Return the name of the errno that *do* fails with for *path*: os.listdir, os.stat, Path.read_bytes."""
        with pytest.raises(OSError) as caught:
            do(path)
        number = caught.value.errno or 0
        name = errno.errorcode[number]
        assert number in ERRNOS.values(), f"{path}: {name} is no errno of the table"
        self._failed[path] = name
        return name

    def patiently(self, do: Callable[[], T]) -> T:
        """Return what *do* returns; it is repeated while it misses the deadline of operations, for up to a minute.

        For requests that no server delays: where the deadline is some seconds, a busy machine alone may miss it.
        """
        end = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return do()
            except OSError as error:
                if error.errno != errno.ETIMEDOUT or time.monotonic() > end:
                    error.add_note(self.errors())
                    raise

    def reads(self, path: Path) -> bool:
        """Tell whether *path*, the `motd` of an app that was pushed, has the bytes that were pushed."""
        return self.patiently(path.read_bytes) == self._contents[str(path.relative_to(self.mounted.path))]

    def neighbour_lives(self) -> bool:
        """Tell whether the healthy image of the other server can be read."""
        return self.reads(self.path("healthy/1/rootfs/motd", server=self._neighbour))

    def heal(self) -> None:
        """Let all servers behave from now on."""
        for server in self.servers:
            server.heal()

    def recovers(self, path: Path) -> None:
        """Insist that *path*, the `motd` of a pushed app, is readable in the end, and that it is never missing.

        A host that failed is left alone for a moment (shorter_waits.py), and so is a layer that was wrong.
        """
        end = time.monotonic() + _PATIENCE_S
        while True:
            try:
                assert self.reads(path)
                return
            except FileNotFoundError:
                raise
            except OSError as error:
                if time.monotonic() > end:
                    raise AssertionError(f"{path} does not recover") from error
            time.sleep(0.2)  # each attempt costs the daemon more than the wait

    # The end.

    def close(self) -> None:
        """Take everything down but a shared mount, and insist on the six things."""
        try:
            if self._mount is not None:
                self._check_while_mounted(self._mount)
                if self._shared is None:
                    self._mount.unmount()
        finally:
            if self._daemon is not None:
                self._daemon.wait(_PATIENCE_S)
            for server in self.servers:
                server.stop()
            if self._shared is not None:
                self._shared.retire(self.servers)
        self._secrets.assert_shown_to_none_but_theirs(self.servers, self._others)
        self._secrets.assert_not_in(self._printed)
        if self._mount is not None and self._shared is None:
            assert_its_files_are_right(self._mount, self._secrets)
            self._secrets.assert_not_in_files([self._output])

    def _check_while_mounted(self, mount: Mounted) -> None:
        try:
            self.heal()
            assert_none_went_missing(self._failed)
            assert self.neighbour_lives()
            self._printed += assert_it_serves(mount)
        except BaseException:
            if self._shared is not None:
                self._shared.discard(mount)
            else:
                mount.clean_up()
            raise
