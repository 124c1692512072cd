"""The command line: arguments and environment become a Config or the work of a verb, and results go to the terminal.

- main.py: the entry points: which verb it is, exit codes, the end of the process
- mount_command.py: regfs [OPTIONS] [SOURCE] MOUNTPOINT, and mount.regfs as mount(8) calls it
- verbs/: one module for each verb, with its arguments and what it prints
- arguments.py: the parsers of options
- mount_options.py: the words of -o
- source_argument.py: what SOURCE names
- mistaken_verbs.py: first words that are no verb but look like one
- command_config.py: arguments become a Config
- help_text.py: --help and --version; manual_page.py: the manual page
- exit_codes.py: errors as numbers
- terminal.py: the only module that prints
"""

from __future__ import annotations

from regfs.cli.main import main, mount_main, run

__all__ = ["main", "mount_main", "run"]
