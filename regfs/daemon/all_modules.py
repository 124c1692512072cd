"""Loads what a mount may need later, so that an upgrade of the package cannot mix two releases in one process.

A start loads little, and an image that is fetched first a week later would load its modules then: from a release that
is another one by now, or from a directory that is gone. `regfs restart` takes the new release into use. Workers are new
processes all the same, once the fork server has had nothing to do for a minute. Used by serve.py some seconds after the
start: 80 ms of CPU time and 3 MB. Thread rule: any thread.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil

log = logging.getLogger(__name__)

_PACKAGES = ("process", "model", "telemetry", "store", "registry", "layers", "rootfs", "images", "tree", "mount", "app")
# Loaded at the start where they are needed at all, with what they import: cryptography, libfuse.
_AT_THE_START = ("regfs.images.judging", "regfs.mount.fusepy")
# Programs of their own.
_PROGRAM = "_main"


def load_all() -> None:
    """Load all modules of this release that a daemon may need."""
    for package in map(importlib.import_module, (f"regfs.{name}" for name in _PACKAGES)):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.startswith(_AT_THE_START) or found.name.endswith(_PROGRAM):
                continue
            try:
                importlib.import_module(found.name)
            except ImportError as error:  # an optional dependency, which is told where it is needed
                log.debug("%s is not loaded: %s", found.name, error)
    log.debug("all modules are loaded")
