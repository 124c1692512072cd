"""Arguments become a Config: the defaults of this machine and user, then `-o` words, then options.

Used by main.py, mount_helper.py and the verbs.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from regfs.app.config import OPTIONS, Config, with_options
from regfs.cli.mistaken_verbs import FILLERS
from regfs.cli.settings import configured
from regfs.cli.source_argument import registry_of_source
from regfs.cli.terminal import warn


def mount_config(given: argparse.Namespace, environment: Mapping[str, str]) -> Config:
    """Return the Config of `regfs [OPTIONS] MOUNTPOINT`. Raises InvalidOption."""
    config = with_words(configured(environment), given.words, sloppy=False)
    return replace(
        with_options(config, given.given),
        foreground=given.foreground or given.debug,
        debug=given.debug,
        log_level=logging.WARNING if given.quiet else logging.INFO,
        is_quiet=given.quiet,
    )


def verb_config(given: argparse.Namespace, environment: Mapping[str, str]) -> Config:
    """Return the Config of a verb, and send its log to stderr: errors, or everything with -d."""
    config = replace(with_options(configured(environment), given.given), debug=given.debug)
    log_to_terminal(config, environment)
    return config


def log_to_terminal(config: Config, environment: Mapping[str, str]) -> None:
    """Send the log of a verb to stderr: errors, or everything with -d."""
    from regfs.daemon.logs import log_place, start_logging

    place = log_place(None, cache=config.cache_dir, foreground=True)
    start_logging(logging.DEBUG if config.debug else logging.ERROR, place, environment=environment)


def with_words(config: Config, words: Sequence[str], *, sloppy: bool) -> Config:
    """Return *config* with the words of `-o`. An unknown one raises InvalidOption, or is ignored where *sloppy*."""
    from regfs.cli.mount_options import complaint, parse_words

    for text in words:
        parsed = parse_words(text)
        for word in parsed.unknown:
            if not sloppy:
                raise complaint(word)
            warn(f"{complaint(word)}; it is ignored")
        config = parsed.applied_to(config)
    return config


def with_source(config: Config, source: str, mountpoint: str) -> Config:
    """Return *config* with SOURCE as its default registry; fstab's usual fillers mean the usual one.

    Raises InvalidOption where SOURCE is an image or a path, with what to type instead.
    """
    if source in FILLERS:
        return config
    by_name = {option.name: option for option in OPTIONS}
    return with_options(config, [(by_name["default-registry"], registry_of_source(source, mountpoint))])
