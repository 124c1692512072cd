"""`regfs unpack [OPTIONS] IMAGE[:/PATH] [DIR]`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from regfs.app.config import not_empty
from regfs.cli.arguments import IMAGE_PATH_HELP, Parser, add_common, add_format, verb_parser
from regfs.cli.command_config import verb_config
from regfs.cli.exit_codes import FAILED
from regfs.cli.json_output import tell_result
from regfs.cli.terminal import say_nothing, warn
from regfs.process.descriptors import raise_descriptor_limit


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser(
        "unpack",
        "Write the merged files of an image, or what is at PATH in them, into DIR (./rootfs), which must be empty.",
    )
    made.add_argument("image", metavar="IMAGE[:/PATH]", help=IMAGE_PATH_HELP)
    made.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    made.add_argument("directory", metavar="DIR", nargs="?", default="rootfs", type=not_empty)
    add_format(made)
    return add_common(made, headings=("registry", "cache"))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Unpack, and print the full name of the image; notes and progress go to stderr."""
    from regfs.verbs.unpack import unpack

    config = verb_config(given, environment)
    raise_descriptor_limit()  # unpacking holds one for each level of the tree
    say = say_nothing if given.quiet else warn
    directory = Path(given.directory).absolute()
    done = unpack(given.image, directory, config=config, environment=environment, say=say, warn=warn)
    for note in done.notes:
        warn(note)
    tell_result(
        given.format,
        done.name,
        {"name": done.name, "directory": str(directory), "is_complete": done.is_complete, "notes": done.notes},
    )
    return 0 if done.is_complete else FAILED
