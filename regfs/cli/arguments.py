"""The parsers of the command line: for mounting, for mount(8), and what the parsers of all verbs share.

The options themselves are config.OPTIONS; here they get their headings. Pure; nothing prints or exits.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NoReturn

from regfs.app.config import OPTIONS, Option, not_empty, suggestion
from regfs.errors import InvalidOption

MOUNT_USAGE = "regfs [OPTIONS] [SOURCE] MOUNTPOINT"
IMAGE_HELP = "[registry/]repository[:tag][@digest], or its path in a mount"
IMAGE_PATH_HELP = f"{IMAGE_HELP}; with a path inside the image after `:/`"
_HEADINGS = {"mount": "mounting", "registry": "registries", "cache": "cache", "logging": "log"}


class Parser(argparse.ArgumentParser):
    """Raises InvalidOption instead of printing and exiting.

    *remedies* says what takes the place of options that another program of this kind has.
    """

    remedies: Mapping[str, str] = MappingProxyType({})

    def error(self, message: str) -> NoReturn:
        _, is_found, names = message.partition("the following arguments are required: ")
        if is_found:  # intermixed parsing counts optional positional arguments as required
            optional = [action.metavar for action in self._actions if action.nargs in ("*", "?")]
            message = f"required: {', '.join(name for name in names.split(', ') if name not in optional)}"
        raise InvalidOption(message)

    def own_words(self, words: Sequence[str]) -> Sequence[str]:
        """Return those of *words* that are for this parser: all, unless a verb takes another command's."""
        return words


def mount_parser() -> Parser:
    """Return the parser of `regfs [OPTIONS] [SOURCE] MOUNTPOINT`."""
    parser = Parser(
        prog="regfs",
        usage=f"{MOUNT_USAGE}\n       regfs VERB …",
        description="Shows OCI and Docker registries as directories. SOURCE is the default registry.",
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("paths", nargs="*", metavar="[SOURCE] MOUNTPOINT", help=argparse.SUPPRESS)
    groups = {heading: parser.add_argument_group(title) for heading, title in _HEADINGS.items()}
    mounting, logging = groups["mount"], groups["logging"]
    mounting.add_argument("-f", "--foreground", action="store_true", help="stay in the foreground")
    mounting.add_argument(
        "-o", dest="words", action="append", default=[], metavar="WORD[,WORD…]",
        help="mount options: all options below (allow_other, cache_size=10G, …), and those of mount(8)",
    )  # fmt: skip
    for option in OPTIONS:
        _add(groups[option.heading], option)
    logging.add_argument("-d", "--debug", action="store_true", help="log everything; stays in the foreground")
    logging.add_argument("-q", "--quiet", action="store_true", help="log warnings and errors only")
    other = parser.add_argument_group("other")
    other.add_argument("-h", "--help", action="store_true", help="show this")
    other.add_argument("-V", "--version", action="store_true", help="show versions")
    return parser


def _add(group: argparse._ActionsContainer, option: Option) -> None:
    """Add *option*. Given options are collected in order, as (option, text)."""
    if option.is_flag:
        group.add_argument(
            f"--{option.name}", dest="given", action="append_const", const=(option, ""), default=[], help=option.help
        )
    else:
        group.add_argument(
            f"--{option.name}", dest="given", action="append", default=[], metavar=option.metavar, help=option.help,
            type=lambda text: (option, text),
        )  # fmt: skip


def mount_helper_parser() -> Parser:
    """Return the parser of `mount.regfs`, as mount(8) calls it. Source: mount(8), "External helpers"."""
    parser = Parser(prog="mount.regfs", add_help=False, allow_abbrev=False)
    parser.add_argument("source")
    parser.add_argument("mountpoint", type=not_empty)
    parser.add_argument("-f", dest="fake", action="store_true")
    parser.add_argument("-s", dest="sloppy", action="store_true")
    for ignored in ("-n", "-v", "-r", "-w"):
        parser.add_argument(ignored, action="store_true", dest="_ignored")
    parser.add_argument("-t", dest="_kind")
    parser.add_argument("-o", dest="words", action="append", default=[])
    return parser


def verb_parser(verb: str, description: str) -> Parser:
    """Return a parser for `regfs VERB`, without any argument yet."""
    return Parser(prog=f"regfs {verb}", description=description, allow_abbrev=False, add_help=False)


def add_common(parser: Parser, headings: Sequence[str] = (), options: Sequence[str] = ()) -> Parser:
    """Add the options of *headings*, single *options*, and those that every verb has, to *parser*; return it."""
    for option in OPTIONS:
        if option.name in options:
            _add(parser, option)
    for heading in headings:
        group = parser.add_argument_group(_HEADINGS[heading])
        for option in OPTIONS:
            if option.heading == heading:
                _add(group, option)
    parser.add_argument("-d", "--debug", action="store_true", help="log everything to stderr")
    parser.add_argument("-h", "--help", action="store_true", help="show this")
    return parser


def add_format(parser: argparse._ActionsContainer) -> None:
    """Add the choice between text and JSON, under both names that other tools use."""
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="json keeps its form from release to release"
    )
    parser.add_argument("--json", dest="format", action="store_const", const="json", help="the same as --format json")


def refuse_unknown(unknown: Sequence[str], parser: Parser) -> None:
    """Raise InvalidOption for words that *parser* did not take, with its remedy or the nearest known option."""
    if unknown:
        word = unknown[0].partition("=")[0]
        known = [text for action in parser._actions for text in action.option_strings]
        if word.startswith("-"):
            remedy = f"; {parser.remedies[word]}" if word in parser.remedies else suggestion(word, known)
            raise InvalidOption(f"{word} is not an option of {parser.prog}{remedy}")
        raise InvalidOption(f"{word!r} is one word too many: {parser.format_usage().strip()}")
