"""The fork server: a process that has loaded all modules of the workers, and forks a worker for each job.

    python -m regfs.images.workers.fork_server 3
    descriptor 3     a socket (SOCK_SEQPACKET). The server sends b"ready"; each message to it is a job: JSON,
                     ["module", {argument}, "working directory"], with descriptors: stdin, stdout, stderr, status and,
                     where the argument has "memory", that
    status           a socket, for each job: the server sends the worker's process id with a pidfd, and its exit status
                     (waitpid(2)) when it has ended; or "errno N" where it could not be forked

A forked worker starts in 5 ms; starting Python and loading the readers of archives takes 60 ms. The server has one
thread, opens nothing and has no credentials. It ends with the daemon, and after a minute without a job. Started by
forked_process.py. Source: pidfd_open(2), unix(7).
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import socket
import sys
import traceback
from contextlib import suppress
from typing import Any

from regfs.images.workers.own_process import go_on_at_the_end_of_the_parent

READY = b"ready"
LARGEST_JOB = 1 << 17
"""The most bytes of a job's message: a socket takes so many at once."""

_IDLE_S = 60.0
_DESCRIPTORS = 5
_STREAMS = 3
_MOST_DESCRIPTORS = 1 << 16
# Modules to load while a worker of this module runs, for the next jobs.
_NEXT = {"regfs.images.workers.ingest_main": "regfs.images.workers.merge_main"}


class _Server:
    def __init__(self, jobs: socket.socket) -> None:
        self._jobs = jobs
        self._poll = select.poll()
        self._poll.register(jobs, select.POLLIN)
        self._workers: dict[int, tuple[int, socket.socket]] = {}
        self._next = ""

    def run(self) -> None:
        """Fork workers until the daemon ends or no job has come for a minute."""
        while True:
            events = self._poll.poll(0 if self._next else _IDLE_S * 1000)
            for fd, _ in events:
                if fd != self._jobs.fileno():
                    self._tell_end(fd)
                elif not self._take_job(0):
                    return
            if events:
                continue
            if self._next:
                self._load(self._next)
                self._next = ""
            elif not self._workers:
                self._jobs.shutdown(socket.SHUT_RD)  # no further job can arrive, and none is lost
                if not self._take_job(socket.MSG_DONTWAIT):
                    return

    def _load(self, module: str) -> None:
        """Load *module*, so that all later workers have it."""
        if module in sys.modules:
            return
        with suppress(Exception):  # the worker that needs it will report the reason
            importlib.import_module(module)
        gc.freeze()  # or a garbage collection in a worker would copy all pages

    def _take_job(self, flags: int) -> bool:
        """Take the next job and fork its worker; return whether there was one."""
        message, fds, _, _ = socket.recv_fds(self._jobs, LARGEST_JOB, _DESCRIPTORS, flags)
        if not message:
            return False
        module, argument, directory = json.loads(message)
        self._load(module)
        following = _NEXT.get(module, "")
        self._next = "" if following in sys.modules else following
        status = socket.socket(fileno=fds.pop(_STREAMS))
        try:
            process = os.fork()
        except OSError as error:
            with suppress(OSError):
                status.send(b"errno %d" % (error.errno or 0))
            status.close()
        else:
            if not process:
                _work(module, argument, directory, fds)
            self._watch(process, status)
        for fd in fds:
            os.close(fd)
        return True

    def _watch(self, process: int, status: socket.socket) -> None:
        pidfd = os.pidfd_open(process)
        self._workers[pidfd] = process, status
        self._poll.register(pidfd, select.POLLIN)
        with suppress(OSError):  # the daemon has ended
            socket.send_fds(status, [b"%d" % process], [pidfd])

    def _tell_end(self, pidfd: int) -> None:
        process, status = self._workers.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _, code = os.waitpid(process, 0)
        with suppress(OSError):
            status.send(b"%d" % code)
        status.close()


def _work(module: str, argument: dict[str, Any], directory: str, fds: list[int]) -> None:
    """Do a job in the forked process, and exit."""
    code = 1
    try:
        os.setsid()  # Ctrl-C is for the daemon; a worker ends with its input
        for stream, fd in enumerate(fds[:_STREAMS]):
            os.dup2(fd, stream)
        kept = _STREAMS
        if len(fds) > _STREAMS:
            argument["memory"] = os.dup2(fds[_STREAMS], kept)
            kept += 1
        os.closerange(kept, _MOST_DESCRIPTORS)  # descriptors of the server and of other workers
        with suppress(OSError):
            os.chdir(directory)
        code = importlib.import_module(module).main(argument)
    except BaseException:  # any error: this process must never return into the server's loop
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def serve(jobs: socket.socket) -> None:
    """Fork a worker for each job; return when the daemon has ended, or after a minute without a job."""
    os.close(os.pidfd_open(os.getpid()))  # fails where the kernel has no pidfds
    go_on_at_the_end_of_the_parent()
    with jobs:
        jobs.send(READY)
        _Server(jobs).run()


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
