"""The daemon's life: mounting, signals, dead mounts, logs. No registry is needed for any of it, and none is asked."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regfs import __version__
from tests.conftest import MountRegfs
from tests.support.mounted import (
    REPOSITORY_ROOT,
    Mounted,
    as_user,
    environment_for,
    mountinfo,
    mounts_at,
    processes_naming,
    regfs_command,
    wait_for_exit,
)
from tests.support.restart_load import await_holder, kill_daemon

DRIVERS = ["kernel", "fusepy"]


class Foreground:
    """`regfs -f`, started as a service manager would."""

    def __init__(self, directory: Path, *options: str, environment: dict[str, str] | None = None) -> None:
        self.path = directory / "fg"
        self.path.mkdir()
        command = [*regfs_command(), "-f", "--offline", "--cache-dir", str(directory / "cache"), *options]
        self.process = subprocess.Popen(
            [*command, str(self.path)],
            env=environment_for(directory, environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline()

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and what was written to stderr."""
        _, log = self.process.communicate(timeout=100)
        return self.process.returncode, log


@pytest.fixture
def foreground(needs_fuse: None, tmp_path: Path) -> Iterator[Callable[..., Foreground]]:
    """Return a function that starts regfs in the foreground."""
    started: list[Foreground] = []

    def start(*options: str, environment: dict[str, str] | None = None) -> Foreground:
        started.append(Foreground(tmp_path, *options, environment=environment))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.communicate()
        while mounts_at(each.path):
            subprocess.run(["umount", "-l", str(each.path)], check=True)


@pytest.fixture(params=DRIVERS)
def mounted(request: pytest.FixtureRequest, mount_regfs: MountRegfs) -> Mounted:
    """An offline mount by each driver."""
    return mount_regfs("--offline", "--driver", request.param)


def test_a_mount_answers_when_the_command_comes_back(mounted: Mounted) -> None:
    assert (mounted.path / ".regfs/version").read_text() == f"regfs {__version__}\n"
    assert mounts_at(mounted.path) == ["fuse.regfs"]


def test_a_successful_start_prints_one_line(mount_regfs: MountRegfs, tmp_path: Path) -> None:
    mount = Mounted(tmp_path, options=["--offline"])
    try:
        assert mount.mount() == f"docker.io is mounted at {mount.path}\n"
    finally:
        mount.unmount()


def test_no_request_is_sent_at_mount_time(mount_regfs: MountRegfs) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        mounted = mount_regfs("--default-registry", f"127.0.0.1:{server.getsockname()[1]}")
        assert (mounted.path / ".regfs/version").read_text()
        server.settimeout(0)
        while True:
            try:
                connection, _ = server.accept()
            except BlockingIOError:
                break
            with connection:  # that there is a registry was tried, and no more
                connection.settimeout(60)
                assert connection.recv(1) == b""


def start(mount: Mounted) -> subprocess.CompletedProcess[str]:
    try:
        return mount.run(*mount.command)
    finally:
        mount.unmount()


@pytest.mark.timing
def test_a_registry_that_is_not_there_is_told_at_mount_and_in_errors(mount_regfs: MountRegfs, tmp_path: Path) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # keeps the port from others, and refuses connections
        address = f"127.0.0.1:{unheard.getsockname()[1]}"
        mount = Mounted(tmp_path, options=["--default-registry", address])
        done = mount.run(*mount.command)
        try:
            assert done.stdout == f"{address} is mounted at {mount.path}\n"
            assert done.stderr == f"regfs: note: {address} does not answer: Connection refused\n"
            wait_until(lambda: "Connection refused" in mount.errors())
        finally:
            mount.unmount()


def test_a_name_that_cannot_be_resolved_is_told_at_mount(tmp_path: Path, needs_fuse: None) -> None:
    assert (
        "regfs: note: no-such-host.invalid does not answer: its name cannot be resolved"
        in start(Mounted(tmp_path, options=["--default-registry", "no-such-host.invalid"])).stderr
    )


