"""`regfs refresh [MOUNTPOINT…]`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from regfs.app.config import not_empty
from regfs.cli.arguments import Parser, add_common, add_format, verb_parser


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser(
        "refresh",
        "Let mounts ask for tags and listings again, whatever --tag-ttl says: all of your own, or those named. Returns "
        "when they have begun to. Ends with 4 where a mount is another user's, with 1 or 5 where it does not answer.",
    )
    made.add_argument("mountpoints", metavar="MOUNTPOINT", nargs="*", type=not_empty)
    add_format(made)
    return add_common(made)


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Refresh, and say for each mount how it went; return the highest exit code of all."""
    del environment
    from regfs.cli.mount_results import MountResult, tell_mount_results
    from regfs.verbs.refresh import refresh

    success = "tags and listings will be asked for again"
    results = [MountResult(each.mountpoint, each.failure, success) for each in refresh(given.mountpoints)]
    return tell_mount_results(results, given.format)
