"""Waits that tests through a mount need not sit out: how soon a daemon asks again for what has just failed, and looks
again at what may have changed.

That it waits, and how long, is tested at the client and in the tree, where the clock is the test's.
"""

from __future__ import annotations

import sys
from functools import partial

from regfs.app.composition import Substitutes, build
from regfs.daemon import session
from regfs.registry.auth import api_roots
from regfs.registry.hosts import endpoints
from regfs.registry.http.retry_policy import RetryPolicy
from regfs.tree import cached_parts, invented, listings

WAIT_S = 0.5  # instead of five: for a host that failed, a layer that was wrong, a hosts.toml that was read
_LOOK_S = 0.2  # instead of one or two: what is in the cache, the date of a tag, a name that is in use or libfuse's
_BACK_OFF_S = 0.05  # instead of half a second: the first wait before a request is sent again


def shorten_waits() -> None:
    """Let a daemon that this process becomes wait for so long."""
    retry = RetryPolicy(base_s=_BACK_OFF_S, breaker_s=WAIT_S)
    substitutes = Substitutes(retry=retry, refused_s=WAIT_S, held_s=_LOOK_S)
    for module, name, value in (
        (session, "build", partial(build, substitutes=substitutes)),
        (api_roots, "_FAILURE_KEPT_S", WAIT_S),
        (endpoints, "_LOOKED_AT_AGAIN_S", WAIT_S),
        (cached_parts, "_FRESH_S", _LOOK_S),
        (invented, "_UNDATED_VALID_S", _LOOK_S),
        (invented, "PLACEHOLDER_VALID_S", _LOOK_S),
        (listings, "PLACEHOLDER_VALID_S", _LOOK_S),
        (session, "_FUSEPY_VALID_S", _LOOK_S),
    ):
        assert hasattr(module, name)
        setattr(module, name, value)


if __name__ == "__main__":  # in the place of `python -m regfs`
    from regfs.cli import main

    shorten_waits()
    sys.argv[0] = "regfs"
    main()
