"""What the kernel has from one session and may still use: handles, backing files, pages.

The thread that reads requests and the threads of the pool share this state. With a StateFile the next daemon of the
mount finds what it needs of it (kept/). Used by session.py and requests.py. Thread rule: any thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from regfs.mount.handles import Handles
from regfs.mount.kernel import abi
from regfs.mount.kernel.directory import OpenDirectory
from regfs.mount.kernel.kept.open_files import KeptHandles
from regfs.mount.kernel.kept.pending import NoPending, Pending
from regfs.mount.kernel.kept.state_file import StateFile
from regfs.mount.kernel.notifications import Notifications
from regfs.mount.kernel.page_cache import PageCache, PageCachedFile
from regfs.mount.kernel.passthrough import OpenNodes

if TYPE_CHECKING:
    from regfs.mount.filesystem import FileSystem
    from regfs.tree.node import OpenFile


_EACH_DAEMON = 1 << 32


class SessionState:
    """The state of one session that shows *tree*; *notifications* go to the kernel of the same connection.

    With *kept* what the kernel relies on is written there, and read from there where an earlier daemon has left it.
    """

    def __init__(self, tree: FileSystem, notifications: Notifications, kept: StateFile | None = None) -> None:
        self._tree = tree
        self.notifications = notifications
        self.kept = kept
        self._kept_files = None if kept is None else KeptHandles(kept)
        self.files: Handles[OpenFile] = Handles() if self._kept_files is None else self._kept_files
        self.directories: Handles[OpenDirectory] = Handles(1 + (0 if kept is None else kept.restarts * _EACH_DAEMON))
        self.open_nodes = OpenNodes()
        self.page_cache = PageCache(tree, notifications, self.open_nodes)
        self.pending = NoPending() if kept is None else Pending(kept)
        # By the request that opened them: handles of which an earlier daemon may not have told the kernel.
        self._doubtful: dict[int, tuple[int, int]] = {}

    def restore(self) -> None:
        """Load the files that the kernel has open from an earlier daemon. Call it before the first request."""
        if self._kept_files is None:
            return
        for file in self._kept_files.read():
            is_cached = not file.flags & abi.FOPEN_DIRECT_IO
            self.files.restore(file.handle, PageCachedFile(self._tree, file.node, keep_cache=is_cached))
            if is_cached:
                self.open_nodes.restore(file.node, file.backing_id)
            self._doubtful[file.unique] = file.node, file.handle

    def doubt(self, opened_by: set[int]) -> None:
        """Keep as doubtful only the files of the requests *opened_by*, which may have been left unanswered."""
        self._doubtful = {unique: file for unique, file in self._doubtful.items() if unique in opened_by}

    def opening(self, unique: int, node: int, answer: bytes) -> None:
        """Record the *answer* to the OPEN *unique* before the kernel gets it."""
        if self._kept_files is not None:
            self._kept_files.record(node, unique, answer)

    def answered(self, unique: int) -> None:
        """Close the file that an earlier daemon has opened for *unique*: the kernel has taken this daemon's answer."""
        if self._doubtful and (file := self._doubtful.pop(unique, None)) is not None:
            self.release(*file)

    def release(self, node: int, handle: int) -> None:
        """Close a file. Raises BadHandle."""
        file = self.files.take(handle)
        if file.keep_cache:
            self.open_nodes.released(node)
        file.close()
        self.files.closed(handle)

    def close(self) -> None:
        """Close what is still open; call it after the last request."""
        for file in self.files.take_all():
            file.close()
        self.directories.take_all()
