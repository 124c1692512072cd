"""`regfs record [OPTIONS] IMAGE [-- COMMAND…]`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from regfs.app.config import parse_duration
from regfs.cli.arguments import IMAGE_HELP, Parser, add_common, verb_parser
from regfs.cli.configuration import verb_config
from regfs.cli.terminal import say_nothing, tell, warn


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser(
        "record",
        "Run COMMAND, or what the image's config starts, with the files of IMAGE as its root, and record which parts "
        "of them it reads. When a file of that image is opened the next time and its layers are read chunk by chunk, "
        "these parts are fetched ahead, in the same order. The cache keeps the record; --push lets other machines find "
        "it. "
        "COMMAND has the machine's /dev, /proc and network, and a /tmp in memory; it can write nowhere else.",
    )
    made.add_argument("image", metavar="IMAGE", help=IMAGE_HELP)
    made.add_argument("command", metavar="COMMAND", nargs="*", help="the program and its arguments, after --")
    made.add_argument("--push", action="store_true", help="push the record, as an artifact that refers to the image")
    made.add_argument(
        "--for", dest="time", metavar="TIME", type=parse_duration, help="end COMMAND after TIME, 30s for example"
    )
    made.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    return add_common(made, headings=("registry", "cache"))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Record, print the image's full name, and return the exit code of the program."""
    from regfs.verbs.record import Wanted, record

    wanted = Wanted(given.image, tuple(given.command), given.push, given.time)
    say = say_nothing if given.quiet else warn
    done = record(wanted, config=verb_config(given, environment), environment=environment, say=say)
    say(f"{done.files} files, {done.size / 1e6:.1f} MB of them read")
    if done.artifact:
        say(f"pushed as {done.artifact}")
    tell(done.name)
    return done.code
