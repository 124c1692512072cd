"""`regfs setup` puts what shells, man(1), systemd and mount(8) look for into place; `--undo` takes that away alone."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from regfs.cli.main import run as run_regfs
from regfs.errors import InvalidOption, NotFound, RegfsError
from regfs.mount import mount_api
from regfs.mount.device import open_device
from regfs.verbs.setup_files import Programs, Texts, wanted_files
from tests.conftest import missing
from tests.support.mounted import as_user, environment_for, regfs_command

PACKAGED = {
    "usr/sbin/mount.regfs",
    "usr/share/bash-completion/completions/regfs",
    "usr/share/zsh/site-functions/_regfs",
    "usr/share/fish/vendor_completions.d/regfs.fish",
    "usr/share/man/man1/regfs.1",
    "usr/share/man/man8/mount.regfs.8",
    "usr/lib/systemd/system/regfs@.service",
    "usr/lib/systemd/user/regfs@.service",
    "usr/share/doc/regfs/examples/fstab",
    "usr/share/doc/regfs/examples/mnt-reg.mount",
    "usr/share/doc/regfs/examples/mnt-reg.automount",
    "usr/share/regfs/setup.json",
}


@pytest.fixture
def ordinary_user_directory() -> Iterator[Path]:
    """A directory that user 65534 may write to; pytest's own are closed to other users."""
    with tempfile.TemporaryDirectory(prefix="regfs-tests-") as made:
        os.chmod(made, 0o777)
        yield Path(made)


@contextmanager
def unanswered_mount(mountpoint: Path) -> Iterator[None]:
    """A FUSE mount on *mountpoint* whose connection is open, and which nothing serves."""
    connection = open_device()
    words = {"source": "regfs", "fd": str(connection), "rootmode": f"{stat.S_IFDIR:o}", "user_id": "0", "group_id": "0"}
    mount = mount_api.make_mount("fuse", words.items(), attributes=0)
    try:
        mount_api.attach(mount, str(mountpoint))
        yield
    finally:
        os.close(connection)  # ends all that waits
        os.close(mount)
        subprocess.run(["umount", "--lazy", mountpoint], check=False)


def setup(root: Path, *more: str) -> int:
    return run_regfs(["setup", "--root", str(root), "--prefix", "/usr", *more], os.environ)


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_symlink() or path.is_file()}


def test_setup_names_each_file_that_it_puts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert setup(tmp_path / "root") == 0
    assert files(tmp_path / "root") == PACKAGED
    told = {line.removeprefix(f"put {tmp_path}/root/") for line in capsys.readouterr().out.splitlines()}
    assert told == PACKAGED - {"usr/share/regfs/setup.json"}


def test_the_programs_are_those_that_will_be_below_the_prefix(tmp_path: Path) -> None:
    setup(tmp_path)
    assert os.readlink(tmp_path / "usr/sbin/mount.regfs") == "/usr/bin/mount.regfs"
    assert "\nExecStart=/usr/bin/regfs " in (tmp_path / "usr/lib/systemd/system/regfs@.service").read_text()


def test_undo_leaves_what_was_there_before(tmp_path: Path) -> None:
    theirs = tmp_path / "usr/share/man/man1/other.1"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    (tmp_path / "usr/share/fish").mkdir()
    assert (setup(tmp_path), setup(tmp_path), setup(tmp_path, "--undo")) == (0, 0, 0)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert left == {
        "usr",
        "usr/share",
        "usr/share/fish",
        "usr/share/man",
        "usr/share/man/man1",
        "usr/share/man/man1/other.1",
    }
    with pytest.raises(NotFound, match="--prefix"):
        setup(tmp_path, "--undo")


def test_a_file_that_its_user_has_changed_is_neither_written_over_nor_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup(tmp_path)
    unit = tmp_path / "usr/lib/systemd/system/regfs@.service"
    unit.write_text("changed")
    helper = tmp_path / "usr/sbin/mount.regfs"
    helper.unlink()
    helper.write_text("another program")
    assert setup(tmp_path) == 1
    assert setup(tmp_path, "--undo") == 1
    assert files(tmp_path) == {"usr/lib/systemd/system/regfs@.service", "usr/sbin/mount.regfs"}
    assert (unit.read_text(), helper.read_text()) == ("changed", "another program")
    assert capsys.readouterr().err.count(f"{unit} stays as it is") == 2


