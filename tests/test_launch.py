"""Going to the background: the parent tells how the start went, whatever becomes of the child."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.mounted import REPOSITORY_ROOT

# Each program forks as the command line does; it runs in a process of its own, because pytest has threads.
PROGRAM = """
import os, signal, sys, threading, time
from regfs.daemon import launch
def serve(report):
{body}
outcome = launch.in_background(serve, log_name="the log", timeout_s={timeout_s})
if outcome.is_child:
    os._exit(outcome.code)
print(outcome.code, outcome.message, flush=True)
"""


def outcome_of(body: str, *, timeout_s: float = 30.0) -> str:
    program = PROGRAM.format(body=textwrap.indent(textwrap.dedent(body), "    "), timeout_s=timeout_s)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY_ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    return done.stdout


def test_the_parent_says_what_the_child_says_when_it_is_ready() -> None:
    assert outcome_of("report.ready('mounted')") == "0 mounted\n"


def test_a_failed_start_gives_its_code_and_reason() -> None:
    assert outcome_of("report.doing('mounting'); report.failed(7, 'no\\ndevice')") == "7 no\ndevice\n"


def test_a_child_that_dies_without_a_word_is_told_with_what_it_was_doing() -> None:
    said = outcome_of("report.doing('mounting on /mnt'); os.kill(os.getpid(), signal.SIGKILL)")
    assert said == "1 regfs died while mounting on /mnt (killed by SIGKILL); the log is in the log\n"


def test_a_start_that_does_not_come_to_an_end_is_ended() -> None:
    said = outcome_of("report.doing('mounting'); threading.Event().wait()", timeout_s=0.2)
    # On a busy machine the child may not have come to say a word.
    assert re.match("1 regfs did not start within 0 s; it was (mounting|starting)[.]", said)


def test_the_child_has_a_session_of_its_own_and_no_terminal() -> None:
    body = """
    is_leader = os.getsid(0) == os.getpid()
    report.ready(f"{is_leader} {os.readlink('/proc/self/fd/0')} {os.getcwd()}")
    """
    assert outcome_of(body) == "0 True /dev/null /\n"


def test_after_the_start_the_child_holds_neither_stdout_nor_stderr() -> None:
    """Whoever reads our output would otherwise wait for the daemon's end: `regfs … | tee log`."""
    body = """
    signal.alarm(600)
    report.ready(str(os.getpid()))
    signal.pause()
    """
    code, pid = outcome_of(body).split()  # which reads to the end of both, and gives up after 100 s
    os.kill(int(pid), signal.SIGKILL)
    assert code == "0"


def test_a_child_whose_parent_is_gone_before_it_is_ready_stops(tmp_path: Path) -> None:
    body = f"""
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: (open({str(tmp_path / "stopped")!r}, "w").close(), os._exit(0)))
    open({str(tmp_path / "began")!r}, "w").write(str(os.getpid()))
    os.kill(os.getppid(), signal.SIGKILL)
    while True:  # pause(2) would miss a signal that comes the moment before it
        stopped.wait(0.05)
    """
    assert outcome_of(body) == ""
    pid = int((tmp_path / "began").read_text())
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        pass
    else:
        import select

        assert select.select([descriptor], [], [], 100)[0]
        os.close(descriptor)
    assert (tmp_path / "stopped").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_main_thread_still_hears_signals_in_the_child(number: signal.Signals) -> None:
    body = f"""
    heard = []
    signal.signal({int(number)}, lambda caught, _: heard.append(caught))
    os.kill(os.getpid(), {int(number)})
    report.ready(str(heard))
    """
    assert outcome_of(body) == f"0 [{int(number)}]\n"
