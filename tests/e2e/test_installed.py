"""The command as pip installs it, run where the source is not: what a user has.

The other tests run `python -m regfs` and say where this tree is. Here neither the command is told, nor the processes
that it starts for big layers and big images.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import shutil
import site
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import MountRegfs, missing
from tests.e2e.conftest import Demo
from tests.support.hello import MESSAGE, hello_program
from tests.support.images import directory, file, image_of, layer
from tests.support.mounted import REPOSITORY_ROOT, Mounted, as_user, environment_for
from tests.support.push import Pusher

_IMAGE = "installed/big"
_CONTENT = random.Random(7).randbytes(2 << 20)  # does not get smaller: the layer is ingested by a process of its own
_NAMES = 4_200  # so many, and so long, that the tables of the image are merged by a process of its own


@pytest.fixture(scope="session")
def big(demo: Demo) -> None:
    """An image of two layers, the lower of which is big in both ways."""
    many = [file(f"many/{number:0240}") for number in range(_NAMES)]
    base = layer(file("hello", hello_program(), mode=0o755), file("big", _CONTENT), directory("many"), *many)
    Pusher(demo.url).image(_IMAGE, "1", image_of(base, layer(file("top", b"of all\n"))))


@pytest.fixture(scope="session")
def plain_installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """regfs in a virtual environment of its own, which shares the libraries that are installed; without a network.

    The first test process that wants it makes it and writes its place into a file that all of them share. Each holds a
    lock on that file while it uses the installation, and the last one removes it.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with (shared / "installation").open("a+") as place, (shared / "installation.lock").open("a") as changing:
        fcntl.flock(changing, fcntl.LOCK_EX)
        place.seek(0)
        made = Path(place.read() or tempfile.mkdtemp(prefix="regfs-tests-"))
        if not (made / "venv").exists():
            made.chmod(0o755)  # an ordinary user runs it too
            install_plainly(made)
            place.write(str(made))
            place.flush()
        fcntl.flock(place, fcntl.LOCK_SH)
        fcntl.flock(changing, fcntl.LOCK_UN)
        yield made / "venv/bin"
        fcntl.flock(changing, fcntl.LOCK_EX)
        with suppress(BlockingIOError):  # another process uses it
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(made)
            place.truncate(0)


def install_plainly(here: Path) -> None:
    """Install what is in this tree below *here*, in a virtual environment `venv`."""
    source = here / "source"
    source.mkdir()
    shutil.copytree(REPOSITORY_ROOT / "regfs", source / "regfs", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY_ROOT / name, source)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", here / "venv"], check=True, capture_output=True)
    python = here / "venv/bin/python"
    own = subprocess.run(
        [python, "-c", "import site; print(site.getsitepackages()[0])"], check=True, capture_output=True
    )
    # A directory that a .pth file names is searched, but .pth files in it are not read: an editable regfs is not seen.
    Path(own.stdout.decode().strip(), "shared.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    done = subprocess.run([*pip, source], env=environment_for(here), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        missing(f"pip cannot install regfs here: {done.stdout[-1500:]}{done.stderr[-1500:]}")
    shutil.rmtree(source)


@pytest.fixture
def program(plain_installation: Path) -> list[str]:
    """The command of a plain installation."""
    return [str(plain_installation / "regfs")]


@pytest.fixture(scope="session")
def program_here() -> list[str]:
    """The command of the installation that the tests run in: editable, after `make test`."""
    command = Path(sysconfig.get_path("scripts"), "regfs")
    if not command.exists():
        missing("regfs is not installed here (pip install --editable .)")
    return [str(command)]


def assert_shows_the_image(mount: Mounted) -> None:
    """Look at the image by commands, as the user of the mount."""
    rootfs = mount.path / _IMAGE / "1/rootfs"
    assert mount.run("ls", rootfs).stdout.split() == ["big", "hello", "many", "top"]
    assert mount.run("sha256sum", rootfs / "big").stdout.split()[0] == hashlib.sha256(_CONTENT).hexdigest()
    assert mount.run("cat", rootfs / "top").stdout == "of all\n"
    archived = mount.run("sh", "-c", 'tar -C "$1" -cf - . | tar -t | wc -l', "sh", rootfs).stdout
    assert int(archived) == _NAMES + 5


def test_it_mounts_and_shows_a_big_image(
    mount_regfs: MountRegfs, program: list[str], driver: str, demo: Demo, big: None
) -> None:
    mount = mount_regfs("--driver", driver, "--default-registry", demo.address, program=program)
    assert_shows_the_image(mount)
    if os.getuid() == 0:
        assert mount.run("chroot", mount.path / _IMAGE / "1/rootfs", "/hello").stdout.encode() == MESSAGE
    assert mount.errors() == ""


def test_an_editable_installation_finds_itself_in_all_of_its_processes(
    mount_regfs: MountRegfs, program_here: list[str], demo: Demo, big: None
) -> None:
    mount = mount_regfs("--default-registry", demo.address, program=program_here)
    assert_shows_the_image(mount)
    assert mount.errors() == ""


def test_it_unpacks_and_what_it_prefetched_is_there_without_a_network(
    mount_regfs: MountRegfs, program: list[str], demo: Demo, big: None
) -> None:
    mount = mount_regfs("--default-registry", demo.address, "--offline", program=program)
    options = ["--cache-dir", str(mount.cache), "--default-registry", demo.address]
    mount.run(*program, "prefetch", *options, f"{_IMAGE}:1")
    assert_shows_the_image(mount)
    mount.run(*program, "unpack", *options, f"{_IMAGE}:1")
    unpacked = mount.path.parent / "rootfs"
    assert (unpacked / "big").read_bytes() == _CONTENT
    assert len(os.listdir(unpacked / "many")) == _NAMES


def test_nothing_that_lies_in_the_working_directory_is_run(
    tmp_path: Path, program: list[str], demo: Demo, big: None
) -> None:
    """`regfs unpack` runs in any directory, and the files there may be of any origin."""
    for name in ("json.py", "regfs.py", "signal.py", "sitecustomize.py"):
        (tmp_path / name).write_text("raise SystemExit('this was never installed')\n")
    environment = environment_for(tmp_path)
    del environment["PYTHONPATH"]
    command = [*program, "unpack", "--cache-dir", str(tmp_path / "cache"), f"{demo.address}/{_IMAGE}:1"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "rootfs/big").read_bytes() == _CONTENT


@pytest.fixture
def user_of_this_python(ordinary_user: int | None) -> int | None:
    """An ordinary user who may start sys.executable too: setpriv starts it with root's rights."""
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"
    if subprocess.run([*as_user(ordinary_user), sys.executable, "-c", program], cwd="/", check=False).returncode != 0:
        pytest.skip(f"an ordinary user cannot run {sys.executable}: it lies below a directory that is closed to others")
    return ordinary_user


def test_an_ordinary_user_runs_it(
    mount_regfs: MountRegfs, user_of_this_python: int | None, program: list[str], demo: Demo, big: None
) -> None:
    mount = mount_regfs("--default-registry", demo.address, program=program, uid=user_of_this_python)
    assert_shows_the_image(mount)
