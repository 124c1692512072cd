"""`regfs history [OPTIONS] IMAGE`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from regfs.cli.arguments import IMAGE_HELP, Parser, add_common, add_format, verb_parser
from regfs.cli.command_config import verb_config
from regfs.cli.json_output import tell_result


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser("history", "Show the steps that built an image, with the layer of each. No layer is fetched.")
    made.add_argument("image", metavar="IMAGE", help=IMAGE_HELP)
    add_format(made)
    return add_common(made, headings=("registry", "cache"))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print a line for each step."""
    from regfs.verbs.history import history

    steps, text = history(given.image, config=verb_config(given, environment), environment=environment)
    tell_result(given.format, text.rstrip(), {"steps": steps})
    return 0
