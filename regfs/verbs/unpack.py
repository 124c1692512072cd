"""`regfs unpack`: finds an image, and lets export/unpack.py write its merged files into a directory."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from regfs.app.composition import build
from regfs.app.config import Config
from regfs.export.unpack import Summary, Unpacker, check_directory, prepare_directory, total_size
from regfs.images.named_images import full_name
from regfs.mount.mountpoint import mounts
from regfs.process.umask import current_umask
from regfs.verbs.image import find_image, layer_steps, whole_files
from regfs.verbs.image_argument import read_reference
from regfs.verbs.progress import Count, Step, showing

Say = Callable[[str], None]
_MOST_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Unpacked:
    """The full *name* of the image, *notes* on what its files lack, and whether all were written."""

    name: str
    notes: tuple[str, ...]
    is_complete: bool


def unpack(
    image_text: str, directory: Path, *, config: Config, environment: Mapping[str, str], say: Say, warn: Say
) -> Unpacked:
    """Write all layers of the image that *image_text* names, merged, into *directory*, which must be empty.

    *directory* is made when there is something to write. Where an error or Ctrl-C ends the writing early, *warn* is
    called with a message that the directory is incomplete; *say* is called with the progress. Blocks on the network.
    Raises RegfsErrors.
    """
    reference = read_reference(image_text, config.default_registry, mounts())
    check_directory(directory)
    with closing(build(config, environment)) as app:
        if app.note:
            say(app.note)
        image = find_image(reference, app)
        with showing(lambda: layer_steps(app), say=say, environment=environment):
            files = whole_files(image, app)
        written, total = Count(), total_size(files)
        prepare_directory(directory)
        unpacker = Unpacker(
            files, app.layer_cache.open, as_root=os.geteuid() == 0, umask=current_umask(), on_bytes=written.add
        )
        try:
            with showing(lambda: [Step("writing files", written.size, total)], say=say, environment=environment):
                summary = unpacker.into(directory)
        except BaseException:
            warn(f"{directory} is incomplete: remove it before you try again")
            raise
    return Unpacked(full_name(reference, image), _notes(summary), is_complete=not summary.failures)


def _notes(summary: Summary) -> tuple[str, ...]:
    notes = summary.notes()
    if summary.failures:
        notes.append(f"{len(summary.failures)} entries could not be written as the image has them:")
        notes.extend(f"  {failure}" for failure in summary.failures[:_MOST_SHOWN])
    return tuple(notes)
