"""`regfs cp [OPTIONS] IMAGE:/PATH … DEST`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from regfs.app.config import not_empty
from regfs.cli.arguments import IMAGE_PATH_HELP, Parser, add_common, add_format, verb_parser
from regfs.cli.command_config import verb_config
from regfs.cli.json_output import tell_json
from regfs.cli.terminal import say_nothing, warn
from regfs.process.descriptors import raise_descriptor_limit


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser(
        "cp",
        "Copy files and directories, with all that is below, out of images: into DEST where it is a directory.",
    )
    made.add_argument("paths", metavar="IMAGE:/PATH", nargs="+", help=IMAGE_PATH_HELP)
    made.add_argument("destination", metavar="DEST", type=not_empty, help="a directory, or the name of the copy")
    made.add_argument(
        "-r", "-a", dest="_recursive", action="store_true", help="directories are copied whole in any case"
    )
    made.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    add_format(made)
    return add_common(made, headings=("registry", "cache"))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Copy; notes and progress go to stderr."""
    from regfs.verbs.cp import cp

    raise_descriptor_limit()  # a tree is written with one descriptor for each level
    say = say_nothing if given.quiet else warn
    config = verb_config(given, environment)
    done = cp(given.paths, Path(given.destination), config=config, environment=environment, say=say)
    for note in done.notes:
        warn(note)
    if given.format == "json":
        copies = [{"source": source, "path": str(path)} for source, path in done.copies]
        tell_json({"copies": copies, "notes": done.notes})
    return 0
