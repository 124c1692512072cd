"""`regfs complete -- WORD…`: what the last WORD may become, a line each. For the scripts of `regfs completion`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from regfs.cli.arguments import Parser, add_common
from regfs.cli.terminal import tell


class _Parser(Parser):
    """Takes every word behind `--` as it is: they are options of the command that is being typed, not of `complete`."""

    def own_words(self, words: Sequence[str]) -> Sequence[str]:
        """Return the words before `--`."""
        return words[: [*words, "--"].index("--")]

    def parse_known_intermixed_args(  # type: ignore[override]
        self, args: Sequence[str], namespace: None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Return the words behind `--`."""
        del namespace
        own = [*self.own_words(args)]
        return argparse.Namespace(words=[*args[len(own) + 1 :]]), own


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = _Parser(
        prog="regfs complete",
        description="Print what the last WORD may become. For the scripts of regfs completion.",
        allow_abbrev=False,
        add_help=False,
    )
    made.add_argument("words", metavar="WORD", nargs="*", help="after `--`: the words behind `regfs`")
    return add_common(made)


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the candidates; with a broken setting print nothing: a message would spoil the line that is being typed."""
    from regfs.cli.candidates import candidates
    from regfs.errors import RegfsError

    try:
        found = candidates(given.words or [""], environment)
    except RegfsError:
        found = []
    if found:
        tell("\n".join(found))
    return 0
