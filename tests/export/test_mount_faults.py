"""`regfs mount` where files are damaged, the kernel cannot or may not mount, and where it is killed."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from regfs.export.erofs.image import VOLUME
from regfs.store.files.boot_id import boot_id
from regfs.store.files.checksums import format_sums, load_sums
from tests.e2e.conftest import becomes
from tests.support.erofs import needs_erofs
from tests.support.fault_server import Action, Connection, FaultServer
from tests.support.hello import MESSAGE
from tests.support.image_mounts import LAYERS, Machine
from tests.support.mounted import environment_for, mounts_at, regfs_command

pytestmark = needs_erofs


def test_a_cache_deleted_below_a_mount_does_it_no_harm(machine: Machine) -> None:
    machine.mounted()
    subprocess.run(["rm", "-r", machine.cache], check=True)
    assert (machine.point / "etc/b").read_bytes() == b"above\n"


def deleted_meanwhile(cache: Path) -> Action:
    """Delete *cache* in the middle of the answer, once the layer's ingest has a directory in it."""

    def act(connection: Connection) -> bool:
        response = connection.right()
        half = len(response.body) // 2
        connection.send(response.head() + response.body[:half])
        becomes(lambda: any(path.is_dir() for path in cache.glob("ingests/*")), True)
        shutil.rmtree(cache)
        connection.send(response.body[half:])
        return True

    return act


@pytest.mark.parametrize("words", [("mount",), ("run", "--fuse")], ids=" ".join)
def test_a_cache_deleted_during_a_fetch_is_filled_again(
    machine: Machine, server: FaultServer, words: tuple[str, ...]
) -> None:
    """regfs: …/ingests/…/index: No such file or directory."""
    server.on("GET", str(LAYERS[0].digest), deleted_meanwhile(machine.cache), times=1)
    target = machine.point if words == ("mount",) else "/hello"
    done = machine.regfs(*words, "--cache-dir", machine.cache, machine.image, target)
    assert done.returncode == 0, done.stderr
    assert len(server.paths(str(LAYERS[0].digest))) >= 2
    if words == ("mount",):
        assert (machine.point / "etc/b").read_bytes() == b"above\n"
    else:
        assert done.stdout.encode() == MESSAGE


