"""`regfs unpin [OPTIONS] IMAGE…`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from regfs.cli.arguments import IMAGE_HELP, Parser, add_common, add_format, verb_parser
from regfs.cli.command_config import verb_config
from regfs.cli.json_output import tell_result


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser("unpin", "Let images that were pinned be evicted from the cache again.")
    made.add_argument("images", metavar="IMAGE", nargs="+", help=f"{IMAGE_HELP}, or the beginning of a digest")
    add_format(made)
    return add_common(made, headings=("registry", "cache"))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the names that are no longer pinned."""
    from regfs.verbs.pin import unpin

    config = verb_config(given, environment)
    for image in given.images:
        names = unpin(image, config=config)
        tell_result(given.format, "\n".join(names), {"names": names})
    return 0
