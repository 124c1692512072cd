"""`regfs run` and `regfs shell`: find an image, let the kernel or this process show its files, run its program in them.

cli/verbs/run.py has started the container's process before, which gets ready meanwhile.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Protocol

from regfs.app.composition import App, Mount, build
from regfs.app.config import Config
from regfs.errors import CacheFailure, CacheFull, MountFailure, NotADirectory, NotFound, Unsupported
from regfs.export.container.plan import Asked, Plan, plan_of
from regfs.export.container.supervisor import Entered
from regfs.export.overlay import lock_upper
from regfs.images.image import Image
from regfs.images.named_images import full_name
from regfs.model.platform import host_platform
from regfs.model.run_config import parse_run_config
from regfs.mount import mountpoint as mountpoints
from regfs.mount.mount_api import NO_DEVICES, NO_SUID
from regfs.process.threads import start_thread
from regfs.rootfs.paths import find
from regfs.rootfs.rootfs import Rootfs
from regfs.verbs.image import fetching, find_image, merged_files, whole_files
from regfs.verbs.image_argument import read_reference
from regfs.verbs.mount import fetch_damaged

if TYPE_CHECKING:
    from regfs.images.starts.trace import Trace

log = logging.getLogger(__name__)

Say = Callable[[str], None]
SHELLS = (
    ("/bin/bash",), ("/usr/bin/bash",), ("/bin/ash",), ("/bin/sh",), ("/usr/bin/sh",), ("/busybox/sh",),
    ("/bin/busybox", "sh"), ("/bin/zsh",), ("/bin/dash",),
)  # fmt: skip
"""What `regfs shell` looks for, best first."""
# Seconds that a busy disk may take at the end to write the last fetched bytes.
_CLOSING_S = 30.0


class Recording(Protocol):
    """What `regfs record` makes of a run: verbs/record.py."""

    @property
    def trace(self) -> Trace: ...

    def began(self) -> None:
        """Note that the program is about to start."""

    def ended(self, image: Image, files: Rootfs, app: App, code: int) -> None:
        """Keep what was read of *files*; the program has ended with *code*."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What `regfs run` was asked for. *by_fuse*: this process shows the files by FUSE, not the kernel alone.

    *is_shell*: a shell of the image is run, not its program.
    """

    image: str
    asked: Asked
    by_fuse: bool
    is_shell: bool = False


def run(
    wanted: Wanted,
    entered: Entered,
    *,
    config: Config,
    environment: Mapping[str, str],
    say: Say,
    progress: Say,
    recording: Recording | None = None,
) -> int:
    """Run what is *wanted* in *entered*, and return the exit status. Blocks on the network. Raises RegfsErrors.

    *recording* records what the program reads of the image.
    """
    reference = read_reference(wanted.image, config.default_registry, mountpoints.mounts())
    app = build(config, environment, mount=Mount(trace=recording.trace if recording else None))
    with _closing(app) as close, lock_upper(wanted.asked.keep, option="--keep"):
        if app.note:
            say(f"note: {app.note}")
        image = find_image(reference, app)
        name = full_name(reference, image).partition("@")[0] if reference.tag is not None else str(image)
        with fetching(app, say=progress, environment=environment):
            lower, files = _files_of(image, name, app, by_fuse=wanted.by_fuse)
        plan = _plan(wanted, image, name, files, environment)
        serve = partial(_serve, app, image, has_one_user=entered.has_one_user, recording=recording)
        if lower is not None and recording is None:
            close()  # while the program runs: the kernel holds what it needs
        try:
            code = entered.run(plan, lower=lower, serve=serve, say=say)
            if recording is not None:
                recording.ended(image, files, app, code)
            return code
        finally:
            if lower is not None:
                os.close(lower)


def _plan(wanted: Wanted, image: Image, name: str, files: Rootfs, environment: Mapping[str, str]) -> Plan:
    asked = wanted.asked
    if wanted.is_shell:
        asked = replace(asked, entrypoint="", command=_shell_of(files, name))
    return plan_of(
        parse_run_config(image.config_content), asked, terminal=environment.get("TERM", ""), image=name,
        image_platform=str(image.config.platform), machine_platform=str(host_platform()),
    )  # fmt: skip


def _shell_of(files: Rootfs, name: str) -> tuple[str, ...]:
    for words in SHELLS:
        with suppress(NotFound, NotADirectory):
            find(files, words[0].encode())
            return words
    raise NotFound(
        f"{name} has no shell (neither {', '.join(words[0] for words in SHELLS)}); bring one that needs no libraries: "
        f"regfs run -it -v /bin/busybox:/bin/busybox {name} /bin/busybox sh (Debian: apt install busybox-static)"
    )


def _files_of(image: Image, name: str, app: App, *, by_fuse: bool) -> tuple[int | None, Rootfs]:
    """Return a mount of the image's files by the kernel alone (None: FUSE has to show them), and the files."""
    with suppress(CacheFailure):  # what killed runs left is not in the way
        app.sweep()
    if by_fuse:
        return None, merged_files(image, app)
    from regfs.export.erofs.mounting import detached_mount

    config = app.config
    attributes = (0 if config.allow_suid else NO_SUID) | (0 if config.allow_dev else NO_DEVICES)
    try:
        files = whole_files(image, app, stays=True)
        fetch_damaged(files, app)
    except CacheFull as reason:
        app.layers.unkept.tell(reason)  # FUSE shows it
        return None, merged_files(image, app)
    try:
        return detached_mount(files, app.layers, name=name, attributes=attributes), files
    except (Unsupported, CacheFailure, MountFailure) as reason:
        log.info("%s: FUSE shows it: %s", image, reason)
        return None, files


def _serve(app: App, image: Image, connection: int, *, has_one_user: bool, recording: Recording | None) -> None:
    """Let a thread show the files of *image* on *connection*."""
    from regfs.daemon.process_settings import set_up_process
    from regfs.daemon.session import kernel_session_of_image

    set_up_process("kernel")
    session = kernel_session_of_image(app, image.repository.name, image.digest, has_one_user=has_one_user)
    session.adopt(connection, checks_permissions=True)
    start_thread(session.serve, name="regfs-session")
    if recording is not None:
        recording.began()


@contextmanager
def _closing(app: App) -> Iterator[Callable[[], None]]:
    """Return a function that closes *app* in another thread; the end of the block closes it in any case.

    A hanging disk of the cache must not keep this process alive.
    """
    threads: list[Thread] = []

    def close() -> None:
        if not threads:
            threads.append(start_thread(app.close, name="regfs-closing"))

    try:
        yield close
    finally:
        close()
        threads[0].join(_CLOSING_S)
