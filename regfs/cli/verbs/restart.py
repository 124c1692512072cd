"""`regfs restart [MOUNTPOINT…]`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from regfs.app.config import not_empty
from regfs.cli.arguments import Parser, add_common, add_format, verb_parser


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser(
        "restart",
        "Let another daemon take mounts over, after an upgrade of regfs for example: all of yours, or those named. "
        "Programs in them go on: open files, working directories and mounts on top stay. Ends with 1 where the daemon "
        "stays the same, because the other one does not start for example, and says why.",
    )
    made.add_argument("mountpoints", metavar="MOUNTPOINT", nargs="*", type=not_empty)
    add_format(made)
    return add_common(made)


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Restart, and say for each mount how it went; return the highest exit code of all."""
    del environment
    from regfs.cli.mount_results import MountResult, tell_mount_results
    from regfs.verbs.restart import restart

    results = [
        MountResult(each.mountpoint, each.failure, f"process {each.pid} serves it now", {"pid": each.pid})
        for each in restart(given.mountpoints)
    ]
    return tell_mount_results(results, given.format)
