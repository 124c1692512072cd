"""How many files this process may have open. Raised by a daemon and by `regfs unpack`, which hold many at once.

Thread rule: any thread; the limit is the process's.
"""

from __future__ import annotations

import resource

# More does not help, and child processes inherit the limit: some programs close every number up to it, one by one.
_ENOUGH = 1 << 16


def raise_descriptor_limit(enough: int = _ENOUGH) -> int:
    """Raise the soft RLIMIT_NOFILE towards the hard one, to at most *enough*; return the limit that holds now.

    A shell's or systemd's soft limit is 1,024, for the sake of programs that use select(2).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = enough if hard == resource.RLIM_INFINITY else min(hard, enough)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # a sandbox may forbid it; open tables have a bound of their own
        return soft
    return wanted
