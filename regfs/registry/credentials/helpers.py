"""Credential helpers: programs `docker-credential-NAME` that keep secrets for Docker.

Used by credentials/lookup.py alone. The protocol: argument `get`, the server on standard input, and on standard output
`{"ServerURL": …, "Username": …, "Secret": …}`, or a message and a status other than 0. A helper that is missing,
hangs or prints nonsense does not keep a public image from being read: a warning is logged, and the request goes out
without credentials. Source: docker/docker-credential-helpers, client/client.go. Thread rule: any thread; one run at a
time for one server.
"""

from __future__ import annotations

import json
import logging
import os
import re
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from cachetools import TLRUCache, TTLCache

from regfs.errors import BadConfiguration
from regfs.process.clocks import since_boot_s
from regfs.process.threads import no_process
from regfs.process.waiting.single_flight import Flights
from regfs.registry.credentials.credential import Credential

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_OUTPUT_LIMIT = 64 * 1024
_NOT_FOUND = b"credentials not found in native keychain"
_KEPT_S = 300.0
_NOTHING_KEPT_S = 60.0
# A refusal drops the answer; a registry that refuses everything must not start a program for every request.
_FORGOTTEN_AGAIN_S = 10.0
_POLL_S = 0.2


class _Key(NamedTuple):
    helper: str
    server: str


