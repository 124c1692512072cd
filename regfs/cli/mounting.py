"""Mounting: `regfs [OPTIONS] [SOURCE] MOUNTPOINT`, and `mount.regfs` as mount(8) calls it.

Used by main.py. Arguments become a Config here; the daemon and the start protocol do the rest.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from regfs.cli.arguments import mount_helper_parser
from regfs.cli.guesses import FILLERS
from regfs.cli.output import tell, warn
from regfs.cli.sources import registry_of_source
from regfs.config import OPTIONS, SITE_CACHE, Config, default_cache_dir, with_options
from regfs.errors import RegfsError
from regfs.process.user import home_directory, is_root_of_machine, may_write


def run_mount_helper(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run `mount.regfs` as mount(8) calls it and return the exit code of `regfs`. Raises RegfsError."""
    parser = mount_helper_parser()
    given = parser.parse_intermixed_args(list(arguments))
    config = with_source(default_config(environment), given.source, given.mountpoint)
    config = _with_words(config, given.words, sloppy=given.sloppy)
    return 0 if given.fake else mount(config, given.mountpoint, environment)


def mount(config: Config, mountpoint: str, environment: Mapping[str, str]) -> int:
    """Check, mount and serve; a background mount's parent returns as soon as it answers. Raises MountFailure."""
    gc.disable()  # looking for garbage among what a start loads takes a twentieth of it; the daemon turns it on again
    from regfs.daemon import launch
    from regfs.daemon.logs import log_place
    from regfs.daemon.reachability import Attempt
    from regfs.daemon.serve import serve
    from regfs.daemon.session import mount_options
    from regfs.mount import checks
    from regfs.mount.mountpoint import resolved

    mount_options(config)
    point = resolved(mountpoint)
    for note in checks.prepare(point):
        if not config.is_quiet:
            warn(note)
    if config.foreground:
        report = _TerminalReport()
        serve(config, point, environment=environment, report=report)
        return report.code
    attempt = Attempt(config, environment)
    outcome = launch.in_background(
        lambda report: serve(config, point, environment=environment, report=report),
        log_name=log_place(config.log_file, cache=config.cache_dir, foreground=False).name,
        meanwhile=lambda: None if config.is_quiet else attempt.start(),
    )
    if outcome.is_child:
        return outcome.code
    _say(outcome.code, outcome.message)
    if outcome.code == 0 and not config.is_quiet and (failure := attempt.failure()) is not None:
        warn(f"note: {failure}")
    return outcome.code


class _TerminalReport:
    """Tells a start in the foreground to the terminal."""

    def __init__(self) -> None:
        self.code = 0

    def doing(self, what: str) -> None:
        del what

    def ready(self, message: str) -> None:
        _say(0, message)

    def failed(self, code: int, message: str) -> None:
        self.code = code
        _say(code, message)


def default_config(environment: Mapping[str, str]) -> Config:
    """Return what holds where nothing is asked for.

    A root who cannot write to /var (a user namespace's, a read-only system's) has a cache in the home.
    """
    is_root = is_root_of_machine() and may_write(SITE_CACHE)
    return Config(cache_dir=default_cache_dir(environment, home=home_directory(environment), is_root=is_root))


def mount_config(given: argparse.Namespace, environment: Mapping[str, str]) -> Config:
    import logging

    config = _with_words(default_config(environment), given.words, sloppy=False)
    return replace(
        with_options(config, given.given),
        foreground=given.foreground or given.debug,
        debug=given.debug,
        log_level=logging.WARNING if given.quiet else logging.INFO,
        is_quiet=given.quiet,
    )


def _with_words(config: Config, words: Sequence[str], *, sloppy: bool) -> Config:
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


def _say(code: int, message: str) -> None:
    """Tell how a start went. It went so whether or not anything reads it."""
    if code:
        warn(message)
    elif message:
        first, *notes = message.split("\n")
        with suppress(OSError, RegfsError):
            if first:
                tell(first)
        for note in notes:
            warn(note)
