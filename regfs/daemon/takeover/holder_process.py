"""The holder: a small process that keeps a mount alive while daemons come and go.

    python -I -S holder_process.py CONNECTION STATE CONTROL PID LOG POINT
    CONNECTION   the descriptor of /dev/fuse. As long as it is open here the mount lives, and requests wait
    STATE        the memory that daemons leave to each other (mount/kernel/kept/state_file.py)
    CONTROL      a socket (SOCK_SEQPACKET) to the daemon PID, which serves now
    LOG          where the holder's messages go: a file, or '' for syslog
    POINT        the mount point, for messages and for `ps`

    daemon ends by itself     the next one is started at once. After two that ended within a quarter of a second the
                              holder waits first: 0.1 s, 0.2 s … 10 s. After 10 in a row it gives up and ends, and so
                              does the mount: "Transport endpoint is not connected" until it is unmounted. While none
                              serves, one that ends before it has taken over counts as one that ended at once. Each end
                              and its reason, and the giving up, go to the log
    SIGRTMIN                  `regfs restart`: the next daemon is started, and takes over when it is ready. One that is
                              not ready within 60 s is killed, and the old one goes on; an old one that has not ended
                              40 s after "hand over" is killed
    the state says ENDED      unmounted, or ended by a signal: the holder ends too

    next daemon -> holder     "ready": all is loaded but the state      holder -> next daemon   "go": take over
                              "failed " and why it cannot be loaded
    holder -> daemon          "hand over": end when nothing waits

It sends no request to any mount, and never reads from the connection. It imports nothing of regfs but held_daemon.py,
and that at once: an upgrade may have replaced regfs by the time the next daemon starts. One thread.
"""

from __future__ import annotations

import mmap
import os
import select
import signal
import socket
import struct
import sys
import time

# The package is found where it was when the mount was made, in any working directory.
_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
if __name__ == "__main__":
    sys.path.append(_PACKAGE)

from regfs.daemon.takeover.held_daemon import HeldDaemon  # noqa: E402 (found only now)

_U64 = struct.Struct("<Q")
_HEADER = 4096
_ENDED = 1
_LIFE_AT, _RESTARTS_AT, _CRASHES_AT, _HOLDER_AT, _LOST_AT, _SHORT_LIVES_AT = 16, 24, 72, 80, 88, 104
_LAST_END_AT, _FAILURE_AT, _TEXT = 1 << 10, 2 << 10, (1 << 10) - 8

_SHORT_LIFE_S = 0.25
_MOST_SHORT_LIVES = 10
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.1, 10.0
_START_S = 60.0
_HAND_OVER_S = 40.0
_IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2,
            signal.SIGPIPE)  # fmt: skip
# What cannot be loaded, after an upgrade that broke for example, is told by the socket: no user sees its stderr.
_SUCCESSOR = (
    "import os, sys; sys.path.append({!r}); sys.excepthook = lambda kind, error, _: "
    "os.write(int(sys.argv[3]), f'failed {{kind.__name__}}: {{error}}'.encode('utf-8', 'replace')[:4000]); "
    "from regfs.daemon.takeover.successor import main; main()"
)


def delay_s(short_lives: int) -> float:
    """Return how many seconds to wait before the next start, after so many daemons in a row that ended at once."""
    if short_lives < 2:
        return 0.0
    delay: float = min(_FIRST_DELAY_S * 2 ** (short_lives - 2), _LONGEST_DELAY_S)
    return delay


