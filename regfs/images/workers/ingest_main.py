"""The worker that ingests one big layer: reads compressed bytes, reports progress as lines of JSON.

    python -m regfs.images.workers.ingest_main '{"root": …, "boot": …, "limits": …, "digest": …, "memory": 5, …}'
    stdin    the layer's bytes, as the registry gives them: a pipe through shared memory (shared_pipe.py), whose
             descriptor is "memory"
    stdout   {"received": 1, "inflated": 1, "entries": 1, "effort": 1} now and then; the last line also has
             "done": true, "remark" and "exceeded", or is {"error": "BadLayer", "message": "…"}

It has no access to registries and no credentials. If its parent dies, its input ends early, and it removes its files.
Started by workers/ingest.py alone; imports little, to start fast.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regfs.errors import RegfsError
from regfs.images.workers.own_process import Teller, be_nice
from regfs.images.workers.shared_pipe import pieces
from regfs.layers.ingest import Progress, run_ingest
from regfs.model.cache_limits import Limits
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.store.layers.layer_store import LayerStore

# Three threads hand each other blocks that take 1 ms each; Python's default of 5 ms would be lost at each switch.
_SWITCH_INTERVAL_S = 0.0005


def main(argument: Mapping[str, Any]) -> int:
    """Ingest the layer that *argument* describes; return the exit status."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    be_nice(argument["niceness"])
    descriptor = Descriptor(argument["media_type"], Digest.parse(argument["digest"]), argument["size"])
    diff_id = Digest.parse(argument["diff_id"])
    limits = Limits.of(argument["limits"])
    store = LayerStore(Path(argument["root"]), boot=argument["boot"], limits=limits, note=_log_nothing)
    progress = Progress()
    teller = Teller(progress.numbers)
    try:
        teller.begin()
        names_only = argument["names_only"]
        with store.begin_names(descriptor.size) if names_only else store.begin_layer(descriptor.size) as writer:
            run_ingest(
                pieces(argument["memory"], 0), descriptor=descriptor, diff_id=diff_id, sink=writer, progress=progress,
                names_only=names_only,
            )  # fmt: skip
            store.publish(writer, diff_id)
            teller.done(remark=progress.remark, exceeded=store.budget.exceeded)
    except RegfsError as error:
        teller.failed(error)
        return 1
    return 0


def _log_nothing(_: str) -> None:
    """Turn logging off in this process: the parent reports errors."""


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
