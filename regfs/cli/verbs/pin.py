"""`regfs pin [OPTIONS] IMAGE…`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from regfs.cli.arguments import IMAGE_HELP, Parser, add_common, add_format, verb_parser
from regfs.cli.command_config import verb_config
from regfs.cli.json_output import tell_result
from regfs.cli.terminal import say_nothing, warn


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser(
        "pin", "Fetch all of an image, and keep it in the cache whatever --cache-size says, until regfs unpin."
    )
    made.add_argument("images", metavar="IMAGE", nargs="+", help=IMAGE_HELP)
    made.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    add_format(made)
    return add_common(made, headings=("registry", "cache"))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Pin the images, one after the other, and print their full names."""
    from regfs.verbs.pin import pin

    config = verb_config(given, environment)
    say = say_nothing if given.quiet else warn
    for image in given.images:
        name = pin(image, config=config, environment=environment, say=say)
        tell_result(given.format, name, {"name": name})
    return 0
