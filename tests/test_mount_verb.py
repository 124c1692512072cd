"""`regfs mount`: an image on a directory, served by the kernel without a daemon, and what a killed one leaves."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.erofs import needs_erofs
from tests.support.fault_server import FaultServer
from tests.support.hello import MESSAGE, hello_program, host_architecture
from tests.support.images import device, directory, file, image_of, layer, symlink, whiteout
from tests.support.lazy_layers import estargz
from tests.support.memory_registry import MemoryRegistry
from tests.support.mounted import as_user, environment_for, mounts_at, regfs_command, run_regfs
from tests.support.snapshot import differences, snapshot

LAYERS = (
    layer(directory(".", mode=0o751), file("hello", hello_program(), mode=0o4755), file("etc/a", b"below\n")),
    layer(file("etc/b", b"above\n"), whiteout("etc/a"), symlink("etc/c", "b"), device("null", 1, 3, mode=0o666)),
)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    """A registry with demo/app:1, an image of two layers."""
    application = MemoryRegistry()
    image = image_of(*LAYERS, architecture=host_architecture())
    for content in image.blobs().values():
        application.add_blob("demo/app", content)
    application.add_manifest("demo/app", image.manifest, tag="1", media_type=image.media_type)
    with FaultServer(application) as served:
        yield served


class Machine:
    """Runs regfs with a cache below *directory*, which has the mount point `point`."""

    def __init__(self, server: FaultServer, directory: Path) -> None:
        self.image = f"{server.address}/demo/app:1"
        self.directory = directory
        self.cache = directory / "cache"
        self.point = directory / "point"
        self.point.mkdir()

    def regfs(
        self, *words: str | Path, prefix: tuple[str, ...] = (), program: list[str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        if not prefix and program is None:
            return run_regfs(*words, home=self.directory)
        command = [*prefix, *(program or regfs_command()), *map(str, words)]
        return subprocess.run(
            command, env=environment_for(self.directory), cwd=self.directory, capture_output=True, text=True,
            timeout=100, check=False,
        )  # fmt: skip

    def mount(self, *options: str | Path, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        return self.regfs("mount", "--cache-dir", self.cache, *options, self.image, self.point, prefix=prefix)

    def mounted(self, *options: str | Path) -> None:
        done = self.mount(*options)
        assert done.returncode == 0, done.stderr

    def umount(self) -> None:
        done = self.regfs("umount", self.point)
        assert done.returncode == 0, done.stderr
        assert mounts_at(self.point) == []

    def remove(self) -> subprocess.CompletedProcess[str]:
        """Evict the image from the cache."""
        return self.regfs("cache", "rm", "--cache-dir", self.cache, self.image)

    def erofs(self) -> Path:
        (path,) = self.cache.glob("images/*.erofs")
        return path


@pytest.fixture
def machine(server: FaultServer, tmp_path: Path) -> Iterator[Machine]:
    made = Machine(server, tmp_path)
    yield made
    while mounts_at(made.point):
        subprocess.run(["umount", "-l", made.point], check=True)


pytestmark = needs_erofs


def test_an_image_is_mounted_and_no_process_serves_it(machine: Machine) -> None:
    done = machine.mount()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{machine.image}@sha256:")
    assert mounts_at(machine.point) == ["erofs"]
    assert sorted(os.listdir(machine.point / "etc")) == ["b", "c"]
    assert subprocess.run(["chroot", machine.point, "/hello"], capture_output=True, check=True).stdout == MESSAGE
    flags = subprocess.run(
        ["findmnt", "-no", "OPTIONS", machine.point], capture_output=True, text=True, check=True
    ).stdout.split(",")
    assert {"ro", "nosuid", "nodev"} <= set(flags)
    with pytest.raises(PermissionError):
        (machine.point / "null").open("rb")
    machine.umount()
    assert list(machine.cache.glob("passes/*")) == []


def test_what_is_mounted_is_what_unpack_writes(machine: Machine) -> None:
    machine.mounted()
    done = machine.regfs("unpack", "--cache-dir", machine.cache, machine.image, "unpacked")
    assert done.returncode == 0, done.stderr
    assert differences(snapshot(machine.point), snapshot(machine.directory / "unpacked")) == []


def test_all_of_an_image_in_estargz_is_fetched_before_it_is_mounted(tmp_path: Path) -> None:
    content = os.urandom(5_000_000)
    image = image_of(estargz(directory("d"), file("d/big", content)), architecture=host_architecture())
    application = MemoryRegistry()
    for blob in image.blobs().values():
        application.add_blob("demo/app", blob)
    application.add_manifest("demo/app", image.manifest, tag="1", media_type=image.media_type)
    with FaultServer(application) as server:
        machine = Machine(server, tmp_path)
        machine.mounted()
    try:
        assert (machine.point / "d/big").read_bytes() == content
    finally:
        machine.umount()


def test_root_may_let_set_id_bits_and_devices_work(machine: Machine) -> None:
    machine.mounted("--allow-dev", "--allow-suid")
    assert (machine.point / "null").open("rb").read() == b""
    found = subprocess.run(["findmnt", "-no", "OPTIONS", machine.point], capture_output=True, text=True, check=True)
    assert "nosuid" not in found.stdout


def test_a_known_image_is_mounted_without_its_registry_and_its_file_is_written_once(
    machine: Machine, server: FaultServer
) -> None:
    machine.mounted()
    before = machine.erofs().stat().st_ino
    machine.umount()
    server.stop()
    machine.mounted("--offline")
    assert machine.erofs().stat().st_ino == before


def test_status_shows_it_beside_other_mounts(machine: Machine) -> None:
    machine.mounted()
    found = json.loads(machine.regfs("status", "--json", machine.point).stdout)
    assert [(each["mountpoint"], each["state"], each["driver"]) for each in found] == [
        (str(machine.point), "alive", "erofs")
    ]
    assert found[0]["source"].startswith(machine.image)
    assert "read-only" in machine.regfs("status", machine.point / "etc").stdout


def test_a_busy_mount_names_the_process_and_can_be_detached(machine: Machine) -> None:
    machine.mounted()
    with subprocess.Popen(["sleep", "100"], cwd=machine.point / "etc") as inside:
        done = machine.regfs("umount", machine.point)
        assert (done.returncode, f"sleep (pid {inside.pid}" in done.stderr) == (1, True), done.stderr
        assert machine.regfs("umount", "--lazy", machine.point).returncode == 0
        assert mounts_at(machine.point) == []
        assert "in use" in machine.remove().stdout  # the kernel still holds the files for that process
        inside.kill()
    assert machine.remove().returncode == 0


def test_a_second_mount_on_the_same_directory_is_refused(machine: Machine) -> None:
    machine.mounted()
    assert "is already a mount" in machine.mount().stderr
    assert mounts_at(machine.point) == ["erofs"]


@pytest.mark.parametrize("options", [(), ("--writable",)])
def test_the_cache_keeps_what_is_mounted_until_it_is_unmounted_by_whatever_means(
    machine: Machine, options: tuple[str, ...]
) -> None:
    machine.mounted(*options)
    assert "in use" in machine.remove().stdout
    subprocess.run(["umount", machine.point], check=True)
    assert machine.remove().returncode == 0
    assert list(machine.cache.glob("images/*")) + list(machine.cache.glob("layers/*")) == []


def test_a_cache_deleted_below_a_mount_does_it_no_harm(machine: Machine) -> None:
    machine.mounted()
    subprocess.run(["rm", "-r", machine.cache], check=True)
    assert (machine.point / "etc/b").read_bytes() == b"above\n"


def test_what_is_written_in_memory_goes_with_the_mount(machine: Machine) -> None:
    machine.mounted("--writable")
    root = machine.point.stat()
    assert (root.st_mode & 0o7777, machine.point.stat().st_mtime_ns) == (0o751, root.st_mtime_ns)
    (machine.point / "etc/new").write_text("new")
    (machine.point / "etc/b").write_text("changed")
    machine.umount()
    machine.mounted("--writable")
    assert sorted(os.listdir(machine.point / "etc")) == ["b", "c"]
    assert (machine.point / "etc/b").read_bytes() == b"above\n"


def test_what_is_written_to_a_directory_is_there_again(machine: Machine) -> None:
    machine.mounted("--writable=kept")
    (machine.point / "etc/new").write_text("new")
    (machine.point / "etc/b").unlink()
    machine.umount()
    machine.mounted(f"--writable={machine.directory}/kept")
    assert sorted(os.listdir(machine.point / "etc")) == ["c", "new"]


def test_a_damaged_image_file_is_written_again(machine: Machine) -> None:
    machine.mounted()
    machine.umount()
    sound = machine.erofs().read_bytes()
    for damaged in (b"", sound[:700], b"\0" * len(sound), sound[:-1] + b"x"):
        machine.erofs().write_bytes(damaged)
        verified = machine.regfs("cache", "verify", "--cache-dir", machine.cache)
        assert ".erofs: damaged" in verified.stdout
        machine.mounted()
        assert (machine.point / "etc/b").read_bytes() == b"above\n"
        machine.umount()
        assert machine.erofs().read_bytes() == sound


def test_verify_finds_no_fault_with_a_sound_image(machine: Machine) -> None:
    machine.mounted()
    assert machine.regfs("cache", "verify", "--cache-dir", machine.cache).returncode == 0


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
    for path in (machine.cache, machine.erofs(), next(machine.cache.glob("layers/*.tar"))):
        mode = path.stat().st_mode
        path.chmod(mode | 0o020)
        done = machine.mount()
        assert (done.returncode, "others than root may write" in done.stderr) == (1, True), (path, done.stderr)
        path.chmod(mode)
        os.chown(path, 65534, 0)
        assert "belongs to uid 65534" in machine.mount().stderr, path
        os.chown(path, 0, 0)
    assert mounts_at(machine.point) == []


def test_where_the_kernel_cannot_it_says_why(machine: Machine, server: FaultServer) -> None:
    done = machine.mount(prefix=("setpriv", "--bounding-set=-sys_admin"))
    assert (done.returncode, "CAP_SYS_ADMIN is missing" in done.stderr) == (1, True), done.stderr
    assert "--fuse mounts it by FUSE" in done.stderr
    assert server.paths() == []


def test_fuse_shows_the_same_files_and_the_daemon_below_a_name_that_no_listing_has(machine: Machine) -> None:
    machine.mounted("--fuse")
    assert mounts_at(machine.point) == ["fuse.regfs"]
    done = machine.regfs("unpack", "--cache-dir", machine.cache, machine.image, "unpacked")
    assert done.returncode == 0, done.stderr
    assert differences(snapshot(machine.point), snapshot(machine.directory / "unpacked")) == []
    assert (machine.point / ".regfs/version").read_text().startswith("regfs ")
    assert ".regfs" not in os.listdir(machine.point)
    shown, above = machine.point.stat().st_ino, (machine.point / "etc/..").stat().st_ino
    assert shown == above
    found = json.loads(machine.regfs("status", "--json", machine.point).stdout)
    assert [(each["source"], each["state"], each["driver"]) for each in found] == [(machine.image, "alive", "kernel")]
    machine.umount()


def test_an_image_that_is_not_there_is_told_before_anything_is_mounted(machine: Machine) -> None:
    for options in (("--fuse",), ()):
        done = machine.regfs("mount", "--cache-dir", machine.cache, *options, f"{machine.image}x", machine.point)
        assert (done.returncode != 0, "1x" in done.stderr) == (True, True), done.stderr
        assert mounts_at(machine.point) == []


def test_an_ordinary_user_and_a_user_namespace_get_the_image_by_fuse(server: FaultServer) -> None:
    with tempfile.TemporaryDirectory(prefix="regfs-tests-") as made:
        machine = Machine(server, Path(made))
        for path in (machine.directory, machine.point):
            os.chown(path, 65534, 65534)
        user = tuple(as_user(65534))
        done = machine.mount(prefix=user)
        try:
            assert done.returncode == 0, done.stderr
            assert mounts_at(machine.point) == ["fuse.regfs"]
            read = subprocess.run([*user, "cat", machine.point / "etc/b"], capture_output=True, check=True)
            assert read.stdout == b"above\n"
        finally:
            machine.regfs("umount", machine.point, prefix=user)
        assert mounts_at(machine.point) == []
        script = f"{shlex.join(regfs_command())} mount -q --cache-dir {made}/other {machine.image} {machine.point}"
        script += f"; cat {machine.point}/etc/b; {shlex.join(regfs_command())} umount {machine.point}"
        done = machine.regfs("-c", script, prefix=(*user, "unshare", "-Urm"), program=["sh"])
        assert "above\n" in done.stdout, done.stderr


# In each, the process kills itself in the place of this call.
STEPS = (
    "regfs.export.erofs.cached.write_image",
    "regfs.export.erofs.cached.load_sums",
    "regfs.export.erofs.mounting.make_mount",
    "regfs.export.erofs.mounting._overlay",
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


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_any_step_leaves_no_mount_and_nothing_in_use(machine: Machine, step: str) -> None:
    killed = machine.regfs(
        step, "mount", "--writable", "--cache-dir", machine.cache, machine.image, machine.point,
        program=[sys.executable, "-c", _KILLED],
    )  # fmt: skip
    assert killed.returncode == -9, killed.stderr
    assert mounts_at(machine.point) == []
    machine.mounted()
    assert (machine.point / "etc/b").read_bytes() == b"above\n"
    machine.umount()
    assert machine.remove().returncode == 0
    assert list(machine.cache.glob("images/*")) + list(machine.cache.glob("images/.*")) == []
    assert list(machine.cache.glob("layers/*")) == []
    assert list(machine.cache.glob("passes/*")) == []
