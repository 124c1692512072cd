"""What all worker processes share: their number, environment, niceness, and the lines that report progress.

Used by layer_ingests.py, merges.py and worker.py, and by the processes themselves; imports only the error tree. Thread
rule: any thread.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from regfs import errors
from regfs.errors import RegfsError
from regfs.process.threads import start_thread

# The variables that workers need to find libraries and to write messages. Secrets in the daemon's environment are not
# passed on.
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR")
# glibc would return each block of a megabyte to the kernel and fault in a new one: 3 s of system time for a gigabyte.
# Other C libraries ignore these.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(64 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}

_TELL_EVERY_S = 0.2
_PR_SET_PDEATHSIG = 1
_EFFORT_S = 0.25

# At niceness 5, a process gets a third of the CPU time of a normal one that competes for the same core. Source:
# sched(7), "The nice value". Each session is a group whose niceness counts among groups. Source: sched(7), "The
# autogroup feature".
_AUTOGROUP = Path("/proc/self/autogroup")

NICE_BESIDE_THE_BIGGEST = 5
"""The niceness of ingests beside the biggest layer's, which would otherwise end last and leave cores idle."""
MOST_WORKERS = 4
"""An ingest takes up to two cores and tens of megabytes of memory, and few registries send faster than four inflate."""
# The CPU time that a container may use. Source: Documentation/admin-guide/cgroup-v2.rst, "cpu.max".
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def usable_cpus() -> int:
    """Return how many CPUs this process may use: by its affinity, and by the quota of its cgroup (version 2)."""
    cpus = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError, StopIteration):
        own = next(line for line in _OWN_CGROUP.read_text().splitlines() if line.startswith("0::"))
        within = Path(own.removeprefix("0::/"))
        for group in (within, *within.parents):
            cpus = min(cpus, _quota(_CGROUPS / group / "cpu.max", cpus))
    return cpus


def _quota(path: Path, cpus: int) -> int:
    """Return how many CPUs the file allows; *cpus* if there is no file, or no limit in it."""
    try:
        quota, period = path.read_text().split()
    except OSError:
        return cpus
    return cpus if quota == "max" else max(1, math.ceil(int(quota) / int(period)))


def workers() -> int:
    """Return how many ingests may run at once. At least two: while one waits for its registry, another works."""
    return min(MOST_WORKERS, max(2, usable_cpus()))


def be_nice(niceness: int) -> None:
    """Lower the priority of this process, which must be the leader of its own session."""
    if niceness:
        # Not allowed, not supported, or changed by another process a moment ago: then the shares stay equal.
        with suppress(OSError):
            os.nice(niceness)
            _AUTOGROUP.write_text(str(niceness))


class Teller:
    """Reports progress to the parent process, by lines of JSON on stdout, which worker.py reads.

    *numbers* returns the counters of the work. CPU time is reported too, in large steps, because the reports themselves
    take CPU time: a worker that hangs must not seem to make progress.
    """

    def __init__(self, numbers: Callable[[], Mapping[str, int]] = dict) -> None:
        self._numbers = numbers

    def begin(self) -> None:
        """Begin to report the numbers now and then; let the kernel wake a stopped process when its parent ends.

        Raises OutOfThreads.
        """
        go_on_at_the_end_of_the_parent()
        start_thread(self._tell_now_and_then, name="teller")

    def done(self, **words: str) -> None:
        """Report success, with the results."""
        _tell(**self._numbers(), **words, done=True)

    def failed(self, error: RegfsError) -> None:
        """Report an error."""
        _tell(error=type(error).__name__, message=str(error))

    def _tell_now_and_then(self) -> None:
        while True:
            time.sleep(_TELL_EVERY_S)
            _tell(**self._numbers(), effort=int(time.process_time() / _EFFORT_S))


def go_on_at_the_end_of_the_parent() -> None:
    """Let the kernel send SIGCONT to this process when its parent ends. The calling thread must live until then.

    A worker cleans up when its input ends with its daemon. A stopped one (for example by a debugger) cannot read, and
    would keep its memory, lock and files for ever. A killed daemon cannot wake it. Source: PR_SET_PDEATHSIG(2const);
    the parent there is the thread that started this process.
    """
    if sys.platform == "linux":
        import ctypes  # imported here: it takes 3 ms, and only workers need it

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGCONT), 0, 0, 0)


def _tell(**words: object) -> None:
    # The parent may have ended. A signal or an error here would keep the process from cleaning up.
    with suppress(BrokenPipeError):
        os.write(1, json.dumps(words).encode() + b"\n")


def error_of(told: Mapping[str, str]) -> RegfsError:
    """Return the error that a process reported: the class of the error tree by name, and the message."""
    kind: type[RegfsError] = getattr(errors, told["error"])
    return kind(told["message"])


def process_environment() -> dict[str, str]:
    """Return the environment of a worker: what it needs to find its modules, without the user's variables."""
    environment = _ALLOCATOR | {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    environment["PYTHONSAFEPATH"] = "1"  # otherwise -m would import from the working directory first
    return environment
