"""Starting costs what is needed to start: the libraries for HTTP, progress bars and libfuse come when they are used.

A mount answers `ls` of its root before any registry is asked, so that loading an HTTP client first gains nothing,
and loading it is most of the time that a short command takes.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

LIBRARIES = ["requests", "urllib3", "ssl", "rich", "fuse"]
LATE = [*LIBRARIES, "regfs.registry.client_parts", "regfs.registry.manifests", "regfs.layers.ingest"]
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
