"""`regfs diff`, `regfs.diff()` and `.diff/A..B/summary`: what differs between two images, and which layer did it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import regfs
from regfs.cli.main import run as run_regfs
from tests.support.fault_server import FaultServer
from tests.support.hello import host_architecture
from tests.support.images import BuiltImage, BuiltLayer, directory, file, image_of, layer, symlink, whiteout
from tests.support.lazy_layers import estargz
from tests.support.memory_registry import MemoryRegistry

Diff = Callable[..., tuple[int, str, str]]

BASE = layer(
    directory("etc"), file("etc/os-release", b"ID=demo\n"), file("etc/motd", b"hello\n"),
    file("bin/su", b"\x7fELF", mode=0o755), symlink("lib", "usr/lib"), file("same", b"same bytes"),
)  # fmt: skip
UPPER = layer(
    file("etc/os-release", b"ID=next\n"), whiteout("etc/motd"), file("bin/su", b"\x7fELF", mode=0o4755, uid=1),
    symlink("lib", "usr/lib64"), file("same", b"same bytes", mtime_ns=10**18), file("new\n", b"new"),
)  # fmt: skip


def built(*layers: BuiltLayer, **config: object) -> BuiltImage:
    return image_of(*layers, architecture=host_architecture(), **config)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    application = MemoryRegistry()
    images = {
        "1": built(BASE, command=["/bin/su"]),
        "2": built(BASE, UPPER, command=["/bin/su", "-"]),
        "rebuilt": built(layer(*[file(f"{name}", b"x") for name in "ab"], file("c", b"1")), command=["/bin/su"]),
        "rebuilt-again": built(layer(*[file(f"{name}", b"x") for name in "ab"], file("c", b"2")), command=["/bin/su"]),
    }
    for tag, image in images.items():
        for content in image.blobs().values():
            application.add_blob("demo/app", content)
        application.add_manifest("demo/app", image.manifest, tag=tag, media_type=image.media_type)
    for tag, content in (("lazy", b"one"), ("lazy-again", b"two")):
        entries = (file("big", os.urandom(len(tag) << 15)), file("small", content), file("same", b"same bytes"))
        image = built(estargz(*entries))
        for blob in image.blobs().values():
            application.add_blob("demo/app", blob)
        application.add_manifest("demo/app", image.manifest, tag=tag, media_type=image.media_type)
    with FaultServer(application) as served:
        yield served


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def diff(server: FaultServer, cache: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Diff:
    """Run the verb; return its exit code, and what it prints on stdout and stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        options = ["--default-registry", server.address, "--cache-dir", str(cache)]
        code = run_regfs(["diff", *options, *words], {"PATH": os.environ["PATH"]})
        told, said = capfdbinary.readouterr()
        return code, os.fsdecode(told), os.fsdecode(said)

    return run


def test_diff_tells_what_changed_and_by_which_layer(diff: Diff) -> None:
    code, told, _ = diff("demo/app:1", "demo/app:2")
    lines = told.splitlines()
    assert code == 1
    assert [line.partition("  [b 001")[0] for line in lines] == [
        "M /bin/su  mode 0755 -> 4755, owner 0:0 -> 1:0",
        "D /etc/motd",
        "M /etc/os-release  content",
        "M /lib  target",
        r"A /new\012",
        'M config cmd  ["/bin/su"] -> ["/bin/su", "-"]',
    ]


def test_diff_of_an_image_with_itself_is_silent_and_ends_with_0(diff: Diff) -> None:
    assert diff("demo/app:2", "demo/app:2") == (0, "", "")


def test_diff_ends_with_2_where_an_image_or_the_path_is_missing(diff: Diff) -> None:
    code, told, said = diff("demo/app:1", "demo/app:nowhere")
    assert (code, told) == (2, "")
    assert "nowhere" in said
    assert diff("demo/app:1", "demo/app:2", "/none")[::2] == (2, "regfs: /none is in neither image\n")


def test_diff_of_a_path_tells_that_path_alone_and_no_config(diff: Diff) -> None:
    code, told, _ = diff("demo/app:1", "demo/app:2", "etc/os-release")
    assert (code, told.split("  ")[:2]) == (1, ["M /etc/os-release", "content"])
    assert diff("demo/app:1", "demo/app:2", "/same") == (0, "", "")
    assert diff("demo/app:1", "demo/app:2", "/etc/motd")[1].startswith("D /etc/motd  [b 001")


def test_diff_counts_changes_with_stat(diff: Diff) -> None:
    code, told, _ = diff("--stat", "demo/app:1", "demo/app:2")
    assert code == 1
    assert [line.split()[:2] for line in told.splitlines()[:3]] == [["A", "1"], ["D", "1"], ["M", "3"]]
    assert told.splitlines()[3].split()[:3] == ["5", "[b", "001:"]


