"""`regfs index [OPTIONS] IMAGE`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

from regfs.app.config import not_empty
from regfs.cli.arguments import IMAGE_HELP, Parser, add_common, add_format, verb_parser
from regfs.cli.command_config import verb_config
from regfs.cli.json_output import tell_result
from regfs.cli.terminal import say_nothing, warn
from regfs.errors import InvalidOption

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_MIB = 1 << 20
_LEAST_LAYER_MIB = 10
_SPAN_MIB = 4
_MOST_SPAN_MIB = 16


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser(
        "index",
        "Make a SOCI index (version 2) of an image of gzip layers, so that regfs and soci-snapshotter fetch only the "
        "parts of it that are read. The image stays what it is; with --push a second one, which names the index and "
        "has the same layers, is put beside it.",
    )
    made.add_argument("image", metavar="IMAGE", help=IMAGE_HELP)
    made.add_argument("--push", action="store_true", help="push the index, and the image that names it")
    made.add_argument(
        "--tag",
        type=not_empty,
        help="the tag of that image; the tag of IMAGE with -soci appended unless given. An existing tag is moved",
    )
    made.add_argument("--output", metavar="DIR", type=not_empty, help="write what is new into DIR, an OCI image layout")
    made.add_argument(
        "--min-layer-size",
        metavar="MIB",
        type=int,
        default=_LEAST_LAYER_MIB,
        help="leave out layers of fewer MiB, which are fetched whole (10)",
    )
    made.add_argument(
        "--span-size",
        metavar="MIB",
        type=int,
        default=_SPAN_MIB,
        help="MiB of the archive that are fetched at once (4)",
    )
    made.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    add_format(made)
    return add_common(made, headings=("registry", "cache"))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Make the index, and print the full name of the image that names it."""
    from regfs.verbs.index import Wanted, index

    if not given.push and given.output is None:
        raise InvalidOption("what to do with the index? --push, or --output DIR")
    if given.tag is not None and not _TAG.fullmatch(given.tag):
        raise InvalidOption(f"--tag {given.tag}: no registry allows such a tag")
    if given.min_layer_size < 0 or not 1 <= given.span_size <= _MOST_SPAN_MIB:
        raise InvalidOption(f"--min-layer-size begins at 0, and --span-size is 1 to {_MOST_SPAN_MIB}")
    wanted = Wanted(
        given.image,
        given.tag,
        given.push,
        None if given.output is None else Path(given.output),
        given.span_size * _MIB,
        given.min_layer_size * _MIB,
    )
    say = say_nothing if given.quiet else warn
    made = index(wanted, config=verb_config(given, environment), environment=environment, say=say)
    for note in made.notes:
        warn(note)
    tell_result(given.format, made.name, {"name": made.name, "notes": made.notes})
    return 0
