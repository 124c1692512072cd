"""`regfs cat [OPTIONS] IMAGE:/PATH …`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from regfs.cli.arguments import IMAGE_PATH_HELP, Parser, add_common, verb_parser
from regfs.cli.command_config import verb_config
from regfs.cli.terminal import say_nothing, tell_bytes, warn


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser("cat", "Print files of images, one after the other.")
    made.add_argument("paths", metavar="IMAGE:/PATH", nargs="+", help=IMAGE_PATH_HELP)
    made.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    return add_common(made, headings=("registry", "cache"))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Write the bytes to stdout."""
    from regfs.verbs.cat import cat

    say = say_nothing if given.quiet else warn
    tell_bytes(cat(given.paths, config=verb_config(given, environment), environment=environment, say=say))
    return 0
