"""`regfs record [OPTIONS] IMAGE [COMMAND…]`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping

from regfs.app.config import with_options
from regfs.app.quantities import parse_duration
from regfs.cli.arguments import Parser, add_format
from regfs.cli.json_output import tell_result
from regfs.cli.terminal import say_nothing, warn
from regfs.cli.verbs.run import FAILED, RunParser, add_running, asked_of, owner_of
from regfs.errors import RegfsError


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = RunParser(
        prog="regfs record",
        usage="regfs record [OPTIONS] IMAGE [-- COMMAND…]",
        allow_abbrev=False,
        add_help=False,
        description="Run the program of an image, or COMMAND in it, as regfs run does, and record which parts of the "
        "image it reads. When a file of that image is opened the next time and its layers are read chunk by chunk, "
        "these parts are fetched ahead, in the same order. The cache keeps the record; --push lets other machines find "
        "it.",
    )
    made.add_argument("--push", action="store_true", help="push the record, as an artifact that refers to the image")
    made.add_argument(
        "--for", dest="time", metavar="TIME", type=parse_duration, help="end the program after TIME, 30s for example"
    )
    add_format(made)
    return add_running(made)


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Record, print the image by its digest, and return the program's exit status; FAILED where regfs failed."""
    try:
        return _run(given, environment)
    except RegfsError as error:
        warn(str(error))
        return FAILED


def _run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    from regfs.cli.settings import configured
    from regfs.export.container.supervisor import start

    command = given.command[1:] if given.command[:1] == ("--",) else given.command
    asked = asked_of(given, environment, command=command, has_input=os.isatty(0), has_terminal=False)
    config = with_options(configured(environment), given.given)
    owner = owner_of(given, config)
    entered = start(asked, owner=owner, allow_suid=config.allow_suid, allow_dev=config.allow_dev)
    try:
        from regfs.cli.command_config import verb_config
        from regfs.verbs.record import Recorder, record
        from regfs.verbs.run import Wanted

        verb_config(given, environment)  # its log goes to stderr
        progress = say_nothing if given.quiet else warn
        recorder = Recorder(entered, timeout_s=given.time, push=given.push, say=progress)
        wanted = Wanted(image=given.image, asked=asked, by_fuse=True)
        code = record(
            wanted, entered, recorder=recorder, config=config, environment=environment, say=warn, progress=progress
        )
        tell_result(
            given.format, recorder.image, {"image": recorder.image, "exit_code": code, "pushed": recorder.pushed}
        )
        return code
    finally:
        entered.end()
