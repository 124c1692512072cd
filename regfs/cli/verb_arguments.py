"""What all verbs do with their arguments: parse them, answer --help, and make a Config of the options.

Used by the modules of the verbs.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from regfs.cli.arguments import Parser, add_common, refuse_unknown
from regfs.cli.mounting import default_config
from regfs.cli.output import tell
from regfs.config import Config, with_options


def parse_verb(parser: Parser, arguments: Sequence[str], *, headings: Sequence[str] = ()) -> argparse.Namespace | None:
    """Return what was given to a verb, which also takes the options of *headings*; None where it was asked for help."""
    add_common(parser, headings)
    if {"-h", "--help"} & set(arguments):
        tell(parser.format_help().rstrip())
        return None
    given, unknown = parser.parse_known_intermixed_args(list(arguments))
    refuse_unknown(unknown, parser)
    return given


def verb_config(given: argparse.Namespace, environment: Mapping[str, str]) -> Config:
    """Return the Config of a verb, and let its log go to stderr: warnings, or everything with -d."""
    import logging

    from regfs.daemon.logs import log_place, start_logging

    config = with_options(default_config(environment), given.given)
    place = log_place(None, cache=config.cache_dir, foreground=True)
    start_logging(logging.DEBUG if given.debug else logging.ERROR, place, environment=environment)
    return config
