"""Files whose text is computed when they are read: `history`, `wasted`, `packages`, a layer's `real-size`.

Some need the layers, which a listing must not fetch. So their size is 0, as in /proc, and a reader gets all of the
text. The kernel does not cache their pages. Used by image.py and layers.py. Any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from regfs.errors import WouldBlock
from regfs.model.attributes import Attributes
from regfs.process.waiting.deadline import current
from regfs.tree.node import FILE_MODE, Live, OpenBytes, OpenFile


@dataclass(frozen=True, slots=True)
class ComputedFile(Live):
    """A file with the text that *make* returns, which may take seconds and block on the network; dated *created_ns*."""

    key: str
    make: Callable[[], str | bytes] = field(compare=False)
    created_ns: Callable[[], int] = field(compare=False)

    def attributes(self) -> Attributes:
        """Return the file's attributes, with the size 0."""
        return Attributes(FILE_MODE, 0, mtime_ns=self.created_ns())

    def open(self) -> OpenFile:
        """Return the text. Raises the errors of *make*."""
        if not current().may_wait:
            raise WouldBlock(f"{self.key} is computed when it is read")
        made = self.make()
        content = made if isinstance(made, bytes) else made.encode("utf-8", "surrogateescape")
        return OpenBytes(content, keep_cache=False)
