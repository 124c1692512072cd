"""`regfs version`, the same as `regfs --version`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from regfs.cli.arguments import Parser, add_common, verb_parser
from regfs.cli.terminal import tell
from regfs.cli.versions import version


def parser() -> Parser:
    """Return the parser of its arguments, which are none."""
    return add_common(verb_parser("version", "Show the versions of regfs and of what it runs with."))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the versions."""
    del given, environment
    tell(version())
    return 0
