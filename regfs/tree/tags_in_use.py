"""Keeps names whose meaning may change unchanged while they are in use: a moved tag shows its old image meanwhile.

When the kernel looks a name up again and gets another node or an error, it drops the name, all mounts below it in every
mount namespace, and the working directories there (fuse_dentry_revalidate, d_invalidate). So:

    a tag has moved, is refused or is gone    its directory shows all of the image that it showed, while a process has
                                              its working directory or root below it, or something is mounted there
    a name above it is refused or is gone     it keeps its meaning in the same way

The kernel may cache such an answer for a second. When nothing below the name is in use any more, the next look-up
returns the current state. An open file or directory does not count: its node stays valid without its name. A process
that enters between the check and the answer, some milliseconds, loses its mounts. The path of an image by digest never
changes its meaning, and shows a new image at once.

Used by invented.py. Thread rule: any thread. The lock is held while a thread decides whether a tag may move: this reads
/proc, makes no request, and is done only by threads that may wait.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

from regfs.errors import Interrupted, OutOfThreads, RegfsError, WouldBlock
from regfs.images.answers.tags import Resolved
from regfs.model.digest import Digest
from regfs.process.waiting.deadline import current
from regfs.tree.node import FOREVER, Child, Directory, Found, Node
from regfs.tree.snapshot import NO_RECORDS, TagImage
from regfs.tree.tag import TagDirectory
from regfs.tree.taken_over_nodes import DormantNode

log = logging.getLogger(__name__)

UsedDirectories = Callable[[], Collection[str] | None]
"""Returns the directories that are in use, as absolute paths in the mount; None if that is unknown."""

HELD_S = 1.0
_MOST_PATHS = 1024
# With these errors the kernel keeps the name (EINTR since Linux 6.13, ENOMEM always), or repeats the request.
_NO_ANSWERS = (WouldBlock, Interrupted, OutOfThreads)


@dataclass(slots=True)
class _Shown:
    """The image that a tag's directory shows. *newer*: what the tag names now, while the directory shows the old image.

    *noted*: the last note in the journal. *record*: the number of its record (Records).
    """

    resolved: Resolved
    is_held: bool = False
    newer: Digest | None = None
    noted: str = ""
    record: int = 0


class NamesInUse:
    """The last answers to the kernel about names whose meaning may change, by the node ids of their directories."""

    def __init__(
        self,
        used_directories: UsedDirectories,
        note: Callable[[str], None],
        *,
        held_s: float = HELD_S,
    ) -> None:
        """*note* is called once for each image that stays in use after its tag has moved.

        *held_s*: how many seconds the kernel may cache an old meaning that is kept for a process.
        """
        self._used_directories = used_directories
        self._note = note
        self._held_s = held_s
        self._deciding = threading.Lock()
        self._answered: dict[int, dict[bytes, Node | DormantNode]] = {}
        self._showing = threading.Lock()
        self._shown: dict[int, _Shown] = {}
        self.records = NO_RECORDS
        self._used_until: dict[str, float] = {}

    def lookup(self, parent: int, directory: Directory, name: bytes) -> Found:
        """Return the meaning of *name* in *directory*, whose node is *parent*, for the kernel."""
        text = os.fsdecode(name)
        before = self._before(parent, name)
        try:
            found = self._with_image(parent, directory).lookup(text)
        except _NO_ANSWERS:
            raise
        except RegfsError:
            if before is None:
                raise
            if not self._is_used(_path(directory, text)):
                self._answered.get(parent, {}).pop(name, None)
                raise
            return Found(before, self._held_s)
        # If a tag is gone or refused, its name may still be a repository, and counts as one.
        is_no_tag_now = isinstance(before, TagDirectory) and not isinstance(found.node, TagDirectory)
        if before is not None and is_no_tag_now and self._is_used(_path(directory, text)):
            return Found(before, self._held_s)
        if found.valid_s != FOREVER:
            self.answered(parent, name, found.node)
        return found

    def _before(self, parent: int, name: bytes) -> Node | None:
        """Return the node that the kernel has for *name*; None if there is none, or it cannot be located."""
        before = self._answered.get(parent, {}).get(name)
        if not isinstance(before, DormantNode):
            return before
        try:
            return before.wake()
        except _NO_ANSWERS:
            raise
        except RegfsError as error:
            log.info("%s was not taken over: %s", before.key, error)
            return None

    def answered(self, parent: int, name: bytes, node: Node | DormantNode) -> None:
        """Remember that the kernel was told *node* for *name* in *parent*, for a limited time."""
        self._answered.setdefault(parent, {})[name] = node

    def children(self, node: int, directory: Directory) -> list[Child]:
        """Return what *directory*, whose node is *node*, lists."""
        return self._with_image(node, directory).children()

    def xattrs(self, node: int, directory: TagDirectory) -> dict[bytes, bytes]:
        """Return *directory*'s xattrs: the image that it shows, and a newer one not shown yet. Makes no request."""
        shown = self._shown.get(node)
        if shown is None or not shown.is_held:
            return directory.xattrs()
        xattrs = directory.xattrs(shown.resolved.digest)
        if shown.newer is not None:
            xattrs[b"user.regfs.newer"] = str(shown.newer).encode()
        return xattrs

    def forget(self, node: int, parent: int, name: bytes | None) -> None:
        """Drop the state of *node*, which the kernel has forgotten with everything below it."""
        self._show(node, None)
        self._answered.pop(node, None)
        if name is not None and parent in self._answered:
            self._answered[parent].pop(name, None)

    def snapshot(self) -> tuple[TagImage, ...]:
        """Return which image each tag's directory shows."""
        return tuple(_tag_image(node, shown.resolved, shown.record) for node, shown in list(self._shown.items()))

    def restore(self, images: tuple[TagImage, ...]) -> None:
        """Take over the images that another process showed; the next look-up resolves the tags."""
        for node, digest, media_type, size, record in images:
            before = Resolved(Digest.parse(digest), media_type, size, expires_s=0.0)
            self._shown[node] = _Shown(before, record=record)

    def _with_image(self, node: int, directory: Directory) -> Directory:
        """Return *directory*; if it is a tag's, the directory of the image that it must show."""
        if isinstance(directory, TagDirectory):
            return replace(directory, resolve=partial(self._resolve, node, directory))
        return directory

    def _resolve(self, node: int, tag: TagDirectory) -> Resolved:
        """Return the image that *tag* must show: the one that it names now, unless the one that it showed is in use."""
        shown = self._shown.get(node)
        try:
            resolved = tag.repository.tags.resolve(tag.tag)
        except _NO_ANSWERS:
            raise
        except RegfsError as error:
            if shown is None:
                raise
            return self._decide(node, tag, error)
        if shown is None:
            self._show(node, resolved)
        elif shown.resolved.digest == resolved.digest:
            shown.resolved, shown.is_held, shown.newer = resolved, False, None
        else:
            return self._decide(node, tag, resolved)
        return resolved

    def _decide(self, node: int, tag: TagDirectory, now: Resolved | RegfsError) -> Resolved:
        """Return the image that was shown if it is in use; else the image *now*. Raises *now* if it is an error."""
        below = f"{_path(tag)}/"
        if not current().may_wait and not self._was_just_used(below):
            raise WouldBlock(f"whether a process is below {below} must be looked up in /proc")
        with self._deciding if current().may_wait else nullcontext():
            shown = self._shown.get(node)
            if isinstance(now, Resolved) and shown is not None and shown.resolved.digest == now.digest:
                return now  # another thread has decided this meanwhile
            if shown is not None and self._is_used(below):
                self._hold(shown, tag, now)
                return shown.resolved._replace(expires_s=time.monotonic() + self._held_s)
            if isinstance(now, RegfsError):
                self._show(node, None)
                raise now
            self._show(node, now)
            return now

    def _show(self, node: int, resolved: Resolved | None) -> None:
        """Note the image that the tag's directory *node* shows from now on; None: no image."""
        with self._showing:
            record = 0 if resolved is None else self.records.keep(_tag_image(node, resolved))
            before = self._shown.pop(node, None)
            if resolved is not None:
                self._shown[node] = _Shown(resolved, record=record)
            if before is not None:
                self.records.drop(before.record)

    def _hold(self, shown: _Shown, tag: TagDirectory, now: Resolved | RegfsError) -> None:
        shown.is_held = True
        shown.newer = None if isinstance(now, RegfsError) else now.digest
        what = f"cannot be resolved ({type(now).__name__})" if isinstance(now, RegfsError) else f"moved to {now.digest}"
        if shown.noted != what:
            shown.noted = what
            old = shown.resolved.digest
            self._note(f"the tag {tag.repository.name}:{tag.tag} {what}; {old} is still in use below {_path(tag)}")

    def _is_used(self, path: str) -> bool:
        """Whether a process or a mount is at *path* or below it; only below it, if *path* ends with a slash.

        Raises WouldBlock if /proc must be read and the thread may not wait.
        """
        if self._was_just_used(path):
            return True
        if not current().may_wait:
            raise WouldBlock(f"whether a process is in {path} must be looked up in /proc")
        used = self._used_directories()
        below = path.rstrip("/") + "/"
        is_used = used is None or any(one == path or one.startswith(below) for one in used)
        if is_used:
            if len(self._used_until) >= _MOST_PATHS:
                self._used_until.clear()
            self._used_until[path] = time.monotonic() + self._held_s
        return is_used

    def _was_just_used(self, path: str) -> bool:
        return self._used_until.get(path, 0.0) > time.monotonic()


def _tag_image(node: int, resolved: Resolved, record: int = 0) -> TagImage:
    return TagImage(node, str(resolved.digest), resolved.media_type, resolved.size, record)


def _path(directory: Directory, name: str = "") -> str:
    """Return the path in the mount of an invented *directory*, or of *name* in it: its key with normal slashes."""
    return "/" + f"{directory.key}/{name}".strip("/")
