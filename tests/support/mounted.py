"""The real `regfs` command, mounted as a user would mount it: in the background, with a cache directory of its own.

    with Mounted(tmp_path, options=["--default-registry", registry.address]) as mount:
        (mount.path / "library/hello-world/latest/digest").read_text()

Leaving the block unmounts with `regfs umount` and insists that no mount and no process is left.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support import preloaded

REPOSITORY_ROOT = Path(__file__).parents[2]
_PATIENCE_S = 60.0


def regfs_command() -> list[str]:
    """Return the beginning of a command line that runs this tree's regfs with this Python."""
    return [sys.executable, "-m", "regfs"]


def run_regfs(
    *words: str | Path, home: Path, directory: Path | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run this tree's regfs to its end, in *directory* (its *home* unless given)."""
    return preloaded.run(
        list(map(str, words)), environment=environment_for(home), directory=directory or home, stdin=stdin
    )


def as_user(uid: int | None) -> list[str]:
    """Return the prefix that runs a command as *uid* without any privilege; nothing for None."""
    if uid is None:
        return []
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]


def environment_for(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment with *home*, without settings for regfs, docker and the like, plus *extra*."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("REGFS_", "XDG_", "DOCKER_"))}
    kept.pop("REGISTRY_AUTH_FILE", None)
    own = {"HOME": str(home), "REGFS_CONFIG": "", "PYTHONPATH": str(REPOSITORY_ROOT), "LC_ALL": "C.UTF-8"}
    return {**kept, **own, **(extra or {})}


def mountinfo() -> list[str]:
    """Return the lines of /proc/self/mountinfo, as os.fsdecode() gives them: a name may have any bytes."""
    return os.fsdecode(Path("/proc/self/mountinfo").read_bytes()).split("\n")[:-1]


def mounts_at(path: Path) -> list[str]:
    """Return the file system types that are mounted on *path*, the lowest first."""
    found = []
    for line in mountinfo():
        before, _, after = line.partition(" - ")
        if re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), before.split(" ")[4]) == str(path):
            found.append(after.split(" ")[0])
    return found


def processes_naming(*texts: str) -> list[int]:
    """Return the processes, zombies left out, that have all of *texts* in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if all(text.encode() in command for text in texts):
                found.append(int(entry.name))
    return found


def is_holder(pid: int) -> bool:
    """Tell whether *pid* holds a mount for the daemons that serve it."""
    try:
        return b"takeover/holder_process.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def with_descendants(pids: Sequence[int]) -> list[int]:
    """Return *pids* and the processes that they have started, and those have."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found = list(dict.fromkeys(pids))
    for pid in found:  # grows while it is walked
        found += [child for child in children.get(pid, ()) if child not in found]
    return found


# A mount namespace without the mounts of other tests: looking into those would keep others from unmounting them. Their
# paths may have any bytes, which mountinfo writes as octal numbers.
_ALONE = r"""
import os, re, subprocess, sys
for line in open("/proc/self/mountinfo", "rb").read().split(b"\n"):
    path = re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), b"".join(line.split(b" ")[4:5]))
    if re.search(rb" - (fuse.regfs|erofs) ", line) and path != os.fsencode(sys.argv[1]):
        subprocess.run(["umount", "--lazy", path], check=True)
os.execvp(sys.argv[2], sys.argv[2:])
"""


def alone_with(mount: Mounted) -> list[str]:
    """Return the prefix that runs a command, as root, where *mount* is the only regfs there is."""
    private = ["unshare", "--mount", "--propagation", "private"]
    return [*private, sys.executable, "-S", "-c", _ALONE, str(mount.path)]


def wait_for_exit(pids: Sequence[int], timeout_s: float = _PATIENCE_S) -> list[int]:
    """Wait until the processes have gone; return those that have not within *timeout_s*."""
    end = time.monotonic() + timeout_s
    left = []
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
                left.append(pid)
        finally:
            os.close(descriptor)
    return left


def _private_directory(uid: int) -> Path:
    """Return a new directory of an ordinary user: pytest closes its own to others whenever a session begins."""
    directory = Path(tempfile.mkdtemp(prefix="regfs-tests-"))
    os.chown(directory, uid, uid)
    return directory