def test_a_registry_that_takes_no_connection_holds_up_no_mount(tmp_path: Path, needs_fuse: None) -> None:
    with socket.socket() as deaf, contextlib.ExitStack() as waiting:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(3):  # its queue is full: the next one hears nothing
            waiting.enter_context(socket.socket()).setblocking(False)
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(deaf.getsockname())
        done = start(Mounted(tmp_path, options=["--default-registry", f"127.0.0.1:{deaf.getsockname()[1]}"]))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_proxy_is_not_judged_by_what_is_behind_it(tmp_path: Path, needs_fuse: None) -> None:
    environment = {"https_proxy": "http://127.0.0.1:9"}
    options = ["--default-registry", "no-such-host.invalid"]
    assert start(Mounted(tmp_path, options=options, environment=environment)).stderr == ""


def test_a_quiet_start_says_nothing(tmp_path: Path, needs_fuse: None) -> None:
    mount = Mounted(tmp_path, options=["-q", "--default-registry", "no-such-host.invalid"])
    (mount.path / "hidden").touch()
    done = start(mount)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a mount namespace")
def test_without_a_syslog_the_log_is_in_the_cache_and_that_is_said_once(tmp_path: Path, needs_fuse: None) -> None:
    mount = Mounted(tmp_path, options=["--offline"])
    mount.command[mount.command.index("--log-file") : mount.command.index("--log-file") + 2] = []
    without_syslog = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs dev /dev && mknod -m 666 /dev/fuse c 10 229 &&'
                      'mknod -m 666 /dev/null c 1 3 && "$@" && "$@" 2>&1 | grep -v "already a mount"; regfs=$1;'
                      'umount "$0"', str(mount.path)]  # fmt: skip
    twice = mount.run(*without_syslog, *mount.command, check=False)
    assert twice.stdout == f"docker.io is mounted at {mount.path}\n"
    assert twice.stderr == f"regfs: note: there is no syslog here: the log is in {mount.cache}/regfs.log\n"
    wait_until(lambda: "unmounted, the end" in (mount.cache / "regfs.log").read_text())


def test_a_live_mount_is_not_mounted_over(mounted: Mounted) -> None:
    done = mounted.run(*mounted.command, check=False)
    assert (done.returncode, mounts_at(mounted.path)) == (1, ["fuse.regfs"])
    assert f"{mounted.path} is already a mount (fuse.regfs, docker.io)" in done.stderr


def test_a_dead_mount_of_a_crashed_daemon_is_replaced(mounted: Mounted) -> None:
    mounted.die()
    done = mounted.run(*mounted.command)
    assert done.stderr == f"regfs: removed the dead mount that a crashed regfs left on {mounted.path}\n"
    assert (mounted.path / ".regfs/version").read_text()
    assert mounts_at(mounted.path) == ["fuse.regfs"]


def test_umount_takes_a_dead_mount_away(mounted: Mounted) -> None:
    mounted.die()
    mounted.run(*regfs_command(), "umount", mounted.path)
    assert mounts_at(mounted.path) == []


def test_a_directory_with_something_in_it_is_mounted_on_with_a_note(mount_regfs: MountRegfs, tmp_path: Path) -> None:
    mount = Mounted(tmp_path, options=["--offline"])
    (mount.path / ".hidden").touch()
    done = mount.run(*mount.command)
    try:
        assert "is not empty" in done.stderr
        assert not (mount.path / ".hidden").exists()
    finally:
        mount.unmount()


def test_umount_of_a_busy_mount_names_who_holds_it(mounted: Mounted) -> None:
    with subprocess.Popen(["sleep", "60"], cwd=mounted.path) as holder:
        try:
            done = mounted.run(*regfs_command(), "umount", mounted.path, check=False)
        finally:
            holder.kill()
    assert done.returncode == 1
    assert f"in use by sleep (pid {holder.pid}, working directory)" in done.stderr
    assert f"regfs umount --lazy {mounted.path}" in done.stderr


