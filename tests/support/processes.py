"""The processes that this one has started: the workers of ingests and merges."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def children() -> set[int]:
    """Return the ids of the processes that this one has, and those that its fork server has in that one's place."""
    # One that has not begun its program has the command line of this process, and one that has ended has none.
    not_yet = (_command_line("self"), b"")
    own = {process for process in _children_of("self") if _command_line(str(process)) not in not_yet}
    servers = {process for process in own if _is_fork_server(process)}
    return (own - servers).union(*(_children_of(str(server)) for server in servers))


def fork_servers() -> set[int]:
    """Return the ids of this process's fork servers."""
    return {process for process in _children_of("self") if _is_fork_server(process)}


def _children_of(process: str) -> set[int]:
    found: set[int] = set()
    with suppress(FileNotFoundError, ProcessLookupError):  # it, or a thread of an earlier test, has just ended
        for task in Path(f"/proc/{process}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                found.update(map(int, (task / "children").read_text().split()))
    return found


def _is_fork_server(process: int) -> bool:
    return b"regfs.images.workers.fork_server" in _command_line(str(process))


def _command_line(process: str) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