class Mounted:
    """One mount of regfs below *directory*, which gets `reg` (the mount point), `cache`, `home` and `log`.

    An ordinary user's mount gets a directory of its own instead, which goes when it goes. *program* is an installed
    regfs, which is not told where this tree is; otherwise this tree's runs, from a process that has loaded it where
    *preloaded_runs*: what a start takes cannot be measured then. Such a daemon asks sooner for what has failed, with
    *shorter_waits* (shorter_waits.py). All of it runs beside the mount point.
    """

    def __init__(
        self,
        directory: Path,
        *,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        uid: int | None = None,
        cache: Path | None = None,
        name: str = "reg",
        program: Sequence[str] = (),
        preloaded_runs: bool = True,
        shorter_waits: bool = False,
    ) -> None:
        if uid is not None:
            directory = _private_directory(uid)
            weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
        self.path = directory / name
        self.cache = cache if cache is not None else directory / "cache"
        self.home = directory / "home"
        self.log = directory / f"{name}.log"
        self.uid = uid
        for made in (self.path, self.cache, self.home):
            made.mkdir(parents=True, exist_ok=True)
            if uid is not None:
                os.chown(made, uid, uid)
        self.regfs = list(program) or regfs_command()
        self._environment = environment_for(self.home, environment)
        if program:
            del self._environment["PYTHONPATH"]
        self._has_shorter_waits = shorter_waits
        self._is_preloaded = preloaded_runs and not program and preloaded.can_run(environment)
        fixed = ["--cache-dir", str(self.cache), "--log-file", str(self.log)]
        self.command = [*as_user(uid), *self.regfs, *fixed, *options, str(self.path)]

    def mount(self) -> str:
        """Mount and return what the command printed; raises AssertionError with its words where it fails."""
        done = self._run(self.command)
        assert done.returncode == 0, f"{' '.join(self.command)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def run(self, *command: str | Path, check: bool = True, text: bool = True) -> subprocess.CompletedProcess[str]:
        """Run *command* as the user of the mount, in its parent directory."""
        full = [*as_user(self.uid), *map(str, command)]
        done = self._run(full, text=text)
        assert not check or done.returncode == 0, f"{full}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def _run(self, command: Sequence[str], *, text: bool = True) -> subprocess.CompletedProcess[str]:
        directory, program = self.path.parent, [*as_user(self.uid), *regfs_command()]
        if self._is_preloaded and text and command[: len(program)] == program:
            arguments = command[len(program) :]
            return preloaded.run(
                arguments, environment=self._environment, directory=directory, uid=self.uid,
                shorter_waits=self._has_shorter_waits,
            )  # fmt: skip
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command, env=self._environment, cwd=directory, capture_output=True, text=text, timeout=200, check=False
        )
        return done

    def stats(self) -> dict[str, float]:
        """Return the counters of the mount."""
        counters: dict[str, float] = json.loads((self.path / ".regfs/stats.json").read_text())
        return counters

    def errors(self) -> str:
        """Return what the mount says about its failures."""
        return (self.path / ".regfs/errors").read_text()

    def processes(self) -> list[int]:
        """Return the processes that serve this mount; a umount(8) of another test may name it too for a moment."""
        started = processes_naming("--cache-dir\0", f"{self.path}\0")
        return with_descendants([*started, *processes_naming("takeover", f"\0{self.path}\0")])

    @property
    def daemon(self) -> int:
        """The process that serves the mount."""
        return next(pid for pid in self.processes() if not is_holder(pid))

    def unmount(self) -> None:
        """Unmount as a user does, and insist that nothing stays behind."""
        pids = self.processes()
        done = self._unmounted()
        left = wait_for_exit(pids)
        still_mounted = mounts_at(self.path)
        self.clean_up()
        assert done.returncode == 0, f"regfs umount: exit {done.returncode}\n{done.stdout}{done.stderr}"
        assert not still_mounted, f"still mounted: {still_mounted}"
        assert not left, f"regfs is unmounted, and these processes live on: {left}"

    def _unmounted(self) -> subprocess.CompletedProcess[str]:
        """Run `regfs umount` until the mount is not in use; what a test has ended may hold it for a moment more."""
        end = time.monotonic() + _PATIENCE_S
        while True:
            done = self.run(*self.regfs, "umount", self.path, check=False)
            if done.returncode == 0 or "is in use" not in done.stderr or time.monotonic() > end:
                return done
            time.sleep(0.2)

    def _wait_for_the_end(self) -> None:
        # The test has unmounted it by itself: the mount goes first, its processes a moment later.
        left = wait_for_exit(self.processes())
        self.clean_up()
        assert not left, f"regfs was unmounted, and these processes live on: {left}"

    def clean_up(self) -> None:
        """Take away whatever is left, by force; what is killed has gone when this returns."""
        for _mount in mounts_at(self.path):
            subprocess.run(["umount", "-l", str(self.path)], check=False, capture_output=True)
        self.die()

    def die(self) -> None:
        """Kill all processes of the mount at once, that which holds it too: the mount is dead then."""
        while pids := self.processes():
            # First the process that holds the mount: it would start another daemon, as it may have done just now.
            for pid in sorted(pids, key=is_holder, reverse=True):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            left = wait_for_exit(pids)
            assert not left, f"these processes survive SIGKILL: {left}"

    def __enter__(self) -> Self:
        try:
            self.mount()
        except BaseException:
            self.clean_up()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if error is not None:
            self.clean_up()
        elif mounts_at(self.path):
            self.unmount()
        else:
            self._wait_for_the_end()
