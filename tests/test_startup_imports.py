"""Starting costs what is needed to start: the libraries for HTTP, progress bars and libfuse come when they are used.

A mount answers `ls` of its root before any registry is asked, so that loading an HTTP client first gains nothing,
and loading it is most of the time that a short command takes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import missing

LIBRARIES = ["requests", "urllib3", "ssl", "rich", "fuse", "fusepy"]
LATE = [
    *LIBRARIES,
    "regfs.images.judging.containers_policy",
    "regfs.images.judging.notation",
    "regfs.registry.client_parts",
    "regfs.registry.manifests",
    "regfs.layers.ingest",
]
PROBE = "import sys, {module}; print(*sorted(name for name in {late} if name in sys.modules))"


def loaded_by(module: str, late: list[str]) -> list[str]:
    """Return which of *late* are loaded once *module* is."""
    probe = PROBE.format(module=module, late=late)
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert found.stderr == ""
    return found.stdout.split()


@pytest.mark.parametrize("module", ["regfs.cli", "regfs.daemon.serve"])
def test_starting_loads_no_library_before_it_is_needed(module: str) -> None:
    assert loaded_by(module, LATE) == [], f"{module} loads them when it is imported"


def test_a_client_reads_no_toml_where_there_is_none() -> None:
    assert loaded_by("regfs.registry.client_parts", ["requests", "tomllib", "regfs.registry.hosts.hosts_toml"]) == []


@pytest.mark.parametrize(
    ("module", "others"),
    [
        (
            "regfs.images.workers.ingest_main",
            ["requests", "regfs.registry", "regfs.mount", "regfs.rootfs", "regfs.images.workers.ingest"],
        ),
        (
            "regfs.images.workers.merge_main",
            ["requests", "regfs.registry", "regfs.mount", "regfs.layers", "regfs.images.workers.ingest"],
        ),
        (
            "regfs.images.workers.fork_server",
            ["requests", "subprocess", "regfs.registry", "regfs.store", "regfs.layers"],
        ),
    ],
)
def test_a_process_of_our_own_loads_its_work_alone(module: str, others: list[str]) -> None:
    assert loaded_by(module, others) == []


def test_the_package_itself_loads_nothing_but_itself() -> None:
    """`import regfs` costs a program that uses the library some milliseconds, whatever it needs of it later."""
    probe = "import sys; before = set(sys.modules); import regfs; print(*sorted(set(sys.modules) - before))"
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["regfs"]


def test_the_help_of_every_verb_comes_without_any_library() -> None:
    """`regfs diff --help` loaded all of images/, and so did each key press of completion and the manual page."""
    probe = "regfs.cli.verbs as verbs; [verbs.load_verb(name).parser() for name in verbs.VERBS]"
    late = ["cachetools", "sqlite3", "regfs.images.image", "regfs.app.composition", "regfs.store.layers"]
    assert loaded_by(probe, [*LIBRARIES, *late]) == []


def test_the_version_alone_loads_no_parser_and_no_option() -> None:
    """It is asked by scripts and by shells: it took 57 ms of CPU time, and 22 without them."""
    probe = (
        "import os, sys; sys.argv = ['regfs', '--version']; from regfs.cli import main; "
        "os._exit = lambda code: (print(*sys.modules, file=sys.stderr), sys.exit(code)); main()"
    )
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("regfs ")
    assert {"argparse", "dataclasses", "inspect", "regfs.cli.main"} & set(found.stderr.split()) == set()


def test_a_version_that_cannot_be_written_is_a_failure() -> None:
    if not Path("/dev/full").exists():
        missing("there is no /dev/full")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "regfs", "--version"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, b"cannot be written" in done.stderr) == (1, True)