class _State:
    """The fields of the state that the holder uses."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, _HEADER)

    def number(self, at: int) -> int:
        number: int = _U64.unpack_from(self._memory, at)[0]
        return number

    def write(self, at: int, number: int) -> None:
        _U64.pack_into(self._memory, at, number)

    def add(self, at: int) -> None:
        self.write(at, self.number(at) + 1)

    def say(self, at: int, text: str) -> None:
        said = text.encode("utf-8", "replace")[:_TEXT]
        self.write(at, 0)
        self._memory[at + 8 : at + 8 + len(said)] = said
        self.write(at, len(said))

    def text(self, at: int) -> str:
        length = min(self.number(at), _TEXT)
        return self._memory[at + 8 : at + 8 + length].decode("utf-8", "replace")


class _Holder:
    def __init__(self, connection: int, state: int, daemon: HeldDaemon, log: str, point: str) -> None:
        self._connection = connection
        self._state_descriptor = state
        self._state = _State(state)
        self._log_file = log
        self._point = point
        self._serving: HeldDaemon | None = daemon
        self._next: HeldDaemon | None = None
        self._start_at: float | None = None
        self._must_end_by: float | None = None
        self._short_lives = 0
        self._signals, self._wake = os.pipe()
        for end in (self._signals, self._wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGRTMIN, lambda _number, _frame: None)
        self._state.write(_HOLDER_AT, os.getpid())

    def run(self) -> int:
        """Hold the mount until its end, and return the exit code."""
        while True:
            for descriptor in self._wait():
                if descriptor == self._connection:
                    return self._end(0)  # unmounted, while no daemon was there
                if descriptor == self._signals:
                    os.read(self._signals, 4096)
                    self._start_at = time.monotonic()
                elif self._next is not None and descriptor == self._next.pidfd:
                    self._next_has_ended()
                elif self._next is not None and descriptor == self._next.control.fileno():
                    self._hear()
                elif self._serving is not None and descriptor == self._serving.pidfd:
                    self._serving_has_ended()
                    if self._state.number(_LIFE_AT) == _ENDED:
                        return self._end(0)
            if self._short_lives >= _MOST_SHORT_LIVES:
                self._give_up()
                return self._end(1)
            self._do_what_is_due()

    def _wait(self) -> list[int]:
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        deadlines = [each for each in (self._start_at, self._must_end_by) if each is not None]
        if self._serving is not None:
            poll.register(self._serving.pidfd, select.POLLIN)
        else:
            # Not while a daemon serves: each request would wake this process as well.
            poll.register(self._connection, 0)
        if self._next is not None:
            poll.register(self._next.pidfd, select.POLLIN)
            deadlines.append(self._next.since + _START_S)
            if not self._next.is_ready:
                poll.register(self._next.control, select.POLLIN)
        left_s = min(deadlines, default=None) if deadlines else None
        timeout = None if left_s is None else max(0, int((left_s - time.monotonic()) * 1000) + 1)
        return [descriptor for descriptor, _ in poll.poll(timeout)]

    def _do_what_is_due(self) -> None:
        now = time.monotonic()
        if self._start_at is not None and now >= self._start_at:
            self._start_at = None
            if self._next is None:
                self._start()
        if self._must_end_by is not None and now >= self._must_end_by and self._serving is not None:
            self._serving.kill()
            self._must_end_by = None
        following = self._next
        if following is None:
            return
        if not following.is_ready:
            if now >= following.since + _START_S:
                following.kill()
            return
        if self._serving is None:
            self._state.add(_RESTARTS_AT)
            following.tell(b"go")
            following.since = now
            self._serving, self._next, self._must_end_by = following, None, None
        elif self._must_end_by is None:
            self._must_end_by = now + _HAND_OVER_S
            self._serving.tell(b"hand over")

    def _start(self) -> None:
        """Start the next daemon."""
        self._state.write(_FAILURE_AT, 0)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = os.fork()
        except OSError as error:
            ours.close()
            theirs.close()
            self._failed(f"no process can be started: {error.strerror}")
            return
        if pid == 0:
            _become_daemon(self._connection, self._state_descriptor, theirs.fileno(), self._point)
        theirs.close()
        self._next = HeldDaemon(pid, ours, is_child=True)

    def _hear(self) -> None:
        assert self._next is not None
        try:
            word = self._next.control.recv(4096, socket.MSG_DONTWAIT)
        except OSError:
            word = b""
        if word == b"ready":
            self._next.is_ready = True
        elif word.startswith(b"failed "):
            text = word.removeprefix(b"failed ").decode("utf-8", "replace")
            self._state.say(_FAILURE_AT, f"the next daemon cannot be loaded: {text}")
        elif not word:
            self._next.kill()  # it can say nothing any more

    def _next_has_ended(self) -> None:
        assert self._next is not None
        self._hear()  # its last word may have come with its end
        how = f"the next daemon (pid {self._next.pid}) {self._next.bury()} before it took over"
        self._next = None
        self._failed(how)

    def _failed(self, why: str) -> None:
        if self._state.number(_FAILURE_AT) == 0:  # else the next daemon itself has said why
            self._state.say(_FAILURE_AT, why)
        self._must_end_by = None
        why = self._state.text(_FAILURE_AT)
        if self._serving is not None:
            self._log("WARNING", f"the daemon goes on: {why}")
            return
        self._short_lives += 1
        self._state.write(_SHORT_LIVES_AT, self._short_lives)
        self._start_at = time.monotonic() + delay_s(self._short_lives)
        self._log("WARNING", f"{why}; {self._what_follows()}")

    def _serving_has_ended(self) -> None:
        assert self._serving is not None
        now = time.monotonic()
        was_asked_to = self._must_end_by is not None
        has_lived_s, pid = now - self._serving.since, self._serving.pid
        how = self._serving.bury()
        self._serving = self._must_end_by = None
        if self._state.number(_LIFE_AT) == _ENDED:
            return
        self._state.write(_LOST_AT, int(time.time() * 1000))
        if was_asked_to:
            self._short_lives = 0
            self._state.say(_LAST_END_AT, "has handed over to this one, as asked for")
            return
        self._state.add(_CRASHES_AT)
        self._state.say(_LAST_END_AT, how)
        self._short_lives = self._short_lives + 1 if has_lived_s < _SHORT_LIFE_S else 0
        self._state.write(_SHORT_LIVES_AT, self._short_lives)
        if self._next is None:
            self._start_at = now + delay_s(self._short_lives)
        self._log("WARNING", f"the daemon (pid {pid}) {how}; {self._what_follows()}")

    def _what_follows(self) -> str:
        if self._short_lives >= _MOST_SHORT_LIVES:
            return "no other follows"
        delay = delay_s(self._short_lives)
        in_a_row = f", {self._short_lives} in a row have ended at once" if self._short_lives > 1 else ""
        return f"another one is started{f' in {delay:g} s' if delay else ''}{in_a_row}"

    def _give_up(self) -> None:
        last = self._state.text(_FAILURE_AT) or f"the last daemon {self._state.text(_LAST_END_AT)}"
        self._log(
            "ERROR",
            f"the mount ends, for {self._short_lives} daemons in a row have ended at once: {last}."
            f" When the cause is gone: regfs umount {self._point}, and mount it again",
        )

    def _end(self, code: int) -> int:
        if self._next is not None:
            self._next.kill()
            self._next.bury()
        return code

    def _log(self, level: str, said: str) -> None:
        text = f"{self._point}: {said}"
        try:
            if self._log_file:
                with open(self._log_file, "a", encoding="utf-8", errors="backslashreplace") as file:
                    file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {level} regfs.holder: {text}\n")
            else:
                import syslog

                syslog.openlog("regfs", syslog.LOG_PID, syslog.LOG_DAEMON)
                syslog.syslog(syslog.LOG_ERR if level == "ERROR" else syslog.LOG_WARNING, text)
        except OSError:
            pass


def _become_daemon(connection: int, state: int, control: int, point: str) -> None:
    """Become the next daemon; runs in the child."""
    try:
        os.setsid()
        for number in (*_IGNORED, signal.SIGRTMIN):
            signal.signal(number, signal.SIG_DFL)
        for descriptor in (connection, state, control):
            os.set_inheritable(descriptor, True)
        words = [sys.executable, "-c", _SUCCESSOR.format(_PACKAGE), str(connection), str(state), str(control), point]
        os.execv(sys.executable, words)  # noqa: S606 (no shell is wanted)
    finally:
        os._exit(127)


def main() -> None:
    """Hold the mount that the arguments name."""
    connection, state, control, pid = map(int, sys.argv[1:5])
    log, point = sys.argv[5:7]
    for descriptor in (connection, state, control):
        os.set_inheritable(descriptor, False)
    try:
        with open("/proc/self/comm", "w", encoding="ascii") as name:
            name.write("regfs-holder")
    except OSError:
        pass
    daemon = HeldDaemon(pid, socket.socket(fileno=control), is_child=False)
    sys.exit(_Holder(connection, state, daemon, log, point).run())


if __name__ == "__main__":
    main()
