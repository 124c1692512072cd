"""`import regfs`: images as Python objects."""

from __future__ import annotations

import errno
import json
import stat
import threading
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest

import regfs
from regfs.errors import AccessDenied, InvalidName, LinkLoop, NotFound, Offline, RegfsError
from regfs.tree.entry import FoundEntry
from tests.support.attached import BUNDLE, COSIGN_SIGN, SPDX, bundle, refer, statement
from tests.support.fault_server import FaultServer, reply
from tests.support.hello import host_architecture
from tests.support.images import BuiltImage, directory, file, image_of, layer, symlink, whiteout
from tests.support.memory_registry import MemoryRegistry

BIG = bytes(range(256)) * 2048


@pytest.fixture(scope="module")
def image() -> BuiltImage:
    """Two layers; the upper one takes etc/gone away."""
    base = layer(
        directory("etc"), file("etc/os-release", b"ID=demo\n", mode=0o640, uid=7, gid=8), file("etc/gone", b"?"),
        file("usr/lib/big", BIG), symlink("lib", "usr/lib"), symlink("etc/absolute", "/usr/lib/big"),
        symlink("etc/out", "../../../../etc/os-release"), symlink("etc/loop", "loop"), symlink("etc/nowhere", "/none"),
        file(b"etc/\xff", b"bytes"),
    )  # fmt: skip
    upper = layer(whiteout("etc/gone"), file("new", b"new\n"))
    return image_of(base, upper, architecture=host_architecture(), command=["/new"])


@pytest.fixture(scope="module")
def server(image: BuiltImage) -> Iterator[FaultServer]:
    """A registry with demo/app:1 and demo/app:2, which are the same image."""
    application = MemoryRegistry()
    for content in image.blobs().values():
        application.add_blob("demo/app", content)
    for tag in ("1", "2"):
        application.add_manifest("demo/app", image.manifest, tag=tag, media_type=image.media_type)
    for predicate in (SPDX, COSIGN_SIGN):
        refer(application, "demo/app", image.digest, bundle(statement(image.digest, predicate, {}), predicate))
    with FaultServer(application) as served:
        yield served