def test_diff_as_json_has_both_sides_of_each_path(diff: Diff) -> None:
    code, told, _ = diff("--json", "demo/app:1", "demo/app:2")
    found = json.loads(told)
    assert (code, found["schema"], found["is_different"]) == (1, 1, True)
    su = found["files"][0]
    assert (su["path"], su["kind"], su["fields"]) == ("/bin/su", "changed", ["mode", "owner"])
    assert (su["a"]["mode"], su["b"]["mode"], su["image"], su["layer"]) == (0o755, 0o4755, "b", 1)
    assert su["digest"] == str(UPPER.digest)
    assert found["config"] == [{"field": "cmd", "key": "", "a": '["/bin/su"]', "b": '["/bin/su", "-"]'}]
    assert found["stat"]["changed"] == {"paths": 3, "bytes": 0}
    assert diff("--json", "--stat", "demo/app:1", "demo/app:1")[0] == 0


def test_what_bytes_were_compared_is_kept_and_a_torn_file_of_it_is_not_believed(diff: Diff, tmp_path: Path) -> None:
    asked = ("--cache-dir", str(tmp_path), "demo/app:rebuilt", "demo/app:rebuilt-again")
    first = diff(*asked)
    assert first[1].startswith("M /c  content  [b 000")
    (kept,) = tmp_path.glob("images/*.same-*")
    size = kept.stat().st_size
    kept.write_bytes(bytes(size))  # as a crash may leave it
    assert diff(*asked) == first
    assert kept.read_bytes() != bytes(size)
    for data in tmp_path.glob("layers/*.tar"):  # not a byte of a file is read again
        data.write_bytes(bytes(data.stat().st_size))
    assert diff(*asked) == first


@pytest.fixture(scope="module")
def client(server: FaultServer, cache: Path) -> Iterator[regfs.Client]:
    with regfs.Client(default_registry=server.address, cache_dir=cache, environment={}) as made:
        yield made


def test_python_gets_changes_as_values(client: regfs.Client, server: FaultServer, cache: Path) -> None:
    found = list(client.diff("demo/app:1", "demo/app:2"))
    assert [(each.kind, each.path, each.fields, each.image, each.layer) for each in found[:2]] == [
        ("changed", "/bin/su", ("mode", "owner"), "b", 1),
        ("removed", "/etc/motd", (), "b", 1),
    ]
    alone = regfs.diff(
        "demo/app:2", "demo/app:1", "etc/motd", default_registry=server.address, cache_dir=cache, environment={}
    )
    assert [(each.kind, each.path, each.image, each.layer) for each in alone] == [("added", "/etc/motd", "a", 1)]


def test_python_gets_an_oserror_where_neither_image_has_the_path(client: regfs.Client) -> None:
    with pytest.raises(FileNotFoundError, match="/none is in neither image"):
        next(iter(client.diff("demo/app:1", "demo/app:2", "/none")))


def test_a_repository_shows_the_same_in_its_diff_directory(client: regfs.Client, diff: Diff) -> None:
    told = diff("demo/app:1", "demo/app:2")[1]
    assert client.path("demo/app/.diff/1..2/summary").read_text() == told
    digest = client.open("demo/app:1").digest
    for name in (digest, f"@{digest.replace(':', '-')}", f"@{digest[7:19]}"):
        assert client.path(f"demo/app/.diff/{name}..2/summary").read_text() == told
    names = {each.name for each in client.path("demo/app/.diff/1..2").iterdir()}
    assert names == {"summary", "added", "removed", "changed"}
    assert client.path("demo/app/.diff/1..2/changed/etc/os-release/b").read_text() == "ID=next\n"


def test_the_diff_directory_lists_nothing_and_is_in_no_listing(client: regfs.Client) -> None:
    assert list(client.path("demo/app/.diff").iterdir()) == []
    assert ".diff" not in {each.name for each in client.path("demo/app").iterdir()}
    for name in ("1", "1..", "..2", "1..nowhere", "1...2"):
        assert not client.path(f"demo/app/.diff/{name}").exists()


def test_of_lazily_fetched_layers_only_what_must_be_compared_is_fetched(diff: Diff, tmp_path: Path) -> None:
    code, told, _ = diff("--cache-dir", str(tmp_path), "demo/app:lazy", "demo/app:lazy-again")
    assert code == 1
    assert [line.split("  ")[0] for line in told.splitlines()] == ["M /big", "M /small"]
    fetched = sum(data.stat().st_blocks * 512 for data in tmp_path.glob("layers/*.tar"))
    assert fetched < 4 << 15
