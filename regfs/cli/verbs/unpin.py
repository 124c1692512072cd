"""`regfs unpin [OPTIONS] IMAGE…`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from regfs.cli.arguments import IMAGE_HELP, Parser, add_common, verb_parser
from regfs.cli.command_config import verb_config
from regfs.cli.terminal import tell


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser("unpin", "Let images that were pinned be evicted from the cache again.")
    made.add_argument("images", metavar="IMAGE", nargs="+", help=f"{IMAGE_HELP}, or the beginning of a digest")
    return add_common(made, headings=("registry", "cache"))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the names that are no longer pinned."""
    from regfs.verbs.pin import unpin

    config = verb_config(given, environment)
    for image in given.images:
        tell("\n".join(unpin(image, config=config)))
    return 0
