"""regfs.registry: the docstring of each package lists its modules, and imports point down."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import regfs.registry

REGISTRY = Path(regfs.registry.__file__).parent
# From the top. The modules of the package itself are above them all.
PACKAGES = ["auth", "hosts", "http", "credentials"]


@pytest.mark.parametrize("package", ["", *PACKAGES])
def test_the_docstring_lists_every_module_with_a_line(package: str) -> None:
    directory = REGISTRY / package
    docstring = ast.get_docstring(ast.parse((directory / "__init__.py").read_text())) or ""
    listed = re.findall(r"^ *([a-z_]+(?:\.py|/)) +\S", docstring, re.MULTILINE)
    modules = {path.name for path in directory.glob("*.py")} - {"__init__.py"}
    packages = {f"{path.parent.name}/" for path in directory.glob("*/__init__.py")}
    assert sorted(listed) == sorted(modules | packages)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_directory_imports_nothing_from_above_it(package: str) -> None:
    allowed = {f"regfs.registry.{below}" for below in PACKAGES[PACKAGES.index(package) :]}
    for module in (REGISTRY / package).glob("*.py"):
        for name in re.findall(r"(?:from|import) (regfs\.registry\.\w+)", module.read_text()):
            assert name in allowed, f"{module.name} imports {name}"
