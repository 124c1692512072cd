"""`regfs refresh [MOUNTPOINT…]`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from regfs.app.config import not_empty
from regfs.cli.arguments import Parser, add_common, add_format, verb_parser
from regfs.cli.exit_codes import exit_code
from regfs.cli.json_output import tell_json
from regfs.cli.terminal import tell, warn
from regfs.errors import MountFailure


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
    from regfs.mount.mountpoint import on_one_line
    from regfs.verbs.refresh import refresh

    refreshed = refresh(given.mountpoints)
    if not refreshed:
        raise MountFailure("no regfs of yours is mounted")
    for each in refreshed:
        if each.failure is not None:
            warn(str(each.failure))
        elif given.format != "json":
            tell(f"{on_one_line(each.mountpoint)}: tags and listings will be asked for again")
    codes = [0 if each.failure is None else exit_code(each.failure) for each in refreshed]
    if given.format == "json":
        mounts = [
            {
                "mountpoint": each.mountpoint, "exit_code": code,
                "error": None if each.failure is None else str(each.failure),
            }
            for each, code in zip(refreshed, codes, strict=True)
        ]  # fmt: skip
        tell_json({"mounts": mounts})
    return max(codes)
