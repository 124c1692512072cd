"""The command line: arguments and environment become a Config or the work of a verb, and results go to the terminal.

- main.py: the entry points: chooses the verb, turns errors into exit codes, ends the process
- mount_command.py: regfs [OPTIONS] [SOURCE] MOUNTPOINT, and mount.regfs as mount(8) calls it
- verbs/: one module for each verb, with its arguments and what it prints
- arguments.py: the parsers of options
- mount_options.py: the words of -o
- source_argument.py: what SOURCE names
- mistaken_verbs.py: first words that are not verbs but look like them
- command_config.py: arguments become a Config
- help_text.py: --help; manual_page.py: the manual page; versions.py: --version
- exit_codes.py: errors as numbers
- json_output.py: what --json prints: the fields of each verb
- treemap.py: directories as areas, for regfs du --map
- terminal.py: the only module that prints
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # as in regfs/__init__.py
if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["main", "mount_main"]


def main() -> NoReturn:
    """Run `regfs` and exit: main.py does. `regfs --version` alone is answered without loading it, in half the time."""
    if sys.argv[1:] in (["--version"], ["-V"], ["version"]):
        _tell_version()
    from regfs.cli.main import main as run_main

    run_main()


def mount_main() -> NoReturn:
    """Run `mount.regfs` and exit: main.py does."""
    from regfs.cli.main import mount_main as run_mount_main

    run_mount_main()


def _tell_version() -> None:
    """Print the versions and exit; return where that fails: main.py has the exit codes and messages for it."""
    from regfs.cli.terminal import open_standard_streams, tell
    from regfs.cli.versions import version
    from regfs.errors import RegfsError

    open_standard_streams()
    try:
        tell(version())
    except (BrokenPipeError, RegfsError):
        return
    os._exit(0)
