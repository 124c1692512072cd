"""What must hold of a mount, its servers and its files after whatever went wrong; FaultyMount lists the six things.

`Secrets` knows which texts only some servers may be shown, and looks for them wherever else they may have come to.
Thread rule: `Secrets.mark` by any thread, the rest by one.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from regfs.mount.errnos import ERRNOS
from regfs.store.verify import verify
from tests.support.cache import assert_cache_is_clean
from tests.support.fault_server import FaultServer
from tests.support.mounted import Mounted

MEMORY_LIMIT = 300 * 1024 * 1024
_PATIENCE_S = 60.0
# Hundreds of secrets begin in a few ways: only a file that has such a beginning is searched for each of them.
_BEGINNING = 8
_CONTROL = ("errors", "stats.json", "fetching.json", "version")


class Secrets:
    """Texts that only their servers may be shown, and that no file of a daemon may have."""

    def __init__(self) -> None:
        self._allowed: dict[str, tuple[FaultServer, ...]] = {}

    def mark(self, text: str, allowed: tuple[FaultServer, ...]) -> None:
        """Let only the *allowed* servers be shown *text*."""
        self._allowed[text] = allowed

    def assert_shown_to_none_but_theirs(self, servers: Iterable[FaultServer], others: Iterable[FaultServer]) -> None:
        """Assert it of all that the *servers* were asked; the *others* were shown no Authorization and no cookie."""
        strangers = set(others)
        for server in servers:
            for seen in server.seen:
                text = f"{seen.path} {dict(seen.headers)} {seen.body!r}"
                leaked = [
                    one
                    for one, allowed in self._allowed.items()
                    if one in text and server.address not in {each.address for each in allowed}
                ]
                assert leaked == [], f"{server.address}: {seen}"
                shown = {"authorization", "cookie", "proxy-authorization"} & set(seen.headers)
                assert server not in strangers or not shown, f"{server.address}: {seen} has {shown}"

    def assert_not_in(self, printed: str) -> None:
        """Assert that none is in what was printed."""
        assert [secret for secret in self._allowed if secret in printed] == []

    def assert_not_in_files(self, paths: Iterable[Path]) -> None:
        """Assert that none is in any of those of *paths* that are files."""
        marked = [secret.encode() for secret in self._allowed]
        beginnings = {secret[:_BEGINNING] for secret in marked}
        for path in paths:
            if path.is_file():
                content = path.read_bytes()
                if any(beginning in content for beginning in beginnings):
                    assert [secret for secret in marked if secret in content] == [], path


def assert_it_serves(mount: Mounted) -> str:
    """Assert that `.regfs` answers, that no bug was counted and that no process was too big; return what it tells."""
    told = "".join(_within(lambda: [(mount.path / ".regfs" / name).read_text() for name in _CONTROL]))
    pids = mount.processes()
    assert mount.stats().get("bugs", 0) == 0, mount.errors()
    peaks = {pid: _peak_memory(pid) for pid in pids}
    assert {pid: peak for pid, peak in peaks.items() if peak > MEMORY_LIMIT} == {}
    return told + "".join(map(_command_line, pids))


def assert_none_went_missing(failed: Mapping[Path, str]) -> None:
    """Assert that each path that *failed* with some errno is there or fails, and with ENOENT if it did so before."""
    for path, name in failed.items():
        number = _errno_of_stat(path)
        assert number in {0, *ERRNOS.values()}, f"{path}: {os.strerror(number)}"
        assert number != errno.ENOENT or name == "ENOENT", f"{path} failed with {name} and is missing since"


def assert_its_files_are_right(mount: Mounted, secrets: Secrets) -> None:
    """Assert that a mount that has ended left a cache of verified files, no traceback in its log, and no secret."""
    assert_cache_is_clean(mount.cache)
    if mount.cache.exists():
        assert [str(problem) for problem in verify(mount.cache, drop=False)] == []
    log = mount.log.read_text(errors="replace") if mount.log.exists() else ""
    assert "Traceback" not in log, log
    secrets.assert_not_in_files([*mount.cache.rglob("*"), mount.log])


def _within(read: Callable[[], list[str]]) -> list[str]:
    """Return what *read* returns; it has a minute, for what may not depend on any server."""
    found: list[list[str]] = []
    thread = threading.Thread(target=lambda: found.append(read()), daemon=True)
    thread.start()
    thread.join(_PATIENCE_S)
    assert found, ".regfs does not answer"
    return found[0]


def _errno_of_stat(path: Path) -> int:
    try:
        os.stat(path)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""  # a worker that has ended


def _peak_memory(pid: int) -> int:
    """Return the most memory that a process ever had, in bytes; 0 where it has gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
