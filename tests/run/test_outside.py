"""What a program that `regfs run` runs shares with the machine: volumes, network, kept changes, streams, a terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time

from tests.run.runner import PATIENCE_S, Runner
from tests.support.mounted import as_user, regfs_command

_PROMPT = b"# \x1b[6n"  # busybox asks the terminal where its cursor is


def test_volumes_are_there_and_read_only_ones_stay_as_they_are(runner: Runner) -> None:
    (runner.directory / "vol").mkdir(exist_ok=True)
    (runner.directory / "vol").chmod(0o777)
    (runner.directory / "vol/in").write_text("from outside")
    done = runner("-v", "vol:/a/b", "-v", "vol/in:/etc/in:ro", "--", "sh", "-c",
                  "cat /etc/in /a/b/in; echo x > /a/b/out; echo y > /etc/in; :")  # fmt: skip
    assert done.stdout == "from outside" * 2, done.stderr
    assert "Read-only file system" in done.stderr
    assert (runner.directory / "vol/out").read_text() == "x\n"
    (runner.directory / "vol/out").unlink()


def test_without_a_network_there_is_loopback_alone(runner: Runner) -> None:
    done = runner("--network", "none", "--", "ip", "-o", "link")
    assert [line.split(":")[1].strip() for line in done.stdout.splitlines()] == ["lo"], done.stderr
    assert "UP" in done.stdout


def test_changes_are_kept_where_they_are_asked_to_be(runner: Runner) -> None:
    done = runner("--keep", "kept", "--", "sh", "-c", "echo kept > /etc/kept; rm /etc/other")
    assert done.returncode == 0, done.stderr
    assert sorted(runner("--keep", "kept", "--", "ls", "/etc").stdout.split()) == [
        "group", "hosts", "kept", "passwd", "resolv.conf",
    ]  # fmt: skip
    started = runner.start("--keep", "kept", "--", "sh", "-c", "echo ready; exec sleep 1000")
    assert "another regfs run or regfs mount is using it" in runner("--keep", "kept", "--", "ls").stderr
    started.kill()
    started.wait()


def test_standard_input_is_given_only_where_it_is_asked_for(user: Runner) -> None:
    assert user("-i", "--", "cat", given="typed").stdout == "typed"
    assert user("--", "cat", given="typed").stdout == ""


def test_a_terminal_of_its_own_has_a_name_and_passes_keys_on(runner: Runner) -> None:
    ours, theirs = pty.openpty()
    started = subprocess.Popen(
        runner.command("-it", "-e", "PS1=# ", "--", "sh"), env=runner.environment(), cwd=runner.directory,
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    _read_until(ours, _PROMPT)
    os.write(ours, b"tty\n")
    assert b"/dev/pts/0" in _read_until(ours, _PROMPT)
    os.write(ours, b"sh -c 'echo begun; exec sleep 1000'\n")
    _read_until(ours, b"\r\nbegun\r\n")
    os.write(ours, b"\x03")  # Ctrl-C ends the sleep, and not the shell
    _read_until(ours, _PROMPT)
    os.write(ours, b"exit 6\n")
    while _read_some(ours):
        pass
    assert started.wait(PATIENCE_S) == 6
    os.close(ours)


def _read_some(terminal: int) -> bytes:
    if not select.select([terminal], [], [], PATIENCE_S)[0]:
        return b""
    try:
        return os.read(terminal, 4096)
    except OSError:  # no process has the other side open any more
        return b""


def _read_until(terminal: int, awaited: bytes) -> bytes:
    """Return what the program says up to *awaited*, with which it pauses."""
    said, end = b"", time.monotonic() + PATIENCE_S
    while not said.endswith(awaited) and time.monotonic() < end:
        chunk = _read_some(terminal)
        if not chunk:
            break
        said += chunk
    assert said.endswith(awaited), said
    return said


def test_an_overlay_of_ones_own_can_be_written_over_a_mount_with_owner_me(user: Runner) -> None:
    """`cannot create /etc/new: Permission denied`: the image's root has no place in a user namespace of another."""
    point = user.directory / "point"
    script = (
        f"mkdir -p {point} && $regfs mount -q --fuse --owner me $image {point} && "
        f"stat -c %u:%g:%a {point}/etc/other && "
        "unshare -rm sh -c '"
        "mount -t tmpfs t /mnt && mkdir /mnt/upper /mnt/work /mnt/all && "
        f"mount -t overlay -o lowerdir={point},upperdir=/mnt/upper,workdir=/mnt/work,userxattr overlay /mnt/all && "
        "cd /mnt/all && echo new > etc/new && echo 2 >> etc/other && cat etc/new etc/other && rm -r etc && mkdir etc"
        f"'; code=$?; $regfs umount {point} > /dev/null; exit $code"
    )
    script = script.replace("$regfs", " ".join(regfs_command()))
    script = script.replace("$image", f"{user.server.address}/demo/tools")
    done = subprocess.run(
        [*as_user(user.uid), "sh", "-c", script], env=user.environment(), cwd=user.directory, capture_output=True,
        text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    uid = os.getuid() if user.uid is None else user.uid
    first, *lines = done.stdout.split()
    assert lines == ["new", "1", "2"]
    assert first == f"{uid}:{uid}:644"
