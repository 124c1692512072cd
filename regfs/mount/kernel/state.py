"""What the kernel was given in one session and may still use: handles, backing files, pages.

Both sides that answer requests, the thread that reads them and the pool, work on the same state. A daemon that takes a
mount over from another would have to be told of it, beside the look-up counts, which the tree keeps. Used by session.py
and requests.py. Thread rule: that of its parts, which any thread may use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from regfs.mount.handles import Handles
from regfs.mount.kernel.directory import OpenDirectory
from regfs.mount.kernel.notifications import Notifications
from regfs.mount.kernel.page_cache import PageCache
from regfs.mount.kernel.passthrough import OpenNodes

if TYPE_CHECKING:
    from regfs.mount.filesystem import FileSystem
    from regfs.tree.node import OpenFile


class SessionState:
    """The state of one session that shows *tree*; *notifications* go to the kernel of the same connection."""

    def __init__(self, tree: FileSystem, notifications: Notifications) -> None:
        self.notifications = notifications
        self.files: Handles[OpenFile] = Handles()
        self.directories: Handles[OpenDirectory] = Handles()
        self.open_nodes = OpenNodes()
        self.page_cache = PageCache(tree, notifications, self.open_nodes)

    def close(self) -> None:
        """Close what is still open; call it after the last request."""
        for file in self.files.take_all():
            file.close()
        self.directories.take_all()
