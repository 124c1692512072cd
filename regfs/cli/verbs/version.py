"""`regfs version`, the same as `regfs --version`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from regfs.cli.arguments import Parser, add_common, add_format, verb_parser
from regfs.cli.json_output import tell_result
from regfs.cli.versions import version, versions


def parser() -> Parser:
    """Return the parser of its arguments, which are none."""
    made = verb_parser("version", "Show the versions of regfs and of what it runs with.")
    add_format(made)
    return add_common(made)


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the versions."""
    del environment
    tell_result(given.format, version(), versions())
    return 0
