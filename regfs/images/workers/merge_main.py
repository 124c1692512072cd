"""The worker that merges one big image.

    python -m regfs.images.workers.merge_main '{"layers": ["….index", …], "destination": "….merged", "hidden": {}}'
    stdout   {"effort": 3} now and then, at last {"done": true} or {"error": "BadLayer", "message": "…"}

Started for workers/merge.py alone; imports little, to start fast.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regfs.errors import RegfsError
from regfs.images.workers.own_process import Teller
from regfs.rootfs.merge import merge_files


def main(argument: Mapping[str, Any]) -> int:
    """Merge what *argument* describes; return the exit status."""
    teller = Teller()
    try:
        teller.begin()
        hidden = {int(number): frozenset(map(os.fsencode, names)) for number, names in argument["hidden"].items()}
        merge_files([Path(path) for path in argument["layers"]], Path(argument["destination"]), hidden=hidden)
    except RegfsError as error:
        teller.failed(error)
        return 1
    teller.done()
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
