"""How many files this process may have open. Used at the start of a daemon and by whatever holds many files at once.

Thread rule: any thread; the limit is the process's.
"""

from __future__ import annotations

import resource

# More helps no mount, and every program that we start inherits it: some close each number up to the limit one by one.
_ENOUGH = 1 << 16


def raise_descriptor_limit(enough: int = _ENOUGH) -> int:
    """Raise the soft RLIMIT_NOFILE towards the hard one, to at most *enough*; return the limit that holds then.

    A shell's or systemd's soft limit is 1,024, for the sake of programs that use select(2).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = enough if hard == resource.RLIM_INFINITY else min(hard, enough)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # a sandbox may forbid it; the tables that are open stay within a bound of their own
        return soft
    return wanted
