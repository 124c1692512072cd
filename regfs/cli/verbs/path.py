"""`regfs path [--mount DIR] IMAGE`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from regfs.app.config import not_empty
from regfs.cli.arguments import IMAGE_HELP, Parser, add_common, add_format, verb_parser
from regfs.cli.json_output import tell_result
from regfs.cli.settings import configured


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser(
        "path",
        "Print the path of an image in a mount by its digest. What is there never changes, unlike what a tag names: "
        "use it for programs that run long.",
    )
    made.add_argument("image", metavar="IMAGE", help=IMAGE_HELP)
    made.add_argument(
        "--mount",
        metavar="DIR",
        type=not_empty,
        help="the mount to look in; otherwise that of the working directory, of the image's registry, or the first",
    )
    add_format(made)
    return add_common(made)


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the path."""
    from regfs.verbs.path import image_path

    path = str(image_path(given.image, given.mount, configured(environment).default_registry))
    tell_result(given.format, path, {"path": path})
    return 0
