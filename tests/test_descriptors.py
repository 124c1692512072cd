"""The limit of open files is raised for us, and stays one that other programs can live with."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.mounted import REPOSITORY_ROOT

RAISED = """
import resource, sys
from regfs.process.descriptors import raise_descriptor_limit
soft, hard = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(raise_descriptor_limit(2048), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted"),
    [(256, 1024, 1024), (1024, 1024, 1024), (1024, 4096, 2048), (3000, 4096, 3000)],
)
def test_the_soft_limit_is_raised_to_the_hard_one_within_reason(soft: int, hard: int, wanted: int) -> None:
    command = [sys.executable, "-c", RAISED, str(soft), str(hard)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY_ROOT).stdout
    assert list(map(int, printed.split())) == [wanted, wanted, hard]
