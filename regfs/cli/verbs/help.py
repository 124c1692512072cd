"""`regfs help [--man] [VERB [WORD]]`: `regfs help cache du` is the help of `cache`, which has that of its words."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from regfs.app.config import suggestion
from regfs.cli.arguments import Parser, add_common, verb_parser
from regfs.cli.help_text import mount_help
from regfs.cli.terminal import tell
from regfs.cli.verbs import VERBS, load_verb, verb_named
from regfs.errors import InvalidOption


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser("help", "Show all options and verbs, or how one verb is used.")
    made.add_argument("--man", action="store_true", help="write the manual page: regfs help --man | man -l -")
    made.add_argument("verb", metavar="VERB", nargs="?")
    made.add_argument("word", metavar="WORD", nargs="?")
    return add_common(made)


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the help of all, of one verb, or the manual page."""
    del environment
    if given.man:
        from regfs.cli.manual_page import manual_page

        tell(manual_page())
        return 0
    if given.verb is None:
        tell(mount_help())
        return 0
    name = verb_named(given.verb)
    if name is None:
        raise InvalidOption(f"{given.verb} is not a verb of regfs{suggestion(given.verb, VERBS)}")
    tell(load_verb(name).parser().format_help().rstrip())
    return 0
