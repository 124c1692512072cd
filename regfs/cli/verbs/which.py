"""`regfs which [OPTIONS] IMAGE[:/PATH] [PATH]`."""

from __future__ import annotations

import argparse
import stat
from collections.abc import Mapping

from regfs.cli.arguments import IMAGE_PATH_HELP, Parser, add_common, add_format, verb_parser
from regfs.cli.command_config import verb_config
from regfs.cli.json_output import tell_json
from regfs.cli.terminal import say_nothing, tell, warn


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser(
        "which",
        "Say which layer of an image brought PATH, by which command, and which versions upper layers replaced or "
        "deleted. Symbolic links on the way are followed.",
    )
    made.add_argument("image", metavar="IMAGE[:/PATH]", help=IMAGE_PATH_HELP)
    made.add_argument("path", metavar="PATH", nargs="?", help="in the image, or in its layers alone")
    made.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    add_format(made)
    return add_common(made, headings=("registry", "cache"))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print a line for each layer that has the path, the uppermost first."""
    from regfs.verbs.which import which

    say = say_nothing if given.quiet else warn
    path, brought = which(
        given.image, given.path, config=verb_config(given, environment), environment=environment, say=say
    )
    if given.format == "json":
        tell_json({"path": path, "versions": [each._asdict() for each in brought]})
        return 0
    tell(path)
    for each in brought:
        state = each.state if each.by is None else f"{each.state} by {each.by:03d}"
        command = " ".join(each.command.split())
        mode = stat.filemode(each.mode)
        tell(f"  layer {each.layer:03d} {each.digest[:19]}  {mode} {each.size:>10}  {state:<15}  {command}".rstrip())
    return 0
