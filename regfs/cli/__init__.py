"""The command line: arguments and environment become a Config or a verb's work, and its words go to the terminal.

- main.py: the entry points: which verb it is, exit codes, the end of the process
- mounting.py: regfs [OPTIONS] [SOURCE] MOUNTPOINT, and mount.regfs as mount(8) calls it
- commands.py: the verbs; image_commands.py those that take images, verb_arguments.py what all do with arguments
- guesses.py: first words that are no verb but like one
- exit_codes.py: errors as numbers
- output.py: the only module that prints
"""

from __future__ import annotations

from regfs.cli.main import main, mount_main, run

__all__ = ["main", "mount_main", "run"]
