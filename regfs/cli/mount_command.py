"""`regfs [OPTIONS] [SOURCE] MOUNTPOINT`: check, mount, report the start.

Used by main.py, mount_helper.py and verbs/mount.py. launch.py of daemon/ goes to the background, serve.py serves.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from contextlib import suppress

from regfs.app.config import Config
from regfs.cli.terminal import tell, warn
from regfs.errors import RegfsError


def _announce(text: str) -> None:
    """Print the line that says what is mounted; a quiet mount has none."""
    if text:
        tell(text)


def mount(
    config: Config, mountpoint: str, environment: Mapping[str, str], announce: Callable[[str], None] = _announce
) -> int:
    """Check, mount and serve; *announce* prints that it answers.

    The parent of a background mount returns when that answers. Raises MountFailure.
    """
    gc.disable()  # collecting takes a twentieth of a start; daemon/serve.py turns it on again
    from regfs.daemon import launch
    from regfs.daemon.logs import log_place
    from regfs.daemon.registry_reachability import Attempt
    from regfs.daemon.serve import serve
    from regfs.daemon.session import mount_options
    from regfs.mount import checks
    from regfs.mount.mountpoint import is_automount, resolved

    mount_options(config)
    point = resolved(mountpoint)
    report = _TerminalReport(announce)
    if config.foreground and "LISTEN_FDS" in environment:
        from regfs.daemon.takeover.resume import resume_stored

        if resume_stored(config, point, environment=environment, report=report):
            return report.code
    for note in checks.prepare(point):
        if not config.is_quiet:
            warn(note)
    if config.foreground:
        serve(config, point, environment=environment, report=report)
        return report.code
    attempt = Attempt(config, environment)
    outcome = launch.in_background(
        lambda report: serve(config, point, environment=environment, report=report),
        log_name=log_place(config.log_file, cache=config.cache_dir, foreground=False).name,
        meanwhile=lambda: None if config.is_quiet else attempt.start(),
        is_automount=is_automount(point),
    )
    if outcome.is_child:
        return outcome.code
    _say(outcome.code, outcome.message, announce)
    if outcome.code == 0 and not config.is_quiet and (failure := attempt.failure()) is not None:
        warn(f"note: {failure}")
    return outcome.code


class _TerminalReport:
    """Reports a start in the foreground to the terminal."""

    def __init__(self, announce: Callable[[str], None]) -> None:
        self.code = 0
        self._announce = announce

    def doing(self, what: str) -> None:
        del what

    def ready(self, message: str) -> None:
        _say(0, message, self._announce)

    def failed(self, code: int, message: str) -> None:
        self.code = code
        _say(code, message, self._announce)


def _say(code: int, message: str, announce: Callable[[str], None]) -> None:
    """Print how a start went. A closed terminal is ignored."""
    if code:
        warn(message)
    else:
        first, *notes = message.split("\n")
        with suppress(OSError, RegfsError):
            announce(first)
        for note in notes:
            warn(note)
