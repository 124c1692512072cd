"""`regfs shell [OPTIONS] IMAGE`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping

from regfs.cli.arguments import Parser, verb_parser
from regfs.cli.verbs.run import add_running, run_image


def parser() -> Parser:
    """Return the parser of its arguments."""
    return add_running(
        verb_parser(
            "shell",
            "Run a shell that the image has (bash, sh, busybox …) in it, as regfs run does: with a terminal of its own "
            "or, where standard input is not one, reading commands from it. What is written is gone at the end.",
        )
    )


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Run the shell, and return its exit status."""
    return run_image(given, environment, has_input=True, has_terminal=os.isatty(0) and os.isatty(1), is_shell=True)
