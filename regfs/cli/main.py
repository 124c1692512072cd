"""The entry points: run what the command line asks for, turn errors into a line and an exit code, end the process.

    regfs [OPTIONS] [SOURCE] MOUNTPOINT      mount; mount.fuse(8) calls this too
    regfs VERB …                             see verbs/
    mount.regfs SOURCE MOUNTPOINT [-fnsv] [-o WORDS]     what mount(8) calls; there, -f means fake

Exit codes are in exit_codes.py; mount.regfs has those of mount(8): 1 usage or permission, 32 mount failure. A command
that a signal ends has 128 plus its number, as in a shell.

Settings in the environment are read here and passed down. Other modules use os.environ only for what a library or a
program that they start reads there (tests/test_layering.py lists them).

Nothing heavy is imported before it is needed.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

from regfs.app.config import not_empty, with_options
from regfs.cli.arguments import MOUNT_USAGE, mount_parser, refuse_unknown
from regfs.cli.command_config import mount_config, with_source
from regfs.cli.exit_codes import USAGE, exit_code
from regfs.cli.help_text import mount_help
from regfs.cli.mistaken_verbs import refuse_verb_like
from regfs.cli.mount_command import mount
from regfs.cli.mount_helper import run_mount_helper
from regfs.cli.settings import configured, unknown_variables
from regfs.cli.source_argument import image_of_source, refuse_missing_mountpoint
from regfs.cli.terminal import open_standard_streams, tell, warn
from regfs.cli.verbs import ALIASES, VERBS, run_verb, verb_named
from regfs.cli.versions import version
from regfs.errors import InvalidOption, RegfsError
from regfs.process.user import FALLBACK_PATH, home_directory

MOUNT_FAILURE = 32
# Python collects garbage after so many new objects: loading modules makes no garbage, and a collection costs a tenth
# of an `ls`.
_GARBAGE = 50_000
# A second SIGINT within this time counts as the first one.
_IMPATIENT_S = 1.0
# Verbs for which no option counts, and whose output shells read.
_WITHOUT_SETTINGS = frozenset({"complete", "completion", "help", "version"})
# What fusermount(1) and other tools unmount with.
_UNMOUNTING = re.compile(r"-u|-uz|-zu|--umount|--unmount")


class Terminated(BaseException):
    """SIGTERM came while a verb ran. Like KeyboardInterrupt, no handler of ordinary errors catches it."""


def main() -> NoReturn:
    """Run `regfs` and exit."""
    open_standard_streams()
    gc.set_threshold(_GARBAGE)
    if verb_named("".join(sys.argv[1:2])) is not None:
        # `pkill -HUP regfs` is meant for mounts, and a verb goes on when its terminal is closed.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        # Like Ctrl-C, SIGTERM lets a verb say what it leaves behind.
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _end)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _Interrupting())
    _leave(guarded(lambda: run(sys.argv[1:], os.environ)))


def mount_main() -> NoReturn:
    """Run `mount.regfs` and exit with the codes of mount(8)."""
    open_standard_streams()
    _warn_of_variables(os.environ)
    code = guarded(lambda: run_mount_helper(sys.argv[1:], os.environ))
    _leave({0: 0, USAGE: 1}.get(code, MOUNT_FAILURE))


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run `regfs` with *arguments* and return the exit code. Raises RegfsError."""
    first = arguments[0] if arguments else ""
    if _UNMOUNTING.fullmatch(first):
        return run_verb("umount", ["--lazy"] * ("z" in first) + list(arguments[1:]), environment)
    verb = verb_named(first)
    if verb is not None:
        if verb not in _WITHOUT_SETTINGS:
            _warn_of_variables(environment)
        return run_verb(verb, arguments[1:], environment)
    parser = mount_parser()
    given, unknown = parser.parse_known_intermixed_args(list(arguments))
    refuse_verb_like(given.paths, [*VERBS, *ALIASES])
    if given.help:
        tell(mount_help())
        return 0
    if given.version:
        tell(version())
        return 0
    refuse_unknown(unknown, parser)
    if not 1 <= len(given.paths) <= 2:
        raise InvalidOption(
            f"a mount point is needed: {MOUNT_USAGE}" if not given.paths else f"too many words: {MOUNT_USAGE}"
        )
    _warn_of_variables(environment)
    *source, mountpoint = given.paths
    not_empty(mountpoint)
    if source and (image := image_of_source(source[0])) is not None:
        return _mount_image(image, mountpoint, given, environment)
    config = mount_config(given, environment)
    if source:
        config = with_source(config, source[0], mountpoint)
    else:
        refuse_missing_mountpoint(mountpoint)
    return mount(config, mountpoint, environment)


def _warn_of_variables(environment: Mapping[str, str]) -> None:
    for message in unknown_variables(environment):
        warn(message)


def _mount_image(image: str, mountpoint: str, given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Mount what `regfs regfs#IMAGE MOUNTPOINT` names; mount.fuse(8) calls that. Raises RegfsError."""
    from regfs.cli.verbs.mount import mount_source

    config = replace(with_options(configured(environment), given.given), debug=given.debug, is_quiet=given.quiet)
    return mount_source(image, mountpoint, given.words, config=config, sloppy=False, environment=environment)


def guarded(command: Callable[[], int]) -> int:
    """Run *command*; turn errors into a line on stderr and an exit code."""
    _mend_environment()
    try:
        return command()
    except RegfsError as error:
        warn(str(error))
        return exit_code(error)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Terminated:
        return 128 + signal.SIGTERM
    except BrokenPipeError:
        return 128 + signal.SIGPIPE  # the reader of the output has closed the pipe


class _Interrupting:
    """Raises KeyboardInterrupt, at most once a second.

    `timeout` sends two signals; the second must not stop a verb that removes what is half-written.
    """

    def __init__(self) -> None:
        self._not_before = 0.0

    def __call__(self, _signal: int, _frame: object) -> None:
        now = time.monotonic()
        if now >= self._not_before:
            self._not_before = now + _IMPATIENT_S
            raise KeyboardInterrupt


def _end(_signal: int, _frame: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # `timeout` sends it to the process and to its group
    raise Terminated


def _mend_environment() -> None:
    """Set PATH and HOME where mount(8) or systemd leave them out or set them wrongly; child processes use them too."""
    if not os.environ.get("PATH"):
        os.environ["PATH"] = FALLBACK_PATH
    if home := home_directory(os.environ):
        os.environ["HOME"] = home
    else:
        os.environ.pop("HOME", None)


def _leave(code: int) -> NoReturn:
    """Exit at once: threads that wait for a registry must not hold up the end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            pass  # the reader has closed it
    os._exit(code)