@pytest.fixture(scope="module")
def client(server: FaultServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[regfs.Client]:
    with regfs.Client(
        default_registry=server.address, cache_dir=tmp_path_factory.mktemp("cache"), environment={}
    ) as made:
        yield made


@pytest.fixture(scope="module")
def rootfs(client: regfs.Client) -> regfs.Path:
    return client.open("demo/app:1").rootfs


def test_an_image_has_its_digest_documents_and_layers(client: regfs.Client, image: BuiltImage) -> None:
    with client.open("demo/app:1") as opened:
        assert opened.manifest_bytes == image.manifest
        assert opened.digest == opened.manifest_digest == opened.name.partition("@")[2]
        assert opened.manifest == json.loads(image.manifest)
        assert opened.config["architecture"] == host_architecture()
        assert [each.digest for each in opened.layers] == [each["digest"] for each in opened.manifest["layers"]]


def test_an_image_has_what_refers_to_it(client: regfs.Client, image: BuiltImage) -> None:
    with client.open("demo/app:1") as opened:
        found = opened.referrers()
        assert [(each.artifact_type, each.subject) for each in found] == [(BUNDLE, str(image.digest))] * 2
        assert found == opened.referrers("application/vnd.dev.sigstore.bundle")
        assert opened.referrers("application/spdx+json") == ()
        manifest = json.loads((found[0].directory / "manifest.json").read_bytes())
        assert manifest["subject"]["digest"] == str(image.digest)
        assert (opened.directory / "referrers/sbom/spdx-1.json").read_bytes() == b"{}"


def test_an_image_that_is_only_looked_at_costs_no_layer(server: FaultServer, tmp_path: Path) -> None:
    before = len(server.seen)
    with regfs.open(f"{server.address}/demo/app:1", cache_dir=tmp_path, environment={}) as opened:
        assert {each.name for each in opened.directory.iterdir()} >= {"rootfs", "layers", "manifest.json"}
        assert opened.config["os"] == "linux"
        asked = [seen.path for seen in server.seen[before:] if "/blobs/" in seen.path]
        assert asked == [f"/v2/demo/app/blobs/{opened.manifest['config']['digest']}"]


def test_a_file_is_read_as_text_as_bytes_and_in_parts(rootfs: regfs.Path) -> None:
    assert (rootfs / "etc/os-release").read_text() == "ID=demo\n"
    assert (rootfs / "usr/lib/big").read_bytes() == BIG
    with (rootfs / "usr/lib/big").open("rb") as opened:
        opened.seek(-256, 2)
        assert opened.read() == BIG[-256:]
        assert opened.seek(1000) == 1000
        assert opened.read(24) == BIG[1000:1024]
    with (rootfs / "etc/os-release").open() as lines:
        assert list(lines) == ["ID=demo\n"]


def test_attributes_are_those_of_a_mount(rootfs: regfs.Path) -> None:
    status = (rootfs / "etc/os-release").stat()
    assert (status.st_mode, status.st_uid, status.st_gid, status.st_size) == (stat.S_IFREG | 0o640, 7, 8, 8)
    assert (rootfs / "etc").is_dir()
    assert (rootfs / "lib").is_symlink()
    assert (rootfs / "lib").readlink() == "usr/lib"
    assert not (rootfs / "etc/gone").exists()
    assert (rootfs / "etc" / b"\xff").read_bytes() == b"bytes"


def test_links_are_followed_inside_the_image_and_nowhere_else(rootfs: regfs.Path) -> None:
    assert (rootfs / "lib/big").read_bytes() == BIG
    assert (rootfs / "etc/absolute").read_bytes() == BIG
    assert (rootfs / "etc/out").read_text() == "ID=demo\n"
    assert (rootfs / "../../../new").read_text() == "new\n"
    assert not (rootfs / "etc/nowhere").exists()
    assert (rootfs / "etc/nowhere").exists(follow_symlinks=False)
    with pytest.raises(LinkLoop) as caught:
        (rootfs / "etc/loop").read_bytes()
    assert isinstance(caught.value, OSError)
    assert caught.value.errno == errno.ELOOP


def test_an_image_is_walked_as_a_directory_is(rootfs: regfs.Path) -> None:
    walked = {str(at): (sorted(below), sorted(others)) for at, below, others in rootfs.walk()}
    assert walked["/"] == (["etc", "usr"], ["lib", "new"])
    assert walked["/usr/lib"] == ([], ["big"])
    assert set(walked) == {"/", "/etc", "/usr", "/usr/lib"}


def test_a_walk_does_not_enter_what_is_taken_off_its_list(rootfs: regfs.Path) -> None:
    seen = []
    for at, below, _ in rootfs.walk():
        seen.append(str(at))
        below[:] = [name for name in below if name != "usr"]
    assert seen == ["/", "/etc"]


def test_a_walk_from_below_comes_to_a_directory_last_and_may_follow_links(rootfs: regfs.Path) -> None:
    walked = [str(at) for at, _, _ in rootfs.walk(top_down=False)]
    assert (sorted(walked), walked[-1]) == (["/", "/etc", "/usr", "/usr/lib"], "/")
    assert walked.index("/usr/lib") < walked.index("/usr")
    assert [str(at) for at, _, _ in rootfs.walk(follow_symlinks=True)] == ["/", "/etc", "/lib", "/usr", "/usr/lib"]


def test_a_walk_tells_its_errors_where_pathlib_leaves_directories_out(rootfs: regfs.Path) -> None:
    told: list[OSError] = []
    assert list((rootfs / "none").walk(on_error=told.append)) == []
    assert [error.errno for error in told] == [errno.ENOENT]
    with pytest.raises(FileNotFoundError):
        list((rootfs / "none").walk())


def test_the_files_of_a_deep_tree_cost_what_those_of_a_flat_one_do(
    rootfs: regfs.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each path was walked from the root on: `regfs get` of a tree took time by the square of its depth."""
    asked: list[bytes] = []
    lookup = rootfs._files._tree.lookup

    def looking_up(parent: int, name: bytes) -> FoundEntry:
        asked.append(name)
        return lookup(parent, name)

    monkeypatch.setattr(rootfs._files._tree, "lookup", looking_up)
    for _ in range(3):
        assert not (rootfs / "usr/lib/none").exists()
        assert (rootfs / "usr/lib/../../lib/big").exists()
    assert asked.count(b"none") == asked.count(b"big") == 3
    assert asked.count(b"usr") <= 2


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("*", "/etc /lib /new /usr"),
        ("etc/os-*", "/etc/os-release"),
        ("etc/os-release", "/etc/os-release"),
        ("etc/gone", ""),
        ("none/*", ""),
        ("new/*", ""),
        ("lib/b[a-i]g", "/lib/big"),
        ("**/big", "/usr/lib/big"),
        ("**", "/ /etc /etc/absolute /etc/loop /etc/nowhere /etc/os-release /etc/out /etc/\udcff /lib /new /usr "
               "/usr/lib /usr/lib/big"),
        ("**/**/b?g", "/usr/lib/big"),
        ("etc/*/*", ""),
    ],
)  # fmt: skip
def test_paths_are_found_by_pattern_as_those_of_pathlib(rootfs: regfs.Path, pattern: str, paths: str) -> None:
    """A Path had no glob(), which README.md promised with the methods that read."""
    assert sorted(map(str, rootfs.glob(pattern))) == sorted(paths.split())


def test_a_pattern_finds_what_is_below_each_directory(rootfs: regfs.Path) -> None:
    assert [str(path) for path in (rootfs / "usr").rglob("b*")] == ["/usr/lib/big"]
    for pattern in ("", "/etc/*", "../*"):
        with pytest.raises(InvalidName, match="is not a pattern"):
            rootfs.glob(pattern)


def test_paths_join_and_part_as_those_of_pathlib(rootfs: regfs.Path) -> None:
    path = rootfs / "etc" / "os-release"
    assert (path.name, path.stem, path.suffix, path.parts) == ("os-release", "os-release", "", ("etc", "os-release"))
    assert path.parent == rootfs / "etc"
    assert rootfs.parent == rootfs
    assert path / "/new" == rootfs / "new"
    assert str(path) == "/etc/os-release"
    assert len({path, rootfs / "etc//./os-release"}) == 1
    assert sorted([rootfs / "b", rootfs / "a"]) == [rootfs / "a", rootfs / "b"]


def test_paths_are_told_apart_and_changed_by_name_as_those_of_pathlib(rootfs: regfs.Path) -> None:
    path, of_pathlib = rootfs / "usr/lib/a.tar.gz", PurePosixPath("/usr/lib/a.tar.gz")
    assert [str(each) for each in path.parents] == [str(each) for each in of_pathlib.parents]
    assert list(rootfs.parents) == []
    assert (path.suffix, path.suffixes, path.stem) == (of_pathlib.suffix, of_pathlib.suffixes, of_pathlib.stem)
    assert path.with_name("b") == rootfs / "usr/lib/b"
    assert path.with_stem("b") == rootfs / "usr/lib/b.gz"
    assert [str(path.with_suffix(each)) for each in (".xz", "")] == [
        str(of_pathlib.with_suffix(each)) for each in (".xz", "")
    ]
    for pattern in ("*.gz", "lib/*", "/usr/*", "/usr/lib/*", "*"):
        assert path.match(pattern) == of_pathlib.match(pattern)
    for change, text in ((path.with_name, "a/b"), (path.with_suffix, "gz"), (rootfs.with_name, "x")):
        with pytest.raises(ValueError, match=r"name|suffix"):
            change(text)


def test_a_path_is_relative_to_one_above_it(client: regfs.Client, rootfs: regfs.Path) -> None:
    path = rootfs / "usr/lib/big"
    assert path.relative_to(rootfs / "usr") == path.relative_to("/usr") == PurePosixPath("lib/big")
    assert rootfs / "usr" / path.relative_to(rootfs / "usr") == path
    assert path.relative_to(path) == PurePosixPath()
    assert path.relative_to(client.path()).parts[-4:] == ("rootfs", "usr", "lib", "big")
    assert not path.is_relative_to("/us")
    with pytest.raises(ValueError, match="is not in the subpath of"):
        rootfs.relative_to(path)
    assert path.is_absolute()
    assert path.absolute() == path


def test_links_are_resolved_inside_the_image(client: regfs.Client, rootfs: regfs.Path) -> None:
    resolved = {
        "lib/big": "/usr/lib/big", "etc/absolute": "/usr/lib/big", "etc/out": "/etc/os-release", "../../new": "/new",
        "lib/../../etc/./gone": "/etc/gone", "etc/nowhere": "/none", "etc/nowhere/../lib/../x/y/..": "/usr/x",
        "new/below": "/new/below", "": "/",
    }  # fmt: skip
    for path, expected in resolved.items():
        assert str((rootfs / path).resolve()) == expected
    assert (rootfs / "lib/big").resolve(strict=True) == rootfs / "usr/lib/big"
    for path, error in (("etc/nowhere", FileNotFoundError), ("new/below", NotADirectoryError), ("etc/loop", OSError)):
        with pytest.raises(error):
            (rootfs / path).resolve(strict=True)
    above = client.open("demo/app:1").directory / ".."
    assert above.resolve().name == "app"
    assert str((above / "1/rootfs/lib").resolve()) == f"{above.resolve()}/1/rootfs/usr/lib"


def test_the_same_file_is_known_by_any_of_its_names(client: regfs.Client, rootfs: regfs.Path) -> None:
    assert (rootfs / "lib/big").samefile(rootfs / "usr/lib/big")
    assert (rootfs / "lib/big").samefile("/etc/absolute")
    assert (rootfs / "new").samefile(client.path("demo/app/1/rootfs/new"))
    assert not (rootfs / "new").samefile("/lib/big")
    with pytest.raises(FileNotFoundError):
        (rootfs / "new").samefile("/none")


def test_a_loop_of_links_does_not_exist_as_in_pathlib(rootfs: regfs.Path) -> None:
    assert not (rootfs / "etc/loop").exists()
    assert not (rootfs / "etc/loop").is_file()
    assert (rootfs / "etc/loop").exists(follow_symlinks=False)


def test_a_path_is_a_traversable(rootfs: regfs.Path) -> None:
    assert isinstance(rootfs, Traversable)


def test_a_path_is_not_taken_for_a_local_one(rootfs: regfs.Path) -> None:
    with pytest.raises(TypeError, match=r"is in a registry, and has no path here"):
        open(rootfs / "new")  # noqa: SIM115


def test_a_blob_has_a_local_path_and_a_part_of_a_layer_has_none(client: regfs.Client) -> None:
    opened = client.open("demo/app:1")
    digest = opened.layers[0].digest
    local = Path((opened.directory / "blobs" / digest).local_path())
    assert local.stat().st_size == opened.layers[0].size
    with pytest.raises(RegfsError, match="has no file of its own"):
        (opened.rootfs / "new").local_path()


@pytest.mark.parametrize(
    ("read", "kind", "of_regfs"),
    [
        (lambda rootfs: (rootfs / "none").read_bytes(), FileNotFoundError, NotFound),
        (lambda rootfs: (rootfs / "new/below").read_bytes(), NotADirectoryError, RegfsError),
        (lambda rootfs: (rootfs / "etc").read_bytes(), IsADirectoryError, RegfsError),
        (lambda rootfs: (rootfs / "new").readlink(), OSError, RegfsError),
        (lambda rootfs: list((rootfs / "new").iterdir()), NotADirectoryError, RegfsError),
        (lambda rootfs: rootfs / "a\0b", FileNotFoundError, RegfsError),
    ],
)
def test_errors_are_what_python_programs_catch(
    rootfs: regfs.Path, read: Any, kind: type[OSError], of_regfs: type[RegfsError]
) -> None:
    with pytest.raises(kind) as caught:
        read(rootfs)
    assert isinstance(caught.value, of_regfs)
    assert caught.value.errno


def test_a_failing_registry_is_an_oserror_and_never_a_missing_file(server: FaultServer, tmp_path: Path) -> None:
    name = f"{server.address}/demo/private:1"
    server.on("GET", "/v2/demo/private/", reply(403))
    server.on("HEAD", "/v2/demo/private/", reply(403))
    with pytest.raises(PermissionError) as refused:
        regfs.open(name, cache_dir=tmp_path, environment={})
    assert isinstance(refused.value, AccessDenied)
    with pytest.raises(Offline) as offline:
        regfs.open(f"{server.address}/demo/app:1", cache_dir=tmp_path, environment={}, offline=True)
    assert isinstance(offline.value, OSError)
    assert offline.value.errno == errno.EHOSTUNREACH


def test_wrong_options_say_what_is_wrong() -> None:
    with pytest.raises(OSError, match="platform: "):
        regfs.Client(platform="no platform at all", environment={})


def test_tags_and_repositories_are_lists(server: FaultServer, tmp_path: Path) -> None:
    assert regfs.tags(f"{server.address}/demo/app", cache_dir=tmp_path, environment={}) == ["1", "2"]
    assert regfs.repositories(server.address, cache_dir=tmp_path, environment={}) == ["demo/app"]


def test_the_paths_of_a_client_are_those_of_a_mount(client: regfs.Client, server: FaultServer) -> None:
    assert client.path("demo/app/1/rootfs/new").read_text() == "new\n"
    assert client.path(f"{server.address}/demo/app/2/digest").read_text().startswith("sha256:")


def test_the_example_in_the_readme_runs(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    example = readme.partition("```python\n")[2].partition("```")[0]
    for name, ours in {
        '"debian:12"': f"{server.address}/demo/app:1",
        '"debian:12.1"': f"{server.address}/demo/app:1",
        '"debian:12.2"': f"{server.address}/demo/app:2",
        '"ghcr.io/org/app"': f"{server.address}/demo/app",
    }.items():
        assert name in example
        example = example.replace(name, repr(ours))
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "['/new']" in printed
    assert "ID=demo" in printed


def test_many_threads_read_one_image(rootfs: regfs.Path) -> None:
    read: list[bytes] = []
    threads = [threading.Thread(target=lambda: read.append((rootfs / "lib/big").read_bytes())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == [BIG] * 8


def test_what_a_client_remembers_is_bounded(client: regfs.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up that falls out is given back to the tree, and its path still opens."""
    before = len(client._app.tree.snapshot().nodes)
    with regfs.Client(
        default_registry=client._config.default_registry, cache_dir=client._app.cache, environment={}
    ) as small:
        monkeypatch.setattr(small._files._remembered, "_Cache__maxsize", 4)
        monkeypatch.setattr(small._files._directories, "_Cache__maxsize", 2)
        for tag in ("1", "2") * 3:
            assert small.path(f"demo/app/{tag}/rootfs/new").read_text() == "new\n"
            assert small.path(f"demo/app/{tag}/digest").read_text()
            assert small.path(f"demo/app/{tag}/rootfs/usr/lib/../lib/big").exists()
        assert len(small._app.tree.snapshot().nodes) <= 4
        assert len(small._files._directories) <= 2
        small._files.close()
        assert not small._files._directories
        assert not small._app.tree.snapshot().nodes
    assert len(client._app.tree.snapshot().nodes) == before


def test_every_export_is_there() -> None:
    exported = {name: getattr(regfs, name) for name in regfs.__all__}
    assert all(callable(each) for each in exported.values())
    assert set(regfs._EXPORTS) == set(regfs.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        regfs.nothing  # noqa: B018


if TYPE_CHECKING:

    def _assert_traversable(path: regfs.Path) -> Traversable:
        """Let mypy check the protocol."""
        return path
