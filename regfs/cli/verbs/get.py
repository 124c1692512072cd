"""`regfs get [OPTIONS] ARTIFACT[:/PATH] [DIR]`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from regfs.app.config import not_empty
from regfs.cli.arguments import IMAGE_PATH_HELP, Parser, add_common, add_format, verb_parser
from regfs.cli.command_config import verb_config
from regfs.cli.json_output import tell_json
from regfs.cli.terminal import say_nothing, tell, warn


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser(
        "get",
        "Write the files of an artifact (a model, a chart, a bundle …) into DIR, as its own tool would. Nothing is "
        "overwritten.",
    )
    made.add_argument("artifact", metavar="ARTIFACT[:/PATH]", help=IMAGE_PATH_HELP)
    made.add_argument("directory", metavar="DIR", nargs="?", default=".", type=not_empty, help="the current one (.)")
    made.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    add_format(made)
    return add_common(made, headings=("registry", "cache"))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Write the files, and print their paths."""
    from regfs.verbs.get import get

    say = say_nothing if given.quiet else warn
    config = verb_config(given, environment)
    got = get(given.artifact, Path(given.directory), config=config, environment=environment, say=say)
    written = [str(path) for path in got.written]
    if given.format == "json":
        tell_json({"name": got.name, "written": written})
    elif written:
        tell("\n".join(written))
    return 0
