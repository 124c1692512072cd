"""`regfs mount`: an image on a directory, served by the kernel without a daemon, and by FUSE."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from regfs.export.erofs.cached import scratch_directory
from tests.export.test_erofs_image import EVERYTHING
from tests.support.erofs import needs_erofs
from tests.support.fault_server import FaultServer
from tests.support.hello import MESSAGE, host_architecture
from tests.support.image_mounts import Machine, registry_of
from tests.support.images import BuiltLayer, file, image_of, layer, whiteout
from tests.support.lazy_layers import estargz, zstd_chunked
from tests.support.mounted import as_user, mounts_at, regfs_command
from tests.support.read_only import read_only
from tests.support.snapshot import differences, snapshot
from tests.support.trees import MergedImage

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
    assert list(machine.cache.glob("ingests/*")) == []


def test_what_is_mounted_is_what_unpack_writes(machine: Machine) -> None:
    machine.mounted()
    done = machine.regfs("unpack", "--cache-dir", machine.cache, machine.image, "unpacked")
    assert done.returncode == 0, done.stderr
    assert differences(snapshot(machine.point), snapshot(machine.directory / "unpacked")) == []


@pytest.mark.parametrize("packed", [estargz, zstd_chunked])
def test_all_of_a_lazy_image_is_fetched_before_it_is_mounted(tmp_path: Path, packed: Callable[..., BuiltLayer]) -> None:
    # A table of contents is JSON, with names in text; that of eStargz has times in whole seconds.
    entries = [entry for entry in EVERYTHING if b"\xff" not in entry.name and entry.mtime_ns % 10**9 == 0]
    entries.append(file("d/incompressible", os.urandom(5_000_000)))
    image = image_of(packed(*entries), packed(whiteout("d/block")), architecture=host_architecture())
    with FaultServer(registry_of(image)) as server:
        machine = Machine(server, tmp_path)
        machine.mounted()
    plain = MergedImage(
        tmp_path / "plain", layer(*entries, compression="none"), layer(whiteout("d/block"), compression="none")
    )
    try:
        assert differences(snapshot(machine.point), plain.snapshot()) == []
    finally:
        machine.umount()
        plain.close()


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


def test_the_kernel_reads_further_ahead_in_it_than_by_default(machine: Machine) -> None:
    devices = Path("/sys/class/bdi")
    if not os.access(devices, os.W_OK):
        pytest.skip(f"{devices} cannot be written")
    before = set(devices.glob("erofs-*"))
    machine.mounted()
    made = set(devices.glob("erofs-*")) - before  # other tests mount too
    assert "512\n" in [(device / "read_ahead_kb").read_text() for device in made]


def test_files_that_the_mount_hides_are_told(machine: Machine) -> None:
    (machine.point / "mine").touch()
    done = machine.mount()
    assert (done.returncode, f"{machine.point} is not empty" in done.stderr) == (0, True), done.stderr


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
    machine.insist_on_eviction()


def test_umount_tells_of_another_mount_namespace_that_keeps_the_files_in_the_cache(machine: Machine) -> None:
    machine.mounted()
    with subprocess.Popen(["unshare", "-m", "sh", "-c", "echo; exec sleep 100"], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.read(1)  # its mount namespace is there
        done = machine.regfs("umount", machine.point)
        assert (done.returncode, mounts_at(machine.point)) == (0, []), done.stderr
        told = done.stdout.partition("; other mount namespaces still have it, those of ")[2]
        assert f" (pid {other.pid})" in told  # and of processes of other tests, which have just copied all mounts
        assert told.endswith(": its files stay in the cache until they end\n")
        assert "in use" in machine.remove().stdout
        other.kill()
    machine.insist_on_eviction()


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
    machine.insist_on_eviction()
    assert list(machine.cache.glob("images/*")) + list(machine.cache.glob("layers/*")) == []


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


@pytest.mark.parametrize("name", ["kept", f"a\\b:c,d e/{'long' * 60}"], ids=["plain", "odd and long"])
def test_what_is_written_to_a_directory_is_there_again(machine: Machine, name: str) -> None:
    machine.mounted(f"--writable={name}")
    (machine.point / "etc/new").write_text("new")
    (machine.point / "etc/b").unlink()
    machine.umount()
    machine.mounted(f"--writable={machine.directory}/{name}")
    assert sorted(os.listdir(machine.point / "etc")) == ["c", "new"]


def test_verify_finds_no_fault_with_a_sound_image(machine: Machine) -> None:
    machine.mounted()
    assert machine.regfs("cache", "verify", "--cache-dir", machine.cache).returncode == 0


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


def test_a_mount_by_fuse_that_is_to_be_written_to_is_refused_with_what_can_be(machine: Machine) -> None:
    """An ordinary user read that root alone can have --writable, and not that regfs run is writable for them."""
    done = machine.mount("--fuse", "--writable")
    assert (done.returncode, mounts_at(machine.point)) == (2, [])
    assert "regfs run [--keep DIR] IMAGE can be written to by any user" in done.stderr


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


@pytest.mark.parametrize("has_image", [True, False], ids=["with its EROFS image", "without"])
def test_an_image_in_a_cache_that_can_only_be_read_is_mounted(machine: Machine, has_image: bool) -> None:
    """It was refused, and the message said that the cache could not keep anything."""
    machine.mounted()
    machine.umount()
    for image in machine.cache.glob("images/*.erofs") if not has_image else ():
        image.unlink()
    left = set(scratch_directory().iterdir())
    with read_only(machine.cache):
        for options in ([], ["--writable"]):
            done = machine.mount(*options)
            assert done.returncode == 0, done.stderr
            assert "cannot be written (Read-only file system): it is only read" in done.stderr
            assert subprocess.run(["chroot", machine.point, "/hello"], capture_output=True).stdout == MESSAGE
            machine.umount()
    assert {path.name for path in set(scratch_directory().iterdir()) - left if path.name.startswith("regfs")} == set()


def test_what_a_cache_that_can_only_be_read_lacks_is_told_with_the_remedy(machine: Machine) -> None:
    machine.mounted()
    machine.umount()
    for path in machine.cache.glob("layers/*"):
        path.unlink()
    with read_only(machine.cache):
        done = machine.mount()
    assert done.returncode != 0
    assert f"nothing is fetched, because the cache cannot be written: make {machine.cache} writable" in done.stderr
    assert mounts_at(machine.point) == []