def test_a_lazy_umount_leaves_who_is_inside_in_peace(mounted: Mounted) -> None:
    pids = mounted.processes()
    inside = os.open(mounted.path / ".regfs", os.O_RDONLY)
    try:
        mounted.run(*regfs_command(), "umount", "--lazy", mounted.path)
        assert mounts_at(mounted.path) == []
        assert "version" in os.listdir(inside)
    finally:
        os.close(inside)
    assert wait_for_exit(pids) == []


def stopped(mount: Mounted) -> list[int]:
    """Let the daemon of *mount* hang, and return its processes."""
    pids = mount.processes()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: all(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T" for pid in pids))
    assert pids
    return pids


def test_umount_by_force_lets_processes_go_that_a_hanging_daemon_holds(mounted: Mounted) -> None:
    pids = stopped(mounted)
    try:
        with subprocess.Popen(["stat", str(mounted.path / "library")], stderr=subprocess.PIPE) as inside:
            done = mounted.run(*regfs_command(), "umount", "--force", mounted.path, check=False)
            inside.communicate(timeout=60)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    assert (done.returncode, done.stdout) == (0, f"docker.io is no longer mounted on {mounted.path}\n")
    assert (mounts_at(mounted.path), inside.returncode) == ([], 1)
    assert wait_for_exit(pids) == []


def test_an_ordinary_user_ends_a_mount_that_hangs_too(ordinary_user: int | None, mount_regfs: MountRegfs) -> None:
    """The control file system of FUSE is not mounted everywhere, and umount2(2) is for root."""
    mount = mount_regfs("--offline", uid=ordinary_user)
    pids = stopped(mount)
    try:
        command = [*as_user(ordinary_user), "stat", str(mount.path / "library")]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as inside:
            done = mount.run(*regfs_command(), "umount", "--force", mount.path, check=False)
            _, said = inside.communicate(timeout=60)
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    assert (done.returncode, mounts_at(mount.path), inside.returncode) == (0, [], 1), said
    assert wait_for_exit(pids) == []


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unmounts_and_ends_with_zero(
    foreground: Callable[..., Foreground], number: signal.Signals, driver: str
) -> None:
    regfs = foreground("--driver", driver)
    assert regfs.said == f"docker.io is mounted at {regfs.path}\n"
    regfs.process.send_signal(number)
    assert regfs.end()[0] == 0
    assert mounts_at(regfs.path) == []


@pytest.mark.parametrize("driver", DRIVERS)
def test_unmounting_from_outside_is_a_clean_end(foreground: Callable[..., Foreground], driver: str) -> None:
    regfs = foreground("--driver", driver)
    subprocess.run([*regfs_command(), "umount", str(regfs.path)], cwd=REPOSITORY_ROOT, check=True, capture_output=True)
    assert regfs.end()[0] == 0


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_signal_while_somebody_is_inside_serves_him_to_the_end(
    foreground: Callable[..., Foreground], driver: str
) -> None:
    regfs = foreground("--driver", driver)
    inside = os.open(regfs.path / ".regfs", os.O_RDONLY)
    regfs.process.send_signal(signal.SIGTERM)
    wait_until(lambda: mounts_at(regfs.path) == [])
    assert "version" in os.listdir(inside)
    os.close(inside)
    assert regfs.end()[0] == 0


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_second_signal_ends_at_once(foreground: Callable[..., Foreground], driver: str) -> None:
    regfs = foreground("--driver", driver)
    inside = os.open(regfs.path / ".regfs", os.O_RDONLY)
    try:
        regfs.process.send_signal(signal.SIGTERM)
        wait_until(lambda: mounts_at(regfs.path) == [])
        regfs.process.send_signal(signal.SIGTERM)
        assert regfs.end()[0] == 0
    finally:
        os.close(inside)


def test_a_log_on_the_journal_has_priorities(foreground: Callable[..., Foreground], tmp_path: Path) -> None:
    regfs = foreground()
    regfs.process.terminate()
    assert "INFO regfs.daemon.serve: unmounted, the end" in regfs.end()[1]


def test_usr1_writes_counters_and_stacks_into_the_log(mounted: Mounted) -> None:
    pid = mounted.daemon
    os.kill(pid, signal.SIGUSR1)
    for told in ("counters:", "thread MainThread:"):
        wait_until(lambda told=told: told in mounted.log.read_text())  # type: ignore[misc]


def test_a_log_file_that_was_moved_away_is_begun_anew(mounted: Mounted) -> None:
    pid = mounted.daemon
    mounted.log.rename(mounted.log.with_suffix(".1"))
    os.kill(pid, signal.SIGUSR1)
    wait_until(lambda: mounted.log.exists() and "counters:" in mounted.log.read_text())


def test_a_log_file_that_cannot_be_written_is_told(tmp_path: Path, needs_fuse: None) -> None:
    mount = Mounted(tmp_path, options=["--offline", "--log-file", str(tmp_path / "no/log")])
    done = mount.run(*mount.command, check=False)
    assert (done.returncode, mounts_at(mount.path)) == (1, [])
    assert f"the log file {tmp_path}/no/log cannot be written: No such file or directory" in done.stderr


def test_a_cache_directory_that_cannot_be_used_costs_a_note(tmp_path: Path, needs_fuse: None) -> None:
    (tmp_path / "file").touch()
    mount = Mounted(tmp_path, options=["--offline", "--cache-dir", str(tmp_path / "file/cache")])
    done = mount.run(*mount.command)
    try:
        assert f"the cache directory {tmp_path}/file/cache cannot be used (Not a directory)" in done.stderr
        assert (mount.path / ".regfs/version").read_text()
    finally:
        mount.unmount()


def test_a_temporary_cache_outlives_a_killed_daemon_and_is_removed_at_the_end(tmp_path: Path, needs_fuse: None) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "tmp").mkdir()
    options = ["--offline", "--cache-dir", str(tmp_path / "file/cache")]
    mount = Mounted(tmp_path, options=options, environment={"TMPDIR": str(tmp_path / "tmp")})
    with mount:
        (cache,) = (tmp_path / "tmp").iterdir()
        await_holder(mount.path)
        for _ in range(2):
            kill_daemon(mount.path)
            assert list((tmp_path / "tmp").iterdir()) == [cache]
        mount.run(*mount.regfs, "restart", mount.path)
        mount.die()
        mount.run(*mount.regfs, "umount", mount.path)
        mount.mount()
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mount(8) is for root")
def test_mount_and_fstab_call_regfs_through_mount_fuse(tmp_path: Path, needs_fuse: None) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "mnt").mkdir()
    program = tmp_path / "bin/regfs"
    program.write_text(f'#!/bin/sh\nexport PYTHONPATH={REPOSITORY_ROOT}\nexec {" ".join(regfs_command())} "$@"\n')
    program.chmod(0o755)
    environment = environment_for(tmp_path)
    words = f"ro,nosuid,nodev,_netdev,nofail,x-systemd.automount,offline,cache_dir={tmp_path}/cache"
    command = ["mount", "-t", "fuse", f"{program}#ghcr.io", str(tmp_path / "mnt"), "-o", words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if "mount.fuse" in done.stderr:
        pytest.skip("mount.fuse is not installed")
    assert done.returncode == 0, done.stderr
    pids = processes_naming(str(tmp_path / "mnt"))
    try:
        (line,) = [line for line in mountinfo() if f" {tmp_path}/mnt " in line]
        assert {"ro", "nosuid", "nodev"} <= set(line.split()[5].split(","))
        assert line.partition(" - ")[2].split()[:2] == ["fuse.regfs", "ghcr.io"]
    finally:
        subprocess.run(["umount", str(tmp_path / "mnt")], check=True)
    assert wait_for_exit(pids) == []


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until *holds* says so; another process brings it about, without telling us."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, "it has not come about within 60 s"
        time.sleep(0.01)
