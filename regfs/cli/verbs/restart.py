"""`regfs restart [MOUNTPOINT…]`."""

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
    from regfs.mount.mountpoint import on_one_line
    from regfs.verbs.restart import restart

    restarted = restart(given.mountpoints)
    if not restarted:
        raise MountFailure("no regfs of yours is mounted")
    for each in restarted:
        if each.failure is not None:
            warn(str(each.failure))
        elif given.format != "json":
            tell(f"{on_one_line(each.mountpoint)}: process {each.pid} serves it now")
    codes = [0 if each.failure is None else exit_code(each.failure) for each in restarted]
    if given.format == "json":
        mounts = [
            {
                "mountpoint": each.mountpoint, "pid": each.pid, "exit_code": code,
                "error": None if each.failure is None else str(each.failure),
            }
            for each, code in zip(restarted, codes, strict=True)
        ]  # fmt: skip
        tell_json({"mounts": mounts})
    return max(codes)