class CredentialHelpers:
    """Runs helpers, one for all threads that wait for the same answer, and remembers the answers for minutes.

    *environment* is what they run with: PATH finds them. *mountpoint* is this daemon's, where none of them may be.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        mountpoint: Path | None = None,
        timeout_s: float = 20.0,
        clock: Callable[[], float] = since_boot_s,
    ) -> None:
        self._environment = dict(environment)
        self._mountpoint = mountpoint
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._forgotten: TTLCache[str, bool] = TTLCache(1024, _FORGOTTEN_AGAIN_S, timer=clock)
        self._answers: TLRUCache[_Key, Credential | None] = TLRUCache(1024, _expiry, timer=clock)
        self._flights = Flights()
        # Counts what was forgotten: a helper that ran before brings what was good before the login.
        self._generation = 0
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def credential(self, helper: str, *, server: str) -> Credential | None:
        """Return what `docker-credential-`*helper* has for *server*; None if it has nothing, or is broken.

        A remembered answer is returned at once. Otherwise the helper runs for at most timeout_s seconds, and the caller
        waits for as long as its deadline allows (WouldBlock, Interrupted, RegistryTimeout); the helper goes on. Raises
        OutOfThreads if thread or helper could not be started.
        """
        key = _Key(helper, server)
        with self._lock:
            if key in self._answers:
                return self._answers[key]
            generation = self._generation
        flight = "credential helper", helper, server, (generation,)
        return self._flights.run(flight, partial(self._ask_and_keep, key, generation))

    def store(self, helper: str, server: str, username: str, secret: str) -> None:
        """Give *helper* a login to keep; waits for timeout_s at most. Raises BadConfiguration where it is broken."""
        self._tell(helper, "store", json.dumps({"ServerURL": server, "Username": username, "Secret": secret}))

    def erase(self, helper: str, server: str) -> None:
        """Let *helper* forget its login for *server*; there may be none. Waits and raises as store() does."""
        self._tell(helper, "erase", server, may_fail=True)

    def forget(self, server: str) -> None:
        """Ask again for *server* the next time; at most once in some seconds."""
        with self._lock:
            if server in self._forgotten:
                return
            self._forgotten[server] = True
            self._generation += 1
            for key in [key for key in self._answers if key.server == server]:
                del self._answers[key]

    def forget_all(self) -> None:
        """Ask again for every server the next time: the user has logged in or out."""
        with self._lock:
            self._generation += 1
            self._answers.clear()

    def close(self) -> None:
        """Stop the helpers that run: a mount that has ended leaves no process behind."""
        with self._lock:
            self._closed = True
            running = list(self._running)
        for process in running:
            _kill(process)

    def _tell(self, helper: str, verb: str, request: str, *, may_fail: bool = False) -> None:
        name = f"docker-credential-{helper[:100]}"
        try:
            status, _output = self._run([self._program(helper), verb], request.encode())
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise BadConfiguration(f"{name} cannot be used: {error}") from None
        if status != 0 and not may_fail:
            raise BadConfiguration(f"{name} {verb} ended with status {status}")

    def _ask_and_keep(self, key: _Key, generation: int) -> Credential | None:
        """Return what the helper has, None if it is broken. Raises OutOfThreads, which is not remembered."""
        with self._lock:
            if key in self._answers:  # a flight landed between the look at the answers and the start of this one
                return self._answers[key]
        credential: Credential | None = None
        try:
            credential = self._ask(key)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            log.warning(
                "docker-credential-%.100s failed for %s, going on without it: %s", key.helper, key.server, error
            )
        with self._lock:
            if self._generation == generation:
                self._answers[key] = credential
        return credential

    def _ask(self, key: _Key) -> Credential | None:
        """Run the helper. Raises OutOfThreads, OSError and ValueError, with messages that hold nothing it printed."""
        program = self._program(key.helper)
        try:
            status, output = self._run([program, "get"], key.server.encode())
        except OSError as error:
            raise no_process(error, program) or error from error
        if status != 0:
            if _NOT_FOUND in output:
                return None
            raise ValueError(f"it ended with status {status}")
        try:
            answer = json.loads(output.decode("utf-8"))
        except (ValueError, RecursionError):
            raise ValueError("what it printed is not JSON") from None
        username, secret = (answer.get(name) if isinstance(answer, dict) else None for name in ("Username", "Secret"))
        if not isinstance(username, str) or not isinstance(secret, str):
            raise ValueError("what it printed has no Username and Secret")  # noqa: TRY004 - bytes of another program, not a type error
        if not username and not secret:
            return None
        return Credential.made_of(username, secret, source=f"docker-credential-{key.helper}")

    def _run(self, command: list[str], request: bytes) -> tuple[int, bytes]:
        """Return the status and the standard output of *command*, which leads a process group of its own.

        Raises ValueError, with the whole group killed, when it takes longer than it may or prints too much.
        """
        deadline = time.monotonic() + self._timeout_s
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=self._environment,
            start_new_session=True,
        ) as process:
            try:
                with self._lock:
                    self._running.add(process)
                    if self._closed:
                        raise ValueError("the mount ends")
                _give(process, request)
                output = _collect(process, deadline)
                return process.wait(max(0.0, deadline - time.monotonic())), output
            finally:
                _kill(process)
                with self._lock:
                    self._running.discard(process)

    def _program(self, helper: str) -> str:
        if not _NAME.fullmatch(helper):
            raise ValueError("that is not a name of a helper")
        directories = self._environment.get("PATH", os.defpath).split(os.pathsep)
        path = os.pathsep.join(directory for directory in directories if self._is_outside(directory))
        program = shutil.which(f"docker-credential-{helper}", path=path)
        if program is None:
            raise FileNotFoundError("there is no such program in PATH")
        return program

    def _is_outside(self, directory: str) -> bool:
        """Tell whether *directory* may be searched: absolute, and not in this daemon's mount, which would deadlock."""
        path = Path(directory)
        return path.is_absolute() and (self._mountpoint is None or not path.is_relative_to(self._mountpoint))


def _expiry(_key: _Key, credential: Credential | None, now: float) -> float:
    return now + (_NOTHING_KEPT_S if credential is None else _KEPT_S)


def _give(process: subprocess.Popen[bytes], request: bytes) -> None:
    if process.stdin is not None:
        try:
            process.stdin.write(request)
            process.stdin.close()
        except BrokenPipeError:
            pass  # it did not read the question; its answer counts


def _collect(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    """Return what the process prints until it ends, though a child of it may still hold the pipe open."""
    if process.stdout is None:
        return b""
    output = bytearray()
    descriptor = process.stdout.fileno()
    os.set_blocking(descriptor, False)
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise ValueError("it did not answer in time and was stopped")
            ended = process.poll() is not None
            if not selector.select(0 if ended else min(left_s, _POLL_S)):
                if ended:
                    return bytes(output)
                continue
            chunk = os.read(descriptor, _OUTPUT_LIMIT)
            if not chunk:
                return bytes(output)
            output += chunk
            if len(output) > _OUTPUT_LIMIT:
                raise ValueError(f"it printed more than {_OUTPUT_LIMIT} bytes and was stopped")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the process group of *process*, unless it has ended by itself: then its children may go on."""
    if process.poll() is not None:
        return
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has ended by itself
    process.wait()