def test_what_an_earlier_version_has_put_is_replaced(tmp_path: Path) -> None:
    setup(tmp_path)
    record, page = tmp_path / "usr/share/regfs/setup.json", tmp_path / "usr/share/man/man1/regfs.1"
    new = page.read_text()
    old = tmp_path / "usr/share/man/man1/old.1"
    text = record.read_text()
    shutil.copy(page, old)
    entry = next(line for line in text.splitlines() if "/usr/share/man/man1/regfs.1" in line)
    record.write_text(text.replace(entry, f"{entry}\n{entry.replace('regfs.1', 'old.1')}"))
    assert setup(tmp_path) == 0
    assert page.read_text() == new
    assert not old.exists()


def test_an_ordinary_user_gets_a_unit_and_no_helper_of_mount(tmp_path: Path) -> None:
    texts = Texts({"bash": "", "fish": "", "zsh": ""}, "")
    programs = Programs(Path("/home/a user/100%/regfs"), Path("/home/a user/100%/mount.regfs"))
    wanted = {
        file.path: file
        for file in wanted_files(Path("/home/a user/.local"), programs, texts, helper=None, for_system=False)
    }
    unit = wanted[Path("/home/a user/.local/share/systemd/user/regfs@.service")].text
    assert 'ExecStart="/home/a user/100%%/regfs" --foreground %h%f\n' in unit
    assert not any(path.name == "mount.regfs" for path in wanted)
    with pytest.raises(InvalidOption, match="line break"):
        wanted_files(Path("/x"), Programs(Path("/a\nb"), Path("/a\nb")), texts, helper=None, for_system=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="ordinary users put no helper of mount(8)")
def test_root_with_a_prefix_of_its_own_leaves_the_helper_of_mount_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`regfs setup --prefix DIR` by root wrote /sbin/mount.regfs too."""
    before = os.path.lexists("/sbin/mount.regfs") and os.lstat("/sbin/mount.regfs")
    assert run_regfs(["setup", "--prefix", str(tmp_path / "own")], os.environ) == 0
    told = capsys.readouterr()
    assert "sbin" not in told.out
    assert f"{tmp_path}/own/lib/systemd/system/regfs@.service" in told.out
    assert "ln -s" in told.err
    assert (os.path.lexists("/sbin/mount.regfs") and os.lstat("/sbin/mount.regfs")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_a_unit_starts_again_on_its_mount_that_nothing_answers_yet(needs_fuse: None, tmp_path: Path) -> None:
    """After a crash systemd keeps the mount, and `mkdir -p` of the mount point waited for the daemon to come."""
    assert setup(tmp_path) == 0
    unit = (tmp_path / "usr/lib/systemd/system/regfs@.service").read_text()
    (line,) = (line for line in unit.splitlines() if line.startswith("ExecStartPre="))
    words = shlex.split(line.removeprefix("ExecStartPre=-"))
    mountpoint = tmp_path / "above" / "mnt"
    command = [word.replace("$$", "$").replace("%%", "%").replace("%f", str(mountpoint)) for word in words]
    subprocess.run(command, timeout=60, check=True)
    assert mountpoint.is_dir()
    with unanswered_mount(mountpoint), subprocess.Popen(command) as again:
        try:
            again.wait(20)
        finally:
            again.kill()


def test_an_ordinary_user_whose_path_has_not_the_programs_is_told(ordinary_user_directory: Path) -> None:
    """After `make install` below ~/.local, `regfs` was a command that the shell did not find, without a word."""
    command = [
        *as_user(65534 if os.geteuid() == 0 else None),
        *regfs_command(),
        "setup",
        "--prefix",
        str(ordinary_user_directory / "prefix"),
    ]
    told = [
        subprocess.run(
            command,
            env=environment_for(ordinary_user_directory, {"PATH": path}),
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        for path in (os.defpath, f"{Path(sys.executable).parent}/:{os.defpath}")
    ]
    assert f'export PATH="{Path(sys.executable).parent}:$PATH"' in told[0]
    assert "export PATH" not in told[1]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "usr").write_text("a file")
    with pytest.raises(RegfsError, match=f"{tmp_path}/usr.*: Not a directory"):
        setup(tmp_path)


def test_man_finds_the_page_under_both_names(tmp_path: Path) -> None:
    if shutil.which("man") is None:
        missing("man is not installed (apt-get install man-db)")
    setup(tmp_path)
    environment = {**os.environ, "MANPAGER": "cat"}
    for name in ("regfs", "mount.regfs"):
        command = ["man", "-M", str(tmp_path / "usr/share/man"), name]
        page = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert "show OCI and Docker registries as directories" in page.stdout
