"""What `regfs status` tells of mounts, alive, dead or none."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from regfs import __version__
from regfs.model.platform import host_platform
from regfs.model.units import in_units
from regfs.mount.daemon_answers import Answer, ask
from regfs.mount.kernel import abi
from regfs.mount.kernel.mount import mount
from regfs.mount.kernel.negotiation import negotiate
from regfs.mount.mountpoint import mounts
from regfs.mount.options import MountOptions
from regfs.verbs.progress import in_words
from regfs.verbs.status import Status
from tests.conftest import MountRegfs
from tests.support.mounted import (
    REPOSITORY_ROOT,
    Mounted,
    alone_with,
    is_holder,
    regfs_command,
    run_regfs,
    wait_for_exit,
)
from tests.support.restart_load import await_holder

KILLED = "was killed by SIGSEGV before it took over"
FETCHING = {"origin": "ghcr.io/owner/app", "digest": "sha256:" + "ab" * 32, "size": 4 << 20, "received": 1 << 20}


@pytest.fixture
def mounted(mount_regfs: MountRegfs) -> Mounted:
    return mount_regfs("--offline")


def test_a_live_mount_tells_its_version_and_source(mounted: Mounted) -> None:
    done = mounted.run(*regfs_command(), "status", mounted.path)
    assert done.stdout.splitlines()[0] == f"{mounted.path}: docker.io, alive, regfs {__version__}"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a mount namespace")
def test_without_an_argument_all_mounts_are_shown(mounted: Mounted) -> None:
    done = mounted.run(*alone_with(mounted), *regfs_command(), "status")
    assert done.stdout.startswith(f"{mounted.path}: docker.io, alive")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a mount namespace")
def test_a_bind_mount_of_a_part_of_a_mount_is_no_broken_mount(mounted: Mounted, tmp_path: Path) -> None:
    """`regfs status` once ended with 1, "it has no .regfs/version", as soon as a rootfs was bound somewhere."""
    part, again = tmp_path / "part", tmp_path / "again"
    for bound in (part, again):
        bound.mkdir()
    bind = f"mount --bind {mounted.path}/library {part}; mount --bind {mounted.path} {again}; "
    regfs = " ".join(regfs_command())
    for command in ("status", f"status {part}"):
        done = mounted.run(*alone_with(mounted), "sh", "-c", f"{bind}exec {regfs} {command}")
        heads = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
        assert heads == [f"{mounted.path}: docker.io, alive, regfs {__version__}"], command
    done = mounted.run(*alone_with(mounted), "sh", "-c", f"{bind}exec {regfs} refresh")
    assert done.stdout == f"{mounted.path}: tags and listings will be asked for again\n"
    hidden = f"{bind}umount --lazy {again}; umount --lazy {mounted.path}; exec {regfs} status {part}"
    done = mounted.run(*alone_with(mounted), "sh", "-c", hidden, check=False)
    assert (done.returncode, f"{part} shows a part of a regfs" in done.stderr) == (1, True)


def test_programs_get_json(mounted: Mounted) -> None:
    (told,) = json.loads(mounted.run(*regfs_command(), "status", "--format", "json", mounted.path).stdout)
    assert (told["mountpoint"], told["state"], told["fetching"]) == (str(mounted.path), "alive", [])
    assert isinstance(told["counters"], dict)


def test_a_dead_mount_is_told_as_dead(mounted: Mounted) -> None:
    mounted.die()
    done = mounted.run(*regfs_command(), "status", mounted.path, check=False)
    assert (done.returncode, done.stdout) == (
        1,
        f"{mounted.path}: docker.io, dead, regfs umount removes it; the log says how its daemon ended\n",
    )


def test_a_mount_whose_daemons_end_again_and_again_tells_why(mount_regfs: MountRegfs, tmp_path: Path) -> None:
    """`regfs status` said no more than "does not answer"."""
    shim = tmp_path / "shim"
    shim.mkdir()
    mount = mount_regfs("--offline", environment={"PYTHONPATH": f"{shim}:{REPOSITORY_ROOT}"}, preloaded_runs=False)
    await_holder(mount.path)
    (shim / "cachetools.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    (holder,) = filter(is_holder, mount.processes())
    os.kill(mount.daemon, signal.SIGKILL)
    end = time.monotonic() + 60
    while "2 in a row" not in mount.log.read_text():
        assert time.monotonic() < end
        time.sleep(0.02)
    os.kill(holder, signal.SIGSTOP)
    done = run_regfs("status", mount.path, home=mount.home)
    mount.clean_up()
    told = rf"does not answer, of its daemons \d+ in a row have ended at once: the next daemon \(pid \d+\) {KILLED}"
    assert re.search(told, done.stdout)


def test_what_is_no_mount_is_told(mounted: Mounted) -> None:
    done = mounted.run(*regfs_command(), "status", mounted.home, check=False)
    assert (done.returncode, done.stderr) == (1, f"regfs: no regfs is mounted on {mounted.home}\n")


def test_a_path_in_a_mount_means_the_mount(mounted: Mounted) -> None:
    (mounted.home / "link").symlink_to(mounted.path / "library")
    for path in (mounted.path / "library/no/such", mounted.home / "link"):
        assert mounted.run(*regfs_command(), "status", path).stdout.startswith(f"{mounted.path}: docker.io, alive")


def test_a_mount_tells_its_process_uptime_driver_platform_cache_and_log(mounted: Mounted) -> None:
    (told,) = json.loads(mounted.run(*regfs_command(), "status", "--json", mounted.path).stdout)
    assert told["pid"] in mounted.processes()
    assert 0 <= told["uptime_s"] < 600
    assert (told["driver"], told["platform"], told["log"]) == ("kernel", str(host_platform()), str(mounted.log))
    assert told["cache"]["path"] == str(mounted.cache)
    assert 0 <= told["cache"]["used_bytes"] < told["cache"]["limit_bytes"]
    text = mounted.run(*regfs_command(), "status", mounted.path).stdout
    assert re.search(rf"\n  pid {told['pid']}, up [0-9]+ (s|min|min [0-9]+ s), driver kernel, platform linux/", text)
    assert re.search(
        rf"\n  cache: {mounted.cache}, [0-9.]+ [KMG]?i?B of [0-9.]+ [MG]iB, [0-9.]+ [MG]iB of the disk stay free\n",
        text,
    )
    assert f"\n  log: {mounted.log}\n" in text


def test_counters_are_shown_before_they_count_anything(mounted: Mounted) -> None:
    (told,) = json.loads(mounted.run(*regfs_command(), "status", "--json", mounted.path).stdout)
    assert (told["counters"]["registry.requests"], told["counters"]["bugs"]) == (0, 0)
    assert mounted.run(*regfs_command(), "status", mounted.path).stdout.endswith("\n  failures: 0\n")


def stopped(mount: Mounted) -> list[int]:
    pids = mount.processes()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    return pids


def test_status_of_daemons_that_hang_takes_no_longer_than_of_one(mount_regfs: MountRegfs, tmp_path: Path) -> None:
    """Once the daemon has taken a request, no signal ends the process that reads: `regfs status` hung as long as it."""
    three = [mount_regfs("--offline") for _ in range(3)]
    hung = [hanging_mount(tmp_path / f"hangs{number}") for number in range(4)]
    pids = stopped(three[0])
    paths = [str(mount.path) for mount in three] + [str(path) for path, _ in hung]
    try:
        begun = time.monotonic()
        done = three[1].run(*regfs_command(), "status", *paths, check=False)
        took_s = time.monotonic() - begun
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        for path, descriptor in hung:
            subprocess.run(["umount", "-l", "-f", str(path)], check=True)
            os.close(descriptor)
    states = [line.partition(": ")[2] for line in done.stdout.splitlines() if not line.startswith(" ")]
    late = "does not answer, regfs umount --force ends it"
    alive = f"docker.io, alive, regfs {__version__}"
    assert (done.returncode, states) == (1, [f"docker.io, {late}", alive, alive, *[f"hangs, {late}"] * 4])
    assert took_s < 5 * 4  # five seconds for each that hangs would be 25


def test_asking_a_daemon_that_hangs_every_minute_leaves_one_process_behind(needs_fuse: None, tmp_path: Path) -> None:
    path, descriptor = hanging_mount(tmp_path / "hangs")
    (hanging,) = (entry for entry in mounts() if entry.mountpoint == str(path))
    try:
        assert ask([hanging], ("version",), within_s=1.0) == [Answer(is_late=True)]
        left = readers_of(hanging.device)
        assert len(left) == 1
        assert ask([hanging], ("version",), within_s=0.3) == [Answer(is_late=True)]
        assert readers_of(hanging.device) == left
    finally:
        subprocess.run(["umount", "-l", "-f", str(path)], check=True)
        os.close(descriptor)
    assert wait_for_exit([int(pid) for pid in left]) == []
    os.waitpid(int(left[0]), 0)


def test_a_mount_on_one_that_hangs_is_refused_with_the_remedy(mounted: Mounted, tmp_path: Path) -> None:
    path, descriptor = hanging_mount(tmp_path / "hangs")
    try:
        done = mounted.run(*regfs_command(), "--offline", path, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"regfs: {path} is a mount that does not answer (hangs); regfs umount --force {path}\n"
        assert mounted.run(*regfs_command(), "umount", "--force", path).returncode == 0
    finally:
        subprocess.run(["umount", "-l", "-f", str(path)], check=False)
        os.close(descriptor)


def readers_of(device: str) -> list[str]:
    """Return the processes that read from the mount *device*, waiting for the first one to name itself.

    One that has ended does not count: a mount that is gone may have had the same number.
    """
    end = time.monotonic() + 20
    while True:
        found = [pid for pid in os.listdir("/proc") if pid.isdigit() and is_reader(pid, device)]
        if found or time.monotonic() > end:
            return found
        time.sleep(0.01)


def is_reader(pid: str, device: str) -> bool:
    try:
        name, _, fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")
    except OSError:
        return False
    return name.partition("(")[2] == f"regfs?{device}" and fields.split()[0] != "Z"


def hanging_mount(path: Path) -> tuple[Path, int]:
    """Return a mount whose server takes all requests and answers INIT alone, and the descriptor of its connection."""
    path.mkdir()
    descriptor = mount(str(path), MountOptions(source="hangs"))

    def serve() -> None:
        buffer = bytearray(1 << 16)
        while True:
            try:
                size = os.readv(descriptor, [buffer])
            except OSError:
                return
            _, opcode, unique, *_ = abi.IN_HEADER.unpack_from(buffer)
            if opcode == abi.Opcode.INIT:
                answer = negotiate(
                    abi.parse_init(bytes(buffer[40:size])), passthrough=False, checks_permissions=False
                ).answer
                os.write(descriptor, abi.OUT_HEADER.pack(16 + len(answer), 0, unique) + answer)

    threading.Thread(target=serve, daemon=True).start()
    return path, descriptor


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_a_mount_of_another_user_is_no_failure(
    ordinary_user: int | None, mount_regfs: MountRegfs, mounted: Mounted
) -> None:
    """Monitoring runs as one user; mounts that are closed to it were told as failures."""
    theirs = mount_regfs("--offline", uid=ordinary_user)
    done = mounted.run(*regfs_command(), "status", theirs.path)
    assert (done.returncode, done.stdout) == (0, f"{theirs.path}: docker.io, of another user\n")
    as_them = theirs.run(*regfs_command(), "status", mounted.path)
    assert (as_them.returncode, as_them.stdout) == (0, f"{mounted.path}: docker.io, of another user\n")


def test_what_is_being_fetched_is_shown_with_its_size() -> None:
    status = Status("/mnt/reg", "docker.io", "alive", "", "regfs 1", {}, {"registry.bytes": 1 << 30}, [FETCHING])
    assert list(status.lines()) == [
        "/mnt/reg: docker.io, alive, regfs 1",
        "  requests to registries: 0",
        "  bytes from registries: 1.0 GiB",
        "  layers unpacked: 0",
        "  failures: 0",
        "  ghcr.io/owner/app sha256:abababababab: 1.0 MiB of 4.0 MiB",
    ]


def test_failures_and_bugs_say_where_their_reasons_are() -> None:
    status = Status("/mnt/reg", "docker.io", "alive", counters={"errors": 6, "bugs": 1})
    assert list(status.lines())[-2:] == [
        "  failures: 6 (see /mnt/reg/.regfs/errors)",
        "  bugs: 1 (see /mnt/reg/.regfs/errors)",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.9, "59 s"), (61, "1 min 1 s"), (3600, "1 h"), (90061, "1 d 1 h")]
)
def test_times_are_shown_for_people(seconds: float, text: str) -> None:
    assert in_words(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (500 << 20, "500 MiB"), (1 << 60, "1048576 TiB")],
)
def test_sizes_are_shown_for_people(size: int, text: str) -> None:
    assert in_units(size) == text