@pytest.mark.parametrize(("verb", "number"), [("mount", signal.SIGINT), ("run", signal.SIGTERM)])
def test_a_signal_during_a_fetch_leaves_nothing_of_the_layer_behind(
    machine: Machine, server: FaultServer, verb: str, number: signal.Signals
) -> None:
    def half(connection: Connection) -> bool:
        response = connection.right()
        connection.send(response.head() + response.body[: len(response.body) // 2])
        return not connection.stopped.wait(100)

    server.on("GET", str(LAYERS[0].digest), half)
    target = machine.point if verb == "mount" else "/hello"
    words = [*regfs_command(), verb, "--cache-dir", machine.cache, machine.image, target]
    with subprocess.Popen(words, env=environment_for(machine.directory)) as started:
        becomes(lambda: any(path.is_dir() for path in machine.cache.glob("ingests/*")), True)
        started.send_signal(number)
        assert started.wait(100) == 128 + number
    becomes(lambda: [path for kind in ("ingests", "locks") for path in machine.cache.glob(f"{kind}/*")], [])
    assert mounts_at(machine.point) == []


def test_a_damaged_image_file_is_written_again(machine: Machine) -> None:
    machine.mounted()
    machine.umount()
    sound = machine.erofs().read_bytes()
    for damaged in (sound[:700], sound[:-1] + b"x"):  # torn; and as long as it was
        machine.erofs().write_bytes(damaged)
        machine.mounted()
        assert (machine.point / "etc/b").read_bytes() == b"above\n"
        machine.umount()
        assert machine.erofs().read_bytes() == sound
    machine.erofs().write_bytes(b"")
    assert ".erofs: damaged" in machine.regfs("cache", "verify", "--cache-dir", machine.cache).stdout


def test_an_image_file_that_a_power_cut_has_torn_is_written_again(machine: Machine) -> None:
    for _ in range(2):
        machine.mounted()
        machine.umount()
    path, mark = machine.erofs(), "user.regfs.sound"
    sound, times = path.read_bytes(), path.stat()
    path.write_bytes(sound[:2048] + bytes(len(sound) - 2048))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    boot, _, rest = os.getxattr(path, mark).partition(b" ")
    assert boot.decode() == boot_id()
    os.setxattr(path, mark, b"the-boot-before " + rest)
    machine.mounted()
    assert machine.erofs().read_bytes() == sound


def test_an_image_file_of_another_release_is_written_again(machine: Machine) -> None:
    machine.mounted()
    machine.umount()
    path, sums = machine.erofs(), machine.erofs().with_suffix(".sums")
    sound = path.read_bytes()
    other = sound.replace(VOLUME, b"another", 1)
    path.write_bytes(other)
    sums.write_bytes(format_sums(load_sums(sums) | {f"images/{path.name}": hashlib.sha256(other).hexdigest()}))
    machine.mounted()
    assert machine.erofs().read_bytes() == sound


@pytest.mark.parametrize("damage", [lambda path: os.truncate(path, 512), lambda path: path.unlink()])
def test_a_data_file_that_is_short_or_gone_is_fetched_again(machine: Machine, damage: object) -> None:
    machine.mounted()
    machine.umount()
    for path in machine.cache.glob("layers/*.tar"):
        damage(path)  # type: ignore[operator]
    machine.mounted()
    assert (machine.point / "etc/b").read_bytes() == b"above\n"
    assert subprocess.run(["chroot", machine.point, "/hello"], capture_output=True, check=True).stdout == MESSAGE


def test_a_cache_that_others_may_write_is_refused(machine: Machine) -> None:
    machine.mounted()
    machine.umount()
    mode = machine.cache.stat().st_mode
    machine.cache.chmod(mode | 0o020)
    done = machine.mount()
    assert (done.returncode, f"others than root may write {machine.cache} (mode 0720)" in done.stderr) == (1, True), (
        done
    )
    assert "--fuse mounts it by FUSE" in done.stderr
    machine.cache.chmod(mode)
    for path in (machine.erofs(), next(machine.cache.glob("layers/*.tar"))):
        os.chown(path, 65534, 0)
        done = machine.mount()
        assert (done.returncode, f"{path} belongs to uid 65534" in done.stderr) == (1, True), done.stderr
        assert "--fuse mounts it by FUSE" in done.stderr
        os.chown(path, 0, 0)
    assert mounts_at(machine.point) == []


def test_where_the_kernel_cannot_it_says_why(machine: Machine, server: FaultServer) -> None:
    done = machine.mount(prefix=("setpriv", "--bounding-set=-sys_admin"))
    assert (done.returncode, "CAP_SYS_ADMIN is missing" in done.stderr) == (1, True), done.stderr
    assert "--fuse mounts it by FUSE" in done.stderr
    assert server.paths() == []


def test_an_older_kernel_is_told_from_one_that_can(machine: Machine, server: FaultServer) -> None:
    done = machine.mount(prefix=("setarch", "--uname-2.6"))
    assert (done.returncode, "this is Linux 2.6." in done.stderr) == (1, True), done.stderr
    assert "EROFS on files needs Linux 6.12 or newer" in done.stderr
    assert "--fuse mounts it by FUSE" in done.stderr
    assert server.paths() == []


def test_what_the_kernel_says_against_a_mount_is_passed_on(machine: Machine) -> None:
    done = machine.mount("--writable=/proc/sys")
    assert done.returncode == 1, done.stderr
    assert f"cannot mount on {machine.point}: " in done.stderr
    assert "--fuse" not in done.stderr  # it could not be written to either
    assert mounts_at(machine.point) == []


def test_a_directory_of_changes_that_is_in_use_is_not_given_to_a_second_overlay(machine: Machine) -> None:
    machine.mounted("--writable=kept")
    other = machine.directory / "other"
    other.mkdir()
    for words in (
        ("mount", "--writable=kept", machine.image, other),
        ("run", "--keep", "kept", machine.image, "/hello"),
    ):
        done = machine.regfs(words[0], "--cache-dir", machine.cache, *words[1:])
        assert done.returncode in (1, 125), done.stderr
        assert f"{machine.directory}/kept: an overlay that is mounted has its changes there" in done.stderr
    assert mounts_at(other) == []
    machine.umount()
    machine.mounted("--writable=kept")


def test_an_image_that_is_not_there_is_told_before_anything_is_mounted(machine: Machine) -> None:
    for options in (("--fuse",), ()):
        done = machine.regfs("mount", "--cache-dir", machine.cache, *options, f"{machine.image}x", machine.point)
        assert (done.returncode != 0, "1x" in done.stderr) == (True, True), done.stderr
        assert mounts_at(machine.point) == []


# In each, the process kills itself in the place of this call.
STEPS = (
    "regfs.export.erofs.cached.write_image",
    "regfs.export.erofs.cached.load_sums",
    "regfs.export.erofs.mounting.make_mount",
    "regfs.export.erofs.mounting._overlay",
    "regfs.export.erofs.mounting.overlay_options",
    "regfs.export.erofs.mounting.attach",
)
_KILLED = """
import os, sys
from importlib import import_module
module, _, name = sys.argv.pop(1).rpartition(".")
setattr(import_module(module), name, lambda *_, **__: os.kill(os.getpid(), 9))
from regfs.cli.main import main
main()
"""


def test_a_kill_at_any_step_leaves_no_mount_and_nothing_in_use(machine: Machine) -> None:
    for step in STEPS:
        killed = machine.regfs(
            step, "mount", "--writable", "--cache-dir", machine.cache, machine.image, machine.point,
            program=[sys.executable, "-c", _KILLED],
        )  # fmt: skip
        assert killed.returncode == -9, (step, killed.stderr)
        assert mounts_at(machine.point) == [], step
    (machine.cache / "locks/layer-of-a-process-that-was-killed-when-it-had-the-layer").touch()
    machine.mounted()
    assert (machine.point / "etc/b").read_bytes() == b"above\n"
    machine.umount()
    machine.insist_on_eviction()
    assert list(machine.cache.glob("images/*")) + list(machine.cache.glob("images/.*")) == []
    assert [path for kind in ("layers", "ingests", "locks") for path in machine.cache.glob(f"{kind}/*")] == []
