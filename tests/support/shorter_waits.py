"""Waits that tests through a mount need not sit out: how soon a daemon asks again for what has just failed.

That it waits, and how long, is tested at the client and in the tree, where the clock is the test's.
"""

from __future__ import annotations

import sys
from functools import partial

from regfs.app.composition import Substitutes, build
from regfs.cli.main import main
from regfs.daemon import session
from regfs.registry.auth import api_roots
from regfs.registry.hosts import endpoints
from regfs.registry.http.retry_policy import RetryPolicy

WAIT_S = 1.0  # instead of five: for a host that failed, a layer that was wrong, a hosts.toml that was read
_BACK_OFF_S = 0.05  # instead of half a second: the first wait before a request is sent again


def shorten_waits() -> None:
    """Let a daemon that this process becomes wait for so long."""
    substitutes = Substitutes(retry=RetryPolicy(base_s=_BACK_OFF_S, breaker_s=WAIT_S), refused_s=WAIT_S)
    for module, name, value in (
        (session, "build", partial(build, substitutes=substitutes)),
        (api_roots, "_FAILURE_KEPT_S", WAIT_S),
        (endpoints, "_LOOKED_AT_AGAIN_S", WAIT_S),
    ):
        assert hasattr(module, name)
        setattr(module, name, value)


if __name__ == "__main__":  # in the place of `python -m regfs`
    shorten_waits()
    sys.argv[0] = "regfs"
    main()
