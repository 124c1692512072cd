"""`regfs cat`: the bytes of files of images, without a mount."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from regfs.app.config import Config
from regfs.errors import IsADirectory
from regfs.verbs.image_paths import opened_paths

_CHUNK = 1 << 20


def cat(
    texts: Sequence[str], *, config: Config, environment: Mapping[str, str], say: Callable[[str], None]
) -> Iterator[bytes]:
    """Yield the bytes of the files *texts*, IMAGE:/PATH, one after the other. Blocks on the network.

    Raises RegfsErrors; IsADirectory where no path, or a directory, is named.
    """
    with opened_paths(texts, config=config, environment=environment, say=say) as opened:
        for text, (image, path) in zip(texts, opened, strict=True):
            if path == image.contents:
                raise IsADirectory(f"{text} is an image: regfs cat {text}:/PATH; regfs ls {text} lists its files")
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    yield chunk
