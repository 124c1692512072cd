"""`regfs history`: the steps that built an image, as `history` in its directory has them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

from regfs.app.composition import build
from regfs.app.config import Config
from regfs.images.reports.history import history_text
from regfs.mount.mountpoint import mounts
from regfs.process.waiting.deadline import Deadline, under
from regfs.verbs.image import find_image
from regfs.verbs.image_argument import read_reference


def history(text: str, *, config: Config, environment: Mapping[str, str]) -> tuple[list[dict[str, object]], str]:
    """Return the steps of the image *text* as objects, and as one text. Blocks on the network for its documents.

    Raises RegfsErrors.
    """
    reference = read_reference(text, config.default_registry, mounts())
    with closing(build(config, environment)) as app:
        image = find_image(reference, app)
        with under(Deadline(config.timeout_s, is_users=True)):
            steps: list[dict[str, object]] = [
                {"created": step.created, "command": step.created_by, "has_layer": not step.empty_layer}
                for step in image.config.history
            ]
            return steps, history_text(image)
