"""regfs as a library is a guest: importing it and building its parts changes nothing of the process.

Switch interval, umask, limits, signal handlers, log levels and the environment belong to the command line and the
daemon, which own their process.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROBE = """
import gc, locale, logging, os, pkgutil, resource, signal, socket, sys, warnings
from pathlib import Path

def state():
    root = logging.getLogger()
    return {
        "switch interval": sys.getswitchinterval(),
        "recursion limit": sys.getrecursionlimit(),
        "umask": next(line.split()[1] for line in open("/proc/self/status") if line.startswith("Umask")),
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if "RLIMIT_" in name},
        "environment": dict(os.environ),
        "working directory": os.getcwd(),
        "signal handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "collector": (gc.isenabled(), gc.get_threshold()),
        "log handlers": list(root.handlers),
        "log levels": {
            name: logger.level for name, logger in [("root", root), *logging.root.manager.loggerDict.items()]
            if isinstance(logger, logging.Logger) and logger.level
        },
        "log failures": logging.raiseExceptions,
        "socket timeout": socket.getdefaulttimeout(),
        "locale": locale.setlocale(locale.LC_ALL),
        "excepthook": sys.excepthook,
    }

before = state()
%s
after = state()
for what in before:
    if before[what] != after[what]:
        print(what, "changed from", before[what], "to", after[what])
"""
IMPORT_ALL = """
import regfs
for module in pkgutil.walk_packages(regfs.__path__, "regfs."):
    if module.name != "regfs.__main__":
        __import__(module.name)
"""
BUILD = """
from regfs.app import composition
from regfs.app.config import Config
config = Config(cache_dir=Path(sys.argv[1]), insecure_registries=frozenset({"localhost:5000"}))
built = composition.build(config, {"HOME": "/nonexistent"})
built.load_client()
built.close()
"""


def changes(what: str, *arguments: str) -> str:
    """Return what changed in a process that ran the code *what*."""
    command = [sys.executable, "-c", PROBE % what, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.stderr == ""
    return ended.stdout


def test_importing_every_module_changes_nothing_of_the_process() -> None:
    assert changes(IMPORT_ALL) == ""


def test_building_the_parts_changes_nothing_of_the_process(tmp_path: Path) -> None:
    assert changes(BUILD, str(tmp_path)) == ""


def test_a_change_is_noticed() -> None:
    told = changes("os.umask(0o077); sys.setswitchinterval(0.001); logging.getLogger('urllib3').setLevel(50)")
    assert [line.partition(" changed")[0] for line in told.splitlines()] == ["switch interval", "umask", "log levels"]
