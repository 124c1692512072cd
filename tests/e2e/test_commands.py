"""The commands of the README, against docker-registry, by both drivers."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from regfs import __version__
from tests.e2e.conftest import Demo, becomes, needs_root
from tests.support.erofs import needs_erofs
from tests.support.hello import MESSAGE
from tests.support.mounted import environment_for, regfs_command, run_regfs
from tests.support.real_root import CAPABILITY, busybox
from tests.support.snapshot import Entry, differences, snapshot


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Return what *command* prints; it must succeed."""
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, cwd=cwd).stdout


def archive_digest(root: Path) -> str:
    """Return `tar | sha256sum` of a tree."""
    tar = ["tar", "--format=gnu", "--sort=name", "--numeric-owner", "-C", str(root), "-cf", "-", "."]
    with subprocess.Popen(tar, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        digest = hashlib.file_digest(process.stdout, "sha256").hexdigest()  # type: ignore[arg-type]
    assert process.returncode == 0
    return digest


@pytest.fixture(scope="session")
def unpacked(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """demo/real:v2 as umoci unpacks it."""
    directory = tmp_path_factory.mktemp("umoci")
    layout = directory / "layout"
    run("skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{demo.address}/demo/real:v2", f"oci:{layout}:v2")
    rootless = [] if os.getuid() == 0 else ["--rootless"]
    run("umoci", "unpack", *rootless, "--image", f"{layout}:v2", directory / "bundle")
    return directory / "bundle/rootfs"


@pytest.fixture(scope="session")
def unpacked_snapshot(unpacked: Path) -> dict[bytes, Entry]:
    return snapshot(unpacked)


def test_the_root_lists_the_default_registry_and_its_namespaces(reg: Path, demo: Demo) -> None:
    assert {demo.address, "demo", "library"} <= set(run("ls", reg).split())


def test_the_control_directory_is_hidden_and_opens(reg: Path) -> None:
    assert ".regfs" not in run("ls", reg).split()
    assert __version__ in (reg / ".regfs/version").read_text()
    assert isinstance(json.loads((reg / ".regfs/stats.json").read_text()), dict)
    assert isinstance((reg / ".regfs/errors").read_text(), str)


def test_a_registry_named_in_full_shows_the_same_as_the_default(reg: Path, demo: Demo) -> None:
    assert run("ls", reg / demo.address / "library") == run("ls", reg / "library")


def test_a_repository_lists_its_tags(reg: Path) -> None:
    assert {"v1", "v2"} <= set(run("ls", reg / "demo/real").split())


def test_namespaces_of_any_depth_lead_to_their_repository(reg: Path) -> None:
    assert (reg / "demo/deeper/still/further/1/rootfs/deep").is_file()


def test_an_image_lists_its_parts(reg: Path) -> None:
    names = {"digest", "manifest-digest", "manifest.json", "config.json", "blobs", "layers", "referrers", "rootfs"}
    assert names < set(run("ls", reg / "library/hello-world/latest").split())


def test_documents_are_the_exact_bytes(reg: Path, demo: Demo) -> None:
    image = reg / "library/hello-world/latest"
    assert (image / "digest").read_text() == f"{demo.hello.digest}\n"
    assert (image / "manifest.json").read_bytes() == demo.hello.manifest
    assert (image / "config.json").read_bytes() == demo.hello.config


def test_jq_reads_a_config(reg: Path) -> None:
    assert run("jq", "-r", ".config.Cmd[0]", reg / "library/hello-world/latest/config.json") == "/hello\n"


def test_blobs_have_their_sizes_and_their_bytes(reg: Path, demo: Demo) -> None:
    blobs = reg / "library/hello-world/latest/blobs"
    digests = [name.removeprefix("sha256:") for name in sorted(os.listdir(blobs))]
    assert {f"sha256:{digest}" for digest in digests} >= {
        *(str(layer.digest) for layer in demo.hello.layers),
        f"sha256:{hashlib.sha256(demo.hello.config).hexdigest()}",
    }
    for digest in digests:
        assert run("sha256sum", blobs / f"sha256:{digest}").split()[0] == digest


def test_a_layer_describes_itself(reg: Path, demo: Demo) -> None:
    layer = reg / "demo/real/v2/layers/1"
    assert (layer / "digest").read_text() == f"{demo.real.layers[1].digest}\n"
    assert (layer / "diff_id").read_text() == f"{demo.real.layers[1].diff_id}\n"
    assert (layer / "created_by").read_text() == "layer 1\n"
    assert os.readlink(layer / "blob") == f"../../blobs/{demo.real.layers[1].digest}"
    assert int((layer / "size").read_text()) == (layer / "blob").stat().st_size


def test_a_layers_tree_shows_whiteouts_as_they_are_stored(reg: Path) -> None:
    tree = reg / "demo/real/v2/layers/1/tree"
    assert sorted(os.listdir(tree / "var/lib")) == [".wh.gone", "opaque"]
    assert ".wh..wh..opq" in os.listdir(tree / "var/lib/opaque")


def test_an_index_shows_the_image_for_this_machine_and_all_the_others(reg: Path, demo: Demo) -> None:
    image = reg / "demo/multi/latest"
    assert (image / "digest").read_text() == demo.index + "\n"
    assert (image / "rootfs/hello").is_file()
    assert "linux-mips" in os.listdir(image / "manifests")
    assert os.listdir(image / "manifests/linux-mips/rootfs") == ["other"]


def test_pasted_references_open(reg: Path, demo: Demo) -> None:
    for name in (
        "library/hello-world:latest",
        f"library/hello-world@{demo.hello.digest}",
        f"library/hello-world/{demo.hello.digest}",
    ):
        assert (reg / name / "manifest.json").read_bytes() == demo.hello.manifest


def test_a_tag_wins_over_a_repository_of_its_name_which_the_escape_reaches(reg: Path) -> None:
    assert os.listdir(reg / "library/hello-world/nested/rootfs") == ["in-the-tag"]
    assert os.listdir(reg / "library/hello-world/@/nested/1/rootfs") == ["in-the-repository"]


def test_rootfs_is_what_umoci_unpacks(reg: Path, unpacked_snapshot: dict[bytes, Entry]) -> None:
    rootfs = reg / "demo/real/v2/rootfs"
    os.listdir(rootfs)  # until it is entered, rootfs itself has no time: `ls -l` beside it fetches nothing
    becomes(lambda: rootfs.stat().st_mtime_ns != 0, True)  # libfuse remembers that for a second
    assert differences(snapshot(rootfs), unpacked_snapshot) == []


def test_rootfs_and_umoci_make_one_and_the_same_tar(reg: Path, unpacked: Path) -> None:
    assert archive_digest(reg / "demo/real/v2/rootfs") == archive_digest(unpacked)


@needs_root
def test_capabilities_are_kept(reg: Path) -> None:
    assert os.getxattr(reg / "demo/real/v1/rootfs/bin/setuid", "security.capability") == CAPABILITY


def test_find_finds_setuid_programs(reg: Path) -> None:
    assert run("find", reg / "demo/real/v2/rootfs", "-perm", "-4000", "-printf", "%P\n") == "bin/setuid\n"


def test_diff_tells_two_tags_apart(reg: Path) -> None:
    tags = reg / "demo/real"
    compared = subprocess.run(
        ["diff", "-rq", "v1/rootfs/etc", "v2/rootfs/etc"], cwd=tags, capture_output=True, text=True, check=False
    )
    assert "Files v1/rootfs/etc/replaced and v2/rootfs/etc/replaced differ" in compared.stdout


@needs_root
def test_chroot_runs_a_program_of_the_image(reg: Path) -> None:
    assert run("chroot", reg / "library/hello-world/latest/rootfs", "/hello").encode() == MESSAGE


@needs_root
@pytest.mark.skipif(busybox() is None, reason="needs busybox-static")
def test_a_shell_in_an_image_sees_the_image(reg: Path) -> None:
    said = run(
        "chroot", reg / "demo/real/v2/rootfs", "/bin/sh", "-c", "cat /etc/replaced; readlink /etc/link; ls /opt/new"
    )
    assert said.split("\n") == ["in the second layer", "os-release", "file", ""]


def test_python_imports_a_package_out_of_an_image(reg: Path) -> None:
    modules = reg / "demo/real/v2/rootfs/usr/lib/python"
    program = "import json; print(json.__file__)"
    command = [sys.executable, "-S", "-B", "-c", f"import sys; sys.path.insert(0, {str(modules)!r}); {program}"]
    assert run(*command).startswith(str(modules))


@pytest.mark.parametrize(
    "command",
    [
        ["touch", "new"],
        ["mkdir", "new"],
        ["rm", "hello"],
        ["mv", "hello", "bye"],
        ["chmod", "0", "hello"],
        ["ln", "-s", "a", "b"],
    ],
    ids=lambda command: command[0],
)
def test_writers_are_told_that_it_is_read_only(reg: Path, command: list[str]) -> None:
    done = subprocess.run(
        command, cwd=reg / "library/hello-world/latest/rootfs", capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert os.strerror(errno.EROFS) in done.stderr


def test_df_shows_the_cache_and_its_limit(reg: Path) -> None:
    cache = json.loads(run(*regfs_command(), "status", "--json", reg))[0]["cache"]
    size, used = map(int, run("df", "--block-size=1", "--output=size,used", reg).splitlines()[1].split())
    assert size == cache["limit_bytes"] // 4096 * 4096
    assert used == pytest.approx(cache["used_bytes"], abs=16 << 20)


def test_what_is_not_there_is_not_there(reg: Path) -> None:
    for name in (
        "library/hello-world/no-such-tag",
        "library/hello-world/latest/no-such-part",
        "library/hello-world/latest/rootfs/no",
    ):
        with pytest.raises(FileNotFoundError):
            os.stat(reg / name)


def test_unpack_leaves_what_umoci_leaves(demo: Demo, unpacked_snapshot: dict[bytes, Entry], tmp_path: Path) -> None:
    done = run_regfs("unpack", "--cache-dir", tmp_path / "cache", f"{demo.address}/demo/real:v2", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert differences(snapshot(tmp_path / "rootfs"), unpacked_snapshot) == []


@needs_erofs
def test_a_mount_by_the_kernel_is_what_umoci_unpacks(
    demo: Demo, unpacked: Path, unpacked_snapshot: dict[bytes, Entry], tmp_path: Path
) -> None:
    point = tmp_path / "rootfs"
    point.mkdir()
    command = [*regfs_command(), "mount", "--cache-dir", str(tmp_path / "cache"), f"{demo.address}/demo/real:v2"]
    subprocess.run([*command, point], check=True, env=environment_for(tmp_path), capture_output=True)
    try:
        assert differences(snapshot(point), unpacked_snapshot) == []
        assert archive_digest(point) == archive_digest(unpacked)
        assert os.getxattr(point / "bin/setuid", "security.capability") == CAPABILITY
    finally:
        run("umount", point)
