"""`wasted` of an image as text: the bytes that upper layers hide or delete, the biggest first.

    2 files, 1048602 bytes, are in layers and not in the image, which has 125829120 bytes
         BYTES  HIDDEN BY     PATH
       1048576  replaced 003  layers/001/tree/var/lib/apt/lists/cache
            26  deleted 002   layers/000/tree/root/secret.key

Each path can be read as it stands. Used by tree/image.py. Thread rule: a function.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from regfs.images.image import Image
from regfs.model.attributes import size_of
from regfs.model.path_text import printable
from regfs.rootfs.rootfs import Rootfs
from regfs.rootfs.wasted import WastedFile, hidden_by, wasted_files

MOST = 10_000
"""How many paths are listed. The sums include all."""


def wasted_text(image: Image) -> str:
    """Return the text. Waits for all layers, as rootfs() does, and raises its errors."""
    rootfs = image.rootfs()
    count = wasted = 0

    def counted() -> Iterator[WastedFile]:
        nonlocal count, wasted
        for file in wasted_files(rootfs):
            count, wasted = count + 1, wasted + file.size
            yield file

    biggest = heapq.nlargest(MOST, counted(), key=lambda file: file.size)
    whole = sum(size_of(each) for number in range(len(rootfs.layers)) for _, each in rootfs.files_of_layer(number))
    head = f"{count} files, {wasted} bytes of {whole}, are in layers and not in the image\n"
    if not biggest:
        return head
    more = f"{count - len(biggest)} smaller ones are left out\n" if count > len(biggest) else ""
    columns = f"{'BYTES':>12}  {'HIDDEN BY':<12}  PATH\n"
    return head + columns + "".join(_line(rootfs, file) for file in biggest) + more


def _line(rootfs: Rootfs, file: WastedFile) -> str:
    path = rootfs.layers[file.layer].path_of(file.row)
    hidden = hidden_by(rootfs, file.layer, path)
    reason = "itself" if hidden is None else f"{'deleted' if hidden[1] else 'replaced'} {hidden[0]:03d}"
    return f"{file.size:>12}  {reason:<12}  layers/{file.layer:03d}/tree/{printable(path)}\n"
