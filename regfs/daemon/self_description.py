"""`.regfs/daemon.json`: the process id, driver, platform, log and cache of a daemon, and how often it has refreshed.

Written by serve.py, read by `regfs status` and `regfs refresh` (daemon_answers.py). The form is a contract: keys are
added, never changed, because a daemon may be months older than the verb that reads it. Thread rule: any thread reads;
one counts.
"""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from regfs.store.eviction.budget import Standing

if TYPE_CHECKING:
    from regfs.mount.kernel.kept.state_file import StateFile

FILE = "daemon.json"
_PID_NAMESPACE = "/proc/self/ns/pid"


def pid_namespace() -> str:
    """Return the name of this process's PID namespace: `pid:[4026531836]`; '' if unknown."""
    try:
        return os.readlink(_PID_NAMESPACE)
    except OSError:
        return ""


@dataclass(slots=True)
class SelfDescription:
    """What daemon.json says of one daemon. *log* is where the log goes, *state* what outlives the daemon.

    *names_valid_s*: how long, in seconds, the kernel trusts old names after a refresh; fusepy cannot withdraw them.
    """

    driver: str
    platform: str
    log: str
    names_valid_s: float = 0.0
    started: float = field(default_factory=time.time)
    refreshes_begun: int = 0
    refreshes_done: int = 0
    state: StateFile | None = None

    def text(self, cache_directory: Path, standing: Standing | None) -> str:
        """Return the content of daemon.json. *standing* says how full the cache is; None until it was measured."""
        cache: dict[str, object] = {"path": str(cache_directory)}
        if standing is not None:
            cache |= {
                "used_bytes": standing.used,
                "limit_bytes": standing.limit,
                "free_bytes": standing.free,
                "min_free_bytes": standing.min_free,
                "max_age_s": None if math.isinf(standing.max_age_s) else standing.max_age_s,
            }
        said: dict[str, object] = {
            "pid": os.getpid(),
            "pid_namespace": pid_namespace(),
            "started": self.started,
            "driver": self.driver,
            "platform": self.platform,
            "log": self.log,
            "cache": cache,
            "names_valid_s": self.names_valid_s,
            "refreshes_begun": self.refreshes_begun,
            "refreshes_done": self.refreshes_done,
        }
        if self.state is not None:
            said["holder"] = self.state.holder
            said["restarts"] = self.state.restarts
            said["crashes"] = self.state.crashes
            said["last_end"] = self.state.last_end
            said["restart_failure"] = self.state.failure
        return json.dumps(said, indent=1) + "\n"
