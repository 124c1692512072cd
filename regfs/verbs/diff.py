"""`regfs diff`: what differs between two images, without a mount: files, and what the configs say."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass

from regfs.app.composition import build
from regfs.app.config import Config
from regfs.images.comparing.image_differences import ConfigChange, FileChange, config_changes, file_changes
from regfs.images.named_images import full_name
from regfs.mount.mountpoint import mounts
from regfs.process.waiting.deadline import Deadline, under
from regfs.verbs.image import Parts, fetching, find_image, merged_files
from regfs.verbs.image_argument import read_reference


@dataclass(frozen=True, slots=True)
class Compared:
    """Two images by their full names, what differs of their files, by path, and of their configs.

    *files* is computed while it is iterated: that may block on the network for layers, and raises RegfsErrors.
    """

    a: str
    b: str
    files: Iterator[FileChange]
    config: list[ConfigChange]


@contextmanager
def diff(
    a: str,
    b: str,
    path: str | None,
    *,
    config: Config,
    environment: Mapping[str, str],
    say: Callable[[str], None],
) -> Iterator[Compared]:
    """Yield what differs from the image *a* to *b*, with the cache open; with *path*, of the files there alone.

    Blocks on the network for manifests, configs and layers. Raises NotFound where neither has *path*, and other
    RegfsErrors.
    """
    references = [read_reference(text, config.default_registry, mounts()) for text in (a, b)]
    with closing(build(config, environment)) as app:
        if app.note:
            say(app.note)
        left, right = (find_image(reference, app) for reference in references)
        names = [full_name(reference, image) for reference, image in zip(references, (left, right), strict=True)]
        parts = Parts()
        with fetching(app, say=say, environment=environment, steps=parts.steps):
            trees = [merged_files(image, app) for image in (left, right)]
            # Each request ends by itself where it makes no progress; together they take as long as they take.
            with under(Deadline()):
                settings = config_changes(left, right) if path is None else []
                files = file_changes(left, right, path=os.fsencode(path or ""), report=parts.note)
                yield Compared(names[0], names[1], files, settings)
            del trees
