"""What people type first, at a mount of docker-registry: what is there, what is not, pasted references."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import MountRegfs
from tests.e2e.conftest import Demo, becomes, needs_root
from tests.support.mounted import Mounted
from tests.support.proxy import ReverseProxy

MISSING = ["libary", "demo/nope", "demo/real/v3", "library/nonexist-repo", "whatever/repo", "demo/real:v3", "real:v2"]


def shell(command: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command], cwd=directory, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.parametrize("path", MISSING)
def test_scripts_see_that_a_name_is_not_there(reg: Path, path: str) -> None:
    assert shell(f"[ -e {path} ]", reg).returncode == 1
    assert "No such file or directory" in shell(f"cd {path}", reg).stderr
    assert "No such file or directory" in shell(f"find {path}", reg).stderr


@pytest.mark.parametrize("path", ["library", "demo", "demo/real", "demo/real/v2", "demo/deeper/still", "demo/real:v2"])
def test_scripts_see_that_a_name_is_there(reg: Path, path: str) -> None:
    assert shell(f"[ -d {path} ] && cd {path}", reg).returncode == 0


@pytest.mark.parametrize("path", ["new", "demo/new", "demo/real/new"])
def test_a_new_directory_is_refused_since_the_mount_is_read_only(reg: Path, path: str) -> None:
    with pytest.raises(OSError, match="Read-only") as failed:
        os.mkdir(reg / path)
    assert failed.value.errno == errno.EROFS
    with pytest.raises(FileExistsError):
        os.mkdir(reg / "demo")
    assert "Read-only file system" in shell("mv library l2", reg).stderr


def test_git_in_the_root_asks_no_registry(mount_regfs: MountRegfs, proxy: ReverseProxy, driver: str) -> None:
    mount = mount_regfs("--default-registry", proxy.address, "--driver", driver)
    shell("git rev-parse HEAD; cat README.md Makefile package.json; ls .Trash-0 lost+found", mount.path)
    assert proxy.seen == []
    assert mount.errors() == ""


def test_a_long_listing_of_repositories_asks_for_none_of_them(
    mount_regfs: MountRegfs, proxy: ReverseProxy, driver: str
) -> None:
    mount = mount_regfs("--default-registry", proxy.address, "--driver", driver)
    subprocess.run(["ls", "-l", mount.path, mount.path / "demo"], check=True, capture_output=True)
    assert [path for path in proxy.paths("tags/list") if "/v2/demo/tags" not in path] == []
    assert proxy.paths("manifests") == []
    assert len(proxy.paths("_catalog$")) == 1


def test_paths_without_a_colon_lead_to_the_same_files(reg: Path, demo: Demo) -> None:
    host = demo.address.replace(":", "+")
    dashed = f"@{str(demo.real.digest).replace(':', '-')}"
    wanted = (reg / "demo/real/v2/rootfs/etc/replaced").read_bytes()
    for path in (f"{host}/demo/real/v2", f"{host}/demo/real/{dashed}", f"demo/real/@{demo.real.digest.encoded[:12]}"):
        assert ":" not in path
        assert (reg / path / "rootfs/etc/replaced").read_bytes() == wanted
    assert not [name for name in os.listdir(reg / "demo/real") if name.startswith("@")]
    assert host not in os.listdir(reg)


def test_python_imports_by_a_path_without_a_colon(reg: Path, demo: Demo) -> None:
    path = reg / demo.address.replace(":", "+") / "demo/real/v2/rootfs"
    done = subprocess.run(
        ["python3", "-c", "import sys; print(sys.path[1])"],
        env={"PYTHONPATH": str(path), "PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == str(path)


@needs_root
def test_an_overlay_takes_a_path_without_a_colon(
    reg: Path, demo: Demo, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    lower = reg / demo.address.replace(":", "+") / f"demo/real/@sha256-{demo.real.digest.encoded}" / "rootfs"
    (tmp_path / "empty").mkdir()
    merged = tmp_path / "merged"
    merged.mkdir()
    options = f"ro,lowerdir={lower}:{tmp_path / 'empty'}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=True)
    request.addfinalizer(lambda: subprocess.run(["umount", merged], check=True))
    assert (merged / "etc/replaced").read_bytes() == (reg / "demo/real/v2/rootfs/etc/replaced").read_bytes()


def test_a_short_digest_that_is_not_known_says_so(mount_regfs: MountRegfs, demo: Demo, driver: str) -> None:
    mount: Mounted = mount_regfs("--default-registry", demo.address, "--driver", driver)
    with pytest.raises(FileNotFoundError):
        os.stat(mount.path / "demo/real/@000000000000")
    assert "no known digest" in mount.errors()


def test_a_tag_has_its_image_s_date_once_its_config_was_read(mount_regfs: MountRegfs, demo: Demo, driver: str) -> None:
    made_s = 1_600_000_000  # what every image of the demo says
    mount = mount_regfs("--default-registry", demo.address, "--driver", driver, shorter_waits=True)
    tag = mount.path / "demo/real/v2"
    assert tag.stat().st_mtime == 0
    assert (tag / "config.json").read_bytes()
    for path in (tag, tag / "config.json", tag / "manifest.json", tag / "layers/001", tag / "layers/001/digest"):
        becomes(lambda path=path: path.stat().st_mtime, made_s)  # type: ignore[misc]
