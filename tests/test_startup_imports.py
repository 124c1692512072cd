"""Starting costs what is needed to start: the libraries for HTTP, progress bars and libfuse come when they are used.

A mount answers `ls` of its root before any registry is asked, so that loading an HTTP client first gains nothing,
and loading it is most of the time that a short command takes.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

LATE = ["requests", "urllib3", "rich", "fuse", "regfs.registry.client", "regfs.layers.ingest"]
PROBE = "import sys, {module}; print(*sorted(name for name in {late} if name in sys.modules))"


@pytest.mark.parametrize("module", ["regfs.cli", "regfs.daemon"])
def test_starting_loads_no_library_before_it_is_needed(module: str) -> None:
    probe = PROBE.format(module=module, late=LATE)
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert (found.stdout.split(), found.stderr) == ([], ""), f"{module} loads them when it is imported"
