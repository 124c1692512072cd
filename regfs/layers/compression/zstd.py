"""zstd as layers use it: several frames one after the other, skippable ones among them.

Source: RFC 8878. Used by detection.py; one thread.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Iterator

from regfs.errors import BadLayer, TooLarge
from regfs.layers.compression.detection import Seek, seek_nowhere

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAGIC = b"\x28\xb5\x2f\xfd"
# 128 MiB: what zstd(1) takes without being asked, and what its highest levels make.
MAX_WINDOW_LOG = 27

_FIRST_BITE = 1 << 13  # see gzip.py


def starts_frame(first: bytes) -> bool:
    """Tell whether *first* (4 bytes) begins a frame with content or a skippable one."""
    return first == MAGIC or (len(first) == 4 and struct.unpack("<I", first)[0] & 0xFFFFFFF0 == 0x184D2A50)


def decompress(chunks: Iterable[bytes | memoryview], *, block_size: int, seek: Seek = seek_nowhere) -> Iterator[bytes]:
    """Yield what *chunks* decompress to, in blocks of at most *block_size*; call *seek* at the end of each frame.

    Raises BadLayer where they are not zstd, TooLarge where a frame needs a window of more than 128 MiB.
    """
    frame: zstd.ZstdDecompressor | None = None
    frames = 0
    bite_size = _FIRST_BITE
    before = out = 0
    for chunk in chunks:
        view = memoryview(chunk)
        at = 0
        while at < len(view):
            if frame is None:
                frame = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: MAX_WINDOW_LOG})
                bite_size = _FIRST_BITE
            bite: memoryview | bytes = view[at : at + bite_size]
            at += len(bite)
            while True:
                block = _decompress(frame, bite, block_size)
                if block:
                    out += len(block)
                    yield block
                bite = b""
                if frame.eof or frame.needs_input:
                    break
            if frame.eof:
                at -= len(frame.unused_data)
                frame = None
                frames += 1
                seek(before + at, out)
            else:
                bite_size *= 2
        before += len(view)
    if frame is not None or not frames:
        raise BadLayer("the zstd stream ends in the middle")


def _decompress(frame: zstd.ZstdDecompressor, bite: bytes | memoryview, block_size: int) -> bytes:
    try:
        return frame.decompress(bite, block_size)
    except zstd.ZstdError as error:
        if "memory" in str(error):
            raise TooLarge(f"a zstd frame needs a window of more than {1 << MAX_WINDOW_LOG} bytes") from error
        raise BadLayer(f"the zstd stream is broken: {error}") from error
