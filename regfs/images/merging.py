"""Merging an image, in a process of its own where it is big: a merge keeps an interpreter busy from start to end.

    python -m regfs.images.merging '{"layers": ["….index", …], "destination": "….merged"}'
    stdout   nothing, or {"error": "BadLayer", "message": "…"}

Used by contents.py. Thread rule: any thread; a merge belongs to its caller.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from regfs.errors import CacheFailure, RegfsError
from regfs.images.own_process import error_of, process_environment
from regfs.rootfs.merge import merge_files
from regfs.store.failures import cache_failure

# Together about ten thousand entries, a tenth of a second: what a process costs.
_SMALL = 2 << 20


def merge_layers(layers: Sequence[Path], destination: Path, *, reserve: Callable[[int], None]) -> None:
    """Write the merged table of the layer indexes *layers* (base first) to *destination*; *reserve* is the budget's.

    Takes about 8 us an entry. Raises BadLayer where an unpacker would refuse the image; TooLarge; CacheFailure.
    """
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        size = sum(path.stat().st_size for path in layers)
    except OSError as error:
        raise cache_failure(destination, error) from error
    reserve(size)  # it takes about as much as they do
    if size < _SMALL:
        merge_files(layers, destination)
    else:
        _merge_in_process(layers, destination)


def _merge_in_process(layers: Sequence[Path], destination: Path) -> None:
    told = {"layers": [os.fspath(path) for path in layers], "destination": os.fspath(destination)}
    command = [sys.executable, "-m", "regfs.images.merging", json.dumps(told)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, env=process_environment(),
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise CacheFailure(f"{destination}: no process could be started: {error.strerror}") from error
    if done.stdout:
        raise error_of(json.loads(done.stdout))
    if done.returncode < 0:
        raise CacheFailure(f"{destination}: the process that merged it was killed (signal {-done.returncode})")
    if done.returncode != 0:
        raise RuntimeError(f"merging {destination} failed: {done.stderr.decode(errors='replace').strip()[-2000:]}")


def main(argument: str) -> int:
    """Merge what *argument* describes; return the exit status."""
    told = json.loads(argument)
    try:
        merge_files([Path(path) for path in told["layers"]], Path(told["destination"]))
    except RegfsError as error:
        os.write(1, json.dumps({"error": type(error).__name__, "message": str(error)}).encode())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
