"""Mounts that many tests of faults use one after the other, one for each driver and options.

    mounts = SharedMounts(directory)
    mount = mounts.mount("kernel", ["--timeout", "60s"])     mounted at the first call
    mounts.discard(mount)                                    a check of it has failed: the next test gets a new one
    mounts.close()                                           unmounts all, and looks at their caches and logs

What a mount remembers belongs to the address of a server, and each test has servers of its own, at addresses that no
later test gets. All mounts have one home, so that logins and hosts.toml can be written before it is known which mount a
test uses. A test that changes more of a mount than that, ends it or lets it hang makes a mount of its own.

Thread rule: one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.support.after_faults import Secrets, assert_its_files_are_right
from tests.support.fault_server import FaultServer
from tests.support.memory_registry import MemoryRegistry
from tests.support.mounted import Mounted


class SharedMounts:
    """The mounts of one test process below *directory*."""

    def __init__(self, directory: Path) -> None:
        self.home = directory / "home"
        self.logins: dict[str, object] = {}
        self.secrets = Secrets()
        self._directory = directory
        self._default_registry = FaultServer(MemoryRegistry())
        self._mounts: dict[tuple[str, tuple[str, ...]], Mounted] = {}
        self._made = 0
        self._retired: list[FaultServer] = []

    def mount(self, driver: str, options: Sequence[str]) -> Mounted:
        """Return the mount by *driver* with *options*, which is made where there is none yet."""
        key = driver, tuple(options)
        if key not in self._mounts:
            self._made += 1
            name = f"reg{self._made}"
            own = ["--driver", driver, "--default-registry", self._default_registry.address]
            cache = self._directory / f"cache{self._made}"
            made = Mounted(self._directory, options=[*own, *options], cache=cache, name=name, shorter_waits=True)
            try:
                made.mount()
            except BaseException:
                made.clean_up()
                raise
            self._mounts[key] = made
        return self._mounts[key]

    def discard(self, mount: Mounted) -> None:
        """Take a mount away by force."""
        mount.clean_up()
        self._mounts = {key: one for key, one in self._mounts.items() if one is not mount}

    def retire(self, servers: Sequence[FaultServer]) -> None:
        """Keep the ports of *servers*, which have stopped: the mounts remember what happened there."""
        self._retired += servers

    def retired_addresses(self) -> set[str]:
        """Return the addresses of the servers of earlier tests."""
        return {server.address for server in self._retired}

    def close(self) -> None:
        """Unmount all; insist that caches, logs and secrets are right."""
        mounts = list(self._mounts.values())
        try:
            for mount in mounts:
                mount.unmount()
        finally:
            for mount in mounts:
                mount.clean_up()
            self._default_registry.stop()
        for mount in mounts:
            assert_its_files_are_right(mount, self.secrets)
