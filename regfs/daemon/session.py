"""Builds what a daemon serves: the app, and a session of the driver that shows its tree to the kernel.

Used by serve.py. The command line asks mount_options() first, so that a refused option is reported before a fork.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from regfs.app.composition import App, Mount, build
from regfs.app.config import Config
from regfs.app.owners import ROOT, owner_asked_for, with_owner
from regfs.daemon import self_description
from regfs.daemon.self_description import SelfDescription
from regfs.errors import InvalidOption
from regfs.model.names import parse_reference
from regfs.model.platform import host_platform
from regfs.mount.filesystem import FileSystem
from regfs.mount.in_use import directories_in_use
from regfs.mount.options import MountOptions
from regfs.process.waiting.deadline import Deadline, under

if TYPE_CHECKING:
    from regfs.model.digest import Digest
    from regfs.model.names import RepositoryName
    from regfs.mount.kernel.kept.state_file import StateFile
    from regfs.mount.kernel.session import KernelSession

# Seconds. libfuse 2 has one timeout for all names, on top of the time that a tag is valid: short, but long enough that
# a program which starts in an image does not have each directory of its path looked up again and again.
_FUSEPY_VALID_S = 1.0


class Session(Protocol):
    """What both drivers offer: see kernel/session.py."""

    @property
    def device(self) -> str: ...

    @property
    def is_answering(self) -> bool: ...

    def mount(self, mountpoint: str, options: MountOptions) -> None: ...

    def serve(self, on_ready: Callable[[], None] | None = None) -> None: ...

    def unmount(self, *, lazily: bool = False) -> None: ...

    def refresh(self) -> None: ...

    def stop(self) -> None: ...


def driver_of(config: Config) -> str:
    """Return the driver that *config* asks for: "kernel" or "fusepy"."""
    if config.driver == "auto":
        return "kernel" if sys.platform == "linux" else "fusepy"
    return config.driver


def build_session(
    config: Config,
    point: str,
    *,
    environment: Mapping[str, str],
    log_name: str,
    state: StateFile | None = None,
    on_ready: Callable[[], None] = lambda: None,
) -> tuple[App, Session, SelfDescription]:
    """Return the app, a session that is not mounted yet, and what `.regfs/daemon.json` says.

    *state* has what another daemon must know to take the mount over. What an earlier daemon has left there is read
    first; *on_ready* is called before that, when all else is built. Raises MountFailure where the driver cannot run
    here, InvalidOption as app.build() does. Where one image is to be shown, this looks it up: it blocks on the network
    and raises what a look-up raises.
    """
    driver = driver_of(config)
    described = SelfDescription(
        driver=driver,
        names_valid_s=min(config.tag_ttl_s, _FUSEPY_VALID_S) if driver == "fusepy" else 0.0,
        platform=str(config.platform or host_platform()),
        log=log_name,
        state=state,
    )
    app: App
    session: Session
    # The tree calls these two while it is mounted, when both the app and the session are there.
    mount = Mount(
        point=Path(point),
        texts={self_description.FILE: lambda: described.text(app.cache, app.layers.budget.standing())},
        used_directories=lambda: directories_in_use(session.device, overlays=driver == "fusepy"),
    )
    app = build(config, environment, mount=mount)
    on_ready()
    if state is not None:
        from regfs.mount.kernel.kept.node_records import NodeRecords

        records = NodeRecords(state)
        app.tree.restore(records.read())
        app.tree.record_in(records)
    session = _session(app, driver, valid_s=described.names_valid_s, shown=_shown(app, state), state=state)
    return app, session, described


def kernel_session_of_image(
    app: App, repository: RepositoryName, digest: Digest, *, has_one_user: bool
) -> KernelSession:
    """Return a session that shows the files of one image, for `regfs run`. With *has_one_user* uid 0 owns all files."""
    path = [repository.registry, *repository.path.split("/"), f"@{digest.algorithm}-{digest.encoded}"]
    with under(Deadline(app.config.timeout_s, is_users=True)):
        shown = app.one_image(path)
    return _kernel_session(app, with_owner(shown, ROOT if has_one_user else None))


def _shown(app: App, state: StateFile | None) -> FileSystem:
    """Return what the mount shows: all of the tree, or one image of it, which the registry is asked for.

    An image that *state* names is shown again.
    """
    config = app.config
    owner = owner_asked_for(config)
    if config.image is None:
        return with_owner(app.tree, owner)
    reference = parse_reference(config.image, default_registry=config.default_registry)
    with under(Deadline(config.timeout_s, is_users=True)):
        path = [config.default_registry, *reference.repository.path.split("/"), reference.directory]
        shown = app.one_image(path, state)
    return with_owner(shown, owner)


def _session(app: App, driver: str, *, valid_s: float, shown: FileSystem, state: StateFile | None) -> Session:
    config = app.config
    if driver == "kernel":
        return _kernel_session(app, shown, state)
    from regfs.mount.fusepy.session import FusepySession

    return FusepySession(
        shown,
        app.stats,
        errors=app.journal.record,
        timeout_s=config.timeout_s,
        valid_s=valid_s,
        low_latency=config.low_latency,
    )


def _kernel_session(app: App, shown: FileSystem, state: StateFile | None = None) -> KernelSession:
    from regfs.mount.kernel.session import KernelSession

    return KernelSession(
        shown,
        app.stats,
        errors=app.journal.record,
        timeout_s=app.config.timeout_s,
        passthrough=app.config.passthrough,
        low_latency=app.config.low_latency,
        kept=state,
    )


def mount_options(config: Config) -> MountOptions:
    """Return the mount options that *config* asks for. Raises InvalidOption for one that only root may use."""
    for asked, word in ((config.allow_suid, "allow_suid"), (config.allow_dev, "allow_dev")):
        if asked and os.geteuid() != 0:
            raise InvalidOption(f"{word}: only root may mount so")
    return MountOptions(
        source=config.source,
        allow_other=config.allow_other,
        allow_suid=config.allow_suid,
        allow_dev=config.allow_dev,
        noexec=config.noexec,
        # A mount of one image is its root directory, as an EROFS mount of it: the kernel refuses writes there.
        read_only=config.read_only or config.image is not None,
        default_permissions=config.default_permissions,
    )
