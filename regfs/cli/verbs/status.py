"""`regfs status [--format text|json] [MOUNTPOINT…]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

from regfs.app.config import not_empty
from regfs.cli.arguments import Parser, add_common, add_format, verb_parser
from regfs.cli.exit_codes import FAILED
from regfs.cli.json_output import tell_json_list
from regfs.cli.terminal import tell, warn


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser(
        "status",
        "Show what mounts are doing: all, or those named. On a terminal with live bars. Ends with 1 where a mount is "
        "dead or does not answer within five seconds; mounts of other users are no failure.",
    )
    made.add_argument("mountpoints", metavar="MOUNTPOINT", nargs="*", type=not_empty)
    add_format(made)
    return add_common(made)


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the status of each mount."""
    from regfs.verbs import status

    found = status.find(given.mountpoints)
    if given.format == "json":
        tell_json_list(each.as_json() for each in found)
    else:
        for each in found:
            tell("\n".join(each.lines()))
        if not found:
            warn("no regfs is mounted")
        if len(found) == 1 and sys.stdout.isatty() and sys.stderr.isatty():
            status.watch(found[0], say=warn, environment=environment)
    return 0 if all(each.is_well for each in found) else FAILED
