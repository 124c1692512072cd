"""`regfs find [OPTIONS] IMAGE[:/PATH]`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from regfs.cli.arguments import IMAGE_PATH_HELP, Parser, add_common, add_format, verb_parser
from regfs.cli.command_config import verb_config
from regfs.cli.json_output import tell_json
from regfs.cli.terminal import say_nothing, tell, warn
from regfs.cli.verbs.ls import entry_as_json

_OTHER_TESTS = ("-iname", "-size", "-newer", "-mtime", "-user", "-group", "-links", "-empty", "-regex", "-maxdepth",
                "-mindepth", "-not", "-o", "-exec", "-print", "-print0", "-printf", "-ls")  # fmt: skip


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser("find", "Print the paths below a directory of an image that pass all tests, as find(1) does.")
    made.remedies = dict.fromkeys(_OTHER_TESTS, "find(1) has it, for the image's rootfs/ in a mount")
    made.add_argument("path", metavar="IMAGE[:/PATH]", help=IMAGE_PATH_HELP)
    made.add_argument("-name", "--name", metavar="PATTERN", help="the last component matches; * ? [a-z]")
    made.add_argument(
        "-path", "--path", dest="whole", metavar="PATTERN", help="the whole path matches; * takes slashes"
    )
    made.add_argument("-type", "--type", dest="types", metavar="f|d|l|c|b|p|s", help="of one of these types: f,l")
    made.add_argument(
        "-perm", "--perm", metavar="[-/]MODE", help="permissions: MODE exactly, -MODE all of these, /MODE any of these"
    )
    made.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    add_format(made)
    return add_common(made, headings=("registry", "cache"))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print one path on each line; as JSON, one object."""
    from regfs.verbs.find import Tests, find

    tests = Tests(given.name, given.whole, given.types, given.perm)
    say = say_nothing if given.quiet else warn
    config = verb_config(given, environment)
    for entry in find(given.path, tests, config=config, environment=environment, say=say):
        if given.format == "json":
            tell_json(entry_as_json(entry))
        else:
            tell(entry.path)
    return 0
