"""`regfs doctor`: what this machine and this user can do with regfs, and what to do about the rest.

Each finding is about something that a user wants to do. Changes nothing. Connects to a registry without a request.
"""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from importlib.util import find_spec
from typing import NamedTuple

from regfs.app.composition import build
from regfs.app.config import Config
from regfs.daemon.registry_reachability import failure_to_reach
from regfs.errors import RegfsError
from regfs.model.units import in_units
from regfs.mount import mountpoint as mountpoints
from regfs.mount.device import open_device

_PASSTHROUGH_SINCE = (6, 9)
_FEW_DESCRIPTORS = 4096
_PATIENCE_S = 10.0


class Finding(NamedTuple):
    """Whether one thing works; *detail* says how, or why not and what to do. *is_needed*: all other things need it."""

    name: str
    is_well: bool
    detail: str
    is_needed: bool = False


def examine(*, config: Config, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Yield the findings. Blocks for some seconds where the default registry does not answer."""
    yield _finding("mount registries", _mounting, is_needed=True)
    yield _finding("keep what was fetched", lambda: _cache(config, environment), is_needed=True)
    yield _finding("regfs mount, served by the kernel", lambda: _kernel_mounts(config))
    yield _finding("big files as fast as the disk", _passthrough)
    yield _finding("regfs run and chroot as an ordinary user", _user_namespaces)
    yield _finding("gzip at full speed", lambda: _installed("isal", "isal", "pip install isal"))
    yield _finding("many images and files at once", _descriptors)
    yield _finding(f"reach {config.default_registry}", lambda: _registry(config, environment))
    yield _finding(f"log in to {config.default_registry}", lambda: _credentials(config, environment))


class _Ill(Exception):
    """Says why one thing does not work, and the remedy."""


def _finding(name: str, check: Callable[[], str], *, is_needed: bool = False) -> Finding:
    try:
        return Finding(name, True, check(), is_needed)
    except (_Ill, RegfsError) as reason:
        return Finding(name, False, str(reason), is_needed)


def _mounting() -> str:
    os.close(open_device())
    if os.geteuid() == 0 or mountpoints.may_mount():
        return "by mount(2)"
    mountpoints.helper("to mount")
    return "by fusermount3"


def _cache(config: Config, environment: Mapping[str, str]) -> str:
    with closing(build(config, environment)) as app:
        if app.note:
            raise _Ill(app.note)
        standing = app.layers.budget.standing(wait_s=_PATIENCE_S)
    if standing is None:
        return f"in {config.cache_dir}"
    limit = f" of {in_units(standing.limit)}" if standing.limit else ""
    room = f", {in_units(standing.free)}{limit} free, {in_units(standing.min_free)} of the disk stay free"
    return f"in {config.cache_dir}{room}"


def _kernel_mounts(config: Config) -> str:
    from regfs.export.erofs.mounting import reason_against

    if os.geteuid() != 0:
        raise _Ill("root alone has it; regfs mount shows images by FUSE for you")
    if reason := reason_against(config.cache_dir):
        raise _Ill(f"{reason}; regfs mount shows images by FUSE then")
    return "by EROFS"


def _passthrough() -> str:
    release = os.uname().release
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdecimal())
    if os.geteuid() != 0:
        raise _Ill("root's mounts alone have it; regfs passes the bytes on for you")
    if numbers < _PASSTHROUGH_SINCE:
        raise _Ill(f"Linux {release} cannot; 6.9 and newer can")
    return "the kernel reads them from the cache by itself"


def _user_namespaces() -> str:
    command = ["unshare", "--map-root-user", "--mount", "true"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except FileNotFoundError:
        raise _Ill("there is no unshare(1); it is in util-linux") from None
    except subprocess.TimeoutExpired:
        raise _Ill("unshare(1) does not end") from None
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["it fails"])[-1]
        if mountpoints.topmost("/") is None:
            raise _Ill(f"{reason}; in a chroot the kernel allows no user namespace: systemd-nspawn -D DIR does")
        raise _Ill(
            f"{reason}; user namespaces are off: sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces, "
            "and on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0"
        )
    return "user namespaces can be made"


def _installed(module: str, name: str, remedy: str) -> str:
    if find_spec(module) is None:
        raise _Ill(f"{name} is not installed: {remedy}")
    return f"by {name}"


def _descriptors() -> str:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _FEW_DESCRIPTORS:
        raise _Ill(f"at most {hard} descriptors are allowed: ulimit -Hn, LimitNOFILE= of systemd")
    return "unlimited descriptors" if hard == resource.RLIM_INFINITY else f"{hard} descriptors"


def _registry(config: Config, environment: Mapping[str, str]) -> str:
    if config.offline:
        raise _Ill("regfs runs with --offline")
    failure = failure_to_reach(config, environment)
    if failure is not None:
        raise failure
    return "it takes a connection, or a proxy is asked"


def _credentials(config: Config, environment: Mapping[str, str]) -> str:
    from regfs.registry.credentials.lookup import Credentials

    with closing(Credentials(environment)) as credentials:
        found = credentials.for_host(config.default_registry)
        if credentials.faults:
            raise _Ill("; ".join(credentials.faults))
    return "anonymously; regfs login logs in" if found is None else f"as {found.username!r}, from {found.source}"
