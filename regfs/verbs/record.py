"""`regfs record`: runs a program in an image, keeps which parts of its files were read, and pushes that."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

from regfs.app.composition import App
from regfs.app.config import Config
from regfs.errors import CacheFailure, MountFailure
from regfs.export.container.supervisor import Entered
from regfs.images.image import Image
from regfs.images.starts.trace import Trace
from regfs.model.start_record import StartRecord
from regfs.process.waiting.deadline import Deadline, under
from regfs.rootfs.rootfs import Rootfs
from regfs.verbs.run import Wanted, run

Say = Callable[[str], None]
_GRACE_S = 10.0


class Recorder:
    """Records what is read while an image runs in *entered*, and pushes it with *push*; *say* is called with a summary.

    After *timeout_s* seconds the program gets SIGTERM, and SIGKILL if it goes on; *was_ended* is True then.
    """

    def __init__(self, entered: Entered, *, timeout_s: float | None, push: bool, say: Say) -> None:
        self.trace = Trace()
        self.was_ended = False
        self._timers: list[threading.Timer] = []
        if timeout_s is not None:
            self._timers = [threading.Timer(timeout_s, self._end), threading.Timer(timeout_s + _GRACE_S, entered.kill)]
        self.image = ""
        self.pushed: str | None = None
        self._push = push
        self._say = say

    def began(self) -> None:
        """Start the timeout."""
        for timer in self._timers:
            timer.daemon = True
            timer.start()

    def stop(self) -> None:
        """Cancel the timeout."""
        for timer in self._timers:
            timer.cancel()

    def _end(self) -> None:
        self.was_ended = True
        os.kill(os.getpid(), signal.SIGTERM)  # which is passed on to the program

    def ended(self, image: Image, files: Rootfs, app: App, code: int) -> None:
        """Keep the record, and push it if asked to. Raises CacheFailure, MountFailure, and the errors of a push."""
        self.stop()
        if app.note:
            raise CacheFailure(f"nothing is recorded: {app.note}")
        found = self.trace.record(files)
        if not found.reads:
            raise MountFailure(f"the program read nothing of {image}, and ended with {code}; nothing is recorded")
        image.repository.starts.keep(image.manifest_descriptor.digest, found)
        files_text = "1 file" if len(found.files) == 1 else f"{len(found.files)} files"
        self._say(f"{files_text}, {sum(read.size for read in found.reads) / 1e6:.1f} MB of them read")
        if self._push:
            self.pushed = _pushed(image, found, app)
            self._say(f"pushed as {self.pushed}")
        self.image = str(image)


def record(
    wanted: Wanted,
    entered: Entered,
    *,
    recorder: Recorder,
    config: Config,
    environment: Mapping[str, str],
    say: Say,
    progress: Say,
) -> int:
    """Run what is *wanted* as `regfs run` does, and record it; return the exit status, 0 where the time was up.

    Raises what run() and Recorder.ended() raise.
    """
    # By FUSE: regfs does not see the reads of a mount that the kernel serves alone.
    shown, settings = replace(wanted, by_fuse=True), replace(config, passthrough=False)
    try:
        code = run(
            shown, entered, config=settings, environment=environment, say=say, progress=progress, recording=recorder
        )
    finally:
        recorder.stop()
    return 0 if recorder.was_ended else code


def _pushed(image: Image, found: StartRecord, app: App) -> str:
    with under(Deadline(app.config.timeout_s, is_users=True)):
        digest = image.repository.starts.push(image.manifest_descriptor, found, app.registry.pushes)
    return f"{image.repository.name}@{digest}"
