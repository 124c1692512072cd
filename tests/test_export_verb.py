"""`regfs export` and `regfs import`: images as one file, for machines that reach no registry."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regfs.cli.main import run as run_regfs
from regfs.errors import BadContent, DigestMismatch, InvalidOption, Offline, RegfsError, TooLarge, Unsupported
from regfs.model.digest import Digest
from regfs.model.strict_json import DOCUMENT_LIMIT
from regfs.store.verify import verify
from tests.conftest import missing
from tests.support.artifacts import Artifact, artifact_of, blob
from tests.support.attached import attach, notary, refer
from tests.support.fault_server import FaultServer, silence
from tests.support.hello import host_architecture
from tests.support.images import BuiltImage, file, image_of, index_of, layer
from tests.support.lazy_layers import estargz
from tests.support.memory_registry import INDEX, MemoryRegistry
from tests.support.mounted import environment_for, regfs_command
from tests.support.shown import Shown

Regfs = Callable[..., str]
CONTENT = os.urandom(300_000)
HERE = {"os": "linux", "architecture": host_architecture()}


def image(name: str, **fields: object) -> BuiltImage:
    files = [file("name", name.encode()), file("content", CONTENT)]
    return image_of(layer(*files), architecture=host_architecture(), **fields)  # type: ignore[arg-type]


WINDOWS = image_of(
    layer(file("Files/cmd.exe", b"MZ"), media_type="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
    layer(file("Files/app.exe", b"MZ")),
    system="windows",
)


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    """app/plain (with a signature in two forms), app/docker, app/lazy, app/multi, app/windows, each with the tag 1.

    It lacks the base layer of app/windows.
    """
    registry = MemoryRegistry()

    def push(name: str, built: BuiltImage, tag: str | None) -> BuiltImage:
        for content in built.blobs().values():
            registry.add_blob(f"app/{name}", content)
        registry.add_manifest(f"app/{name}", built.manifest, tag=tag, media_type=built.media_type)
        return built

    plain = push("plain", image("plain"), "1")
    refer(registry, "app/plain", plain.digest, notary(plain.digest))
    attach(registry, "app/plain", plain.digest, ".sig", artifact_of(blob(b"{}", "application/json")))
    push("docker", image("docker", docker=True), "1")
    push("lazy", image_of(estargz(file("content", CONTENT)), architecture=host_architecture()), "1")
    here = push("multi", image("multi"), None)
    index = index_of(
        here.descriptor(platform=HERE), image("other").descriptor(platform={**HERE, "architecture": "mips"})
    )
    registry.add_manifest("app/multi", index, tag="1", media_type=INDEX)
    for content in (WINDOWS.config, WINDOWS.layers[1].blob):
        registry.add_blob("app/windows", content)
    registry.add_manifest("app/windows", WINDOWS.manifest, tag="1", media_type=WINDOWS.media_type)
    with FaultServer(registry) as served:
        yield served


ALL = ("plain", "docker", "lazy", "multi")


@pytest.fixture
def regfs(server: FaultServer, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> Regfs:
    """Run a verb with the cache *cache* of the test; `export` goes to the file `archive`."""

    def run(*words: str, cache: str = "there") -> str:
        own = ["--cache-dir", str(tmp_path / cache), "-q"]
        if words[0] == "export":
            own += ["-o", str(tmp_path / "archive")]
        environment = {"HOME": str(tmp_path), "REGFS_CONFIG": "", "PATH": os.environ["PATH"]}
        environment["REGFS_DEFAULT_REGISTRY"] = server.address
        assert run_regfs([words[0], *own, *words[1:]], environment) == 0
        return capsysbinary.readouterr().out.decode()

    return run


def unpacked(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def packed(archive: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(archive, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return archive


def test_another_machine_serves_without_a_registry_what_was_imported(
    regfs: Regfs, server: FaultServer, tmp_path: Path
) -> None:
    regfs("export", *(f"app/{name}:1" for name in ALL))
    before = len(server.seen)
    names = regfs("import", str(tmp_path / "archive"), cache="here").splitlines()
    assert [name.partition("@")[0] for name in names] == [f"{server.address}/app/{name}:1" for name in ALL]
    with Shown(tmp_path / "here", default_registry=server.address, offline=True) as shown:
        assert sorted(shown.names("app")) == sorted(ALL)
        for name in ALL:
            assert shown.names(f"app/{name}") == ["1"]
            assert shown.read(f"app/{name}/1/rootfs/content") == CONTENT
        assert shown.read("app/multi/1/digest").decode().strip() == names[3].partition("@")[2]
        assert len(shown.names("app/plain/1/referrers")) >= 2
        assert shown.names("app/plain/1/referrers/signatures") != []
    assert [str(problem) for problem in verify(tmp_path / "here", drop=False)] == []
    assert len(server.seen) == before


def test_the_same_images_make_the_same_archive(regfs: Regfs, tmp_path: Path) -> None:
    regfs("export", "app/plain:1", "app/multi:1")
    first = (tmp_path / "archive").read_bytes()
    regfs("export", "app/plain:1", "app/multi:1", cache="other")
    assert (tmp_path / "archive").read_bytes() == first
    members = unpacked(tmp_path / "archive")
    assert list(members)[:2] == ["oci-layout", "index.json"]
    for name, content in members.items():
        if name.startswith("blobs/sha256/"):
            assert str(Digest.of(content)) == f"sha256:{name.rpartition('/')[2]}"


def test_an_archive_goes_into_a_pipe_and_where_a_link_leads_and_both_stay(regfs: Regfs, tmp_path: Path) -> None:
    """`regfs export -o /dev/null`, by root, once made a file of /dev/null."""
    regfs("export", "app/plain:1")
    os.mkfifo(tmp_path / "pipe")
    with (
        (tmp_path / "read").open("wb") as read,
        subprocess.Popen(["cat", tmp_path / "pipe"], stdout=read),
    ):
        regfs("export", "app/plain:1", "-o", str(tmp_path / "pipe"))
    assert (tmp_path / "read").read_bytes() == (tmp_path / "archive").read_bytes()
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to("other/file")
    regfs("export", "app/plain:1", "-o", str(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "other/file").read_bytes() == (tmp_path / "archive").read_bytes()


def test_a_layer_that_no_registry_has_is_left_out_and_said_so(
    regfs: Regfs, server: FaultServer, tmp_path: Path
) -> None:
    """Export failed whole for images of Windows, whose base layer is kept outside of registries."""
    base, windows = WINDOWS.layers[0], ["--platform", "windows/amd64"]
    told = json.loads(regfs("export", "--json", *windows, "app/windows:1"))
    assert [str(base.digest) in note for note in told["notes"]] == [True]
    members = unpacked(tmp_path / "archive")
    assert f"blobs/sha256/{base.digest.encoded}" not in members
    assert f"blobs/sha256/{WINDOWS.layers[1].digest.encoded}" in members
    regfs("import", *windows, str(tmp_path / "archive"), cache="here")
    with Shown(tmp_path / "here", default_registry=server.address, offline=True) as shown:
        assert shown.read(f"app/windows/1/blobs/{WINDOWS.layers[1].digest}") == WINDOWS.layers[1].blob


def test_what_was_pinned_is_pinned_there_and_no_limit_takes_it(
    regfs: Regfs, server: FaultServer, tmp_path: Path
) -> None:
    pinned = regfs("pin", "app/docker:1").strip()
    regfs("export", "--pinned", "app/plain:1")
    said = regfs("import", str(tmp_path / "archive"), cache="here").splitlines()
    assert f"{pinned} (pinned)" in said
    assert len(said) == 2
    with Shown(tmp_path / "here", default_registry=server.address, offline=True) as shown:
        shown.app.layers.budget.trim(0)
        assert shown.read("app/docker/1/rootfs/name") == b"docker"
        with pytest.raises(RegfsError):
            shown.read("app/plain/1/rootfs/name")


def test_skopeo_reads_the_archive_and_what_it_writes_is_imported(regfs: Regfs, tmp_path: Path) -> None:
    if shutil.which("skopeo") is None:
        missing("skopeo is not installed (apt-get install skopeo)")
    regfs("export", "app/plain:1", "app/docker:1")  # two images of one tag
    entries = json.loads(unpacked(tmp_path / "archive")["index.json"])["manifests"]
    names = [entry.get("annotations", {}).get("org.opencontainers.image.ref.name", "") for entry in entries]
    for number, name in enumerate(name for name in names if name.endswith("/app/plain:1") or "/app/docker" in name):
        to = f"oci-archive:{tmp_path}/skopeo{number}:quay.io/org/app:{number}"
        subprocess.run(["skopeo", "copy", "-q", f"oci-archive:{tmp_path}/archive:{name}", to], check=True)
        said = regfs("import", str(tmp_path / f"skopeo{number}"), cache="here")
        assert said.startswith(f"quay.io/org/app:{number}@sha256:")
        assert regfs("cat", "--offline", f"quay.io/org/app:{number}:/name", cache="here") == ("plain", "docker")[number]


def test_an_archive_that_tells_no_repository_gets_one(regfs: Regfs, tmp_path: Path) -> None:
    regfs("export", "app/plain:1")
    members = unpacked(tmp_path / "archive")
    index = json.loads(members["index.json"])
    del index["manifests"][0]["annotations"]["io.containerd.image.name"]
    archive = packed(tmp_path / "tags", {**members, "index.json": json.dumps(index).encode()})
    with pytest.raises(InvalidOption, match=r"has tags and no repository \(1\); --as REPOSITORY"):
        regfs("import", str(archive), cache="here")
    assert regfs("import", "--as", "ghcr.io/org/app", str(archive), cache="here").startswith("ghcr.io/org/app:1@")
    assert regfs("import", "--as", "ghcr.io/org/app:2", str(archive), cache="here").startswith("ghcr.io/org/app:2@")
    index["manifests"] = [{**index["manifests"][0], "annotations": {}}]
    nameless = packed(tmp_path / "nameless", {**members, "index.json": json.dumps(index).encode()})
    with pytest.raises(InvalidOption, match="names no image; --as REPOSITORY:TAG"):
        regfs("import", str(nameless), cache="here")
    assert regfs("import", "--as", "ghcr.io/org/app:3", str(nameless), cache="here").startswith("ghcr.io/org/app:3@")


def test_members_come_in_any_order_and_the_archive_may_be_compressed(regfs: Regfs, tmp_path: Path) -> None:
    regfs("export", "app/plain:1")
    members = unpacked(tmp_path / "archive")
    backwards = {f"./{name}": members[name] for name in reversed(members)}
    archive = packed(tmp_path / "backwards", {"./../../evil": b"", **backwards})
    archive.write_bytes(gzip.compress(archive.read_bytes()))
    regfs("import", str(archive), cache="here")
    assert regfs("cat", "--offline", "app/plain:1:/name", cache="here") == "plain"


def without_layer(members: dict[str, bytes]) -> dict[str, bytes]:
    biggest = max(members, key=lambda name: len(members[name]))
    return {name: content for name, content in members.items() if name != biggest}


def with_rot(members: dict[str, bytes]) -> dict[str, bytes]:
    biggest = max(members, key=lambda name: len(members[name]))
    return {**members, biggest: members[biggest][:-1] + bytes([members[biggest][-1] ^ 1])}


WRONG: dict[str, tuple[Callable[[dict[str, bytes]], dict[str, bytes]], type[RegfsError], str]] = {
    "a layer is missing": (without_layer, BadContent, "lacks a part of"),
    "a bit has changed": (with_rot, DigestMismatch, "have the digest"),
    "no index.json": (lambda members: {"oci-layout": members["oci-layout"]}, BadContent, "no index.json"),
    "docker's own": (lambda _: {"manifest.json": b"[]"}, Unsupported, "skopeo copy docker-archive:"),
    "an index.json without end": (lambda _: {"index.json": bytes(DOCUMENT_LIMIT + 1)}, TooLarge, "index.json"),
    "a blob under no digest": (lambda _: {"blobs/sha256/ab": b""}, BadContent, "under no digest"),
    "no manifest": (lambda members: {"index.json": members["index.json"]}, BadContent, "lacks the manifest"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_archive_is_refused_by_name_and_no_image_of_it_is_here(regfs: Regfs, tmp_path: Path, what: str) -> None:
    regfs("export", "app/plain:1")
    change, kind, message = WRONG[what]
    archive = packed(tmp_path / "wrong", change(unpacked(tmp_path / "archive")))
    with pytest.raises(kind, match=message):
        regfs("import", str(archive), cache="here")
    assert [str(problem) for problem in verify(tmp_path / "here", drop=False)] == []
    with pytest.raises(RegfsError):
        regfs("cat", "--offline", "app/plain:1:/name", cache="here")


@pytest.mark.parametrize("part", [0.0, 0.5, 0.999])
def test_an_archive_that_ends_too_soon_is_refused(regfs: Regfs, tmp_path: Path, part: float) -> None:
    regfs("export", "app/plain:1")
    content = (tmp_path / "archive").read_bytes()
    layer_end = content.rstrip(b"\0")
    (tmp_path / "short").write_bytes(layer_end[: int(len(layer_end) * part)])
    with pytest.raises(BadContent):
        regfs("import", str(tmp_path / "short"), cache="here")


def test_an_image_that_the_policy_refuses_is_in_no_archive_as_a_referrer(
    server: FaultServer, regfs: Regfs, tmp_path: Path
) -> None:
    registry = server.application
    assert isinstance(registry, MemoryRegistry)
    allowed, evil = image("allowed"), image("evil")
    for built in (allowed, evil):
        for content in built.blobs().values():
            registry.add_blob("app/guarded", content)
    registry.add_manifest("app/guarded", allowed.manifest, tag="1")
    refer(registry, "app/guarded", allowed.digest, notary(allowed.digest))
    artifact = Artifact(evil.manifest, evil.config, ())
    said = refer(registry, "app/guarded", allowed.digest, artifact, kind="application/vnd.example")
    policy = tmp_path / "policy.json"
    scopes = {f"{server.address}/app/guarded@{said.digest}": [{"type": "reject"}]}
    policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}], "transports": {"docker": scopes}}))
    for options, has_evil in (((), True), (("--policy", str(policy)), False)):
        regfs("export", *options, "app/guarded:1")
        members = set(unpacked(tmp_path / "archive"))
        assert f"blobs/sha256/{allowed.layers[0].digest.encoded}" in members
        for digest in (said.digest, evil.layers[0].digest):
            assert (f"blobs/sha256/{digest.encoded}" in members) is has_evil


def test_an_unpacked_layer_is_not_packed_again_and_the_error_says_so(regfs: Regfs) -> None:
    regfs("ls", "app/plain:1")
    with pytest.raises(Offline, match="the cache has this one unpacked"):
        regfs("export", "--offline", "app/plain:1")


@pytest.mark.parametrize("to_stdout", [True, False])
def test_ctrl_c_leaves_nothing_of_an_archive(server: FaultServer, tmp_path: Path, to_stdout: bool) -> None:
    before = len(server.seen)
    server.on("GET", f"blobs/{image('docker').layers[0].digest}", silence)
    archive = tmp_path / "archive"
    words = [] if to_stdout else ["-o", str(archive)]
    with (tmp_path / "stdout").open("wb") as stdout:
        stdout.write(b"before")
        stdout.flush()
        process = subprocess.Popen(
            [*regfs_command(), "export", "-q", "--cache-dir", str(tmp_path / "cache"), *words,
             f"{server.address}/app/docker:1"],
            stdout=stdout, stderr=subprocess.PIPE, env=environment_for(tmp_path),
        )  # fmt: skip
        end = time.monotonic() + 60
        while not any(str(image("docker").layers[0].digest) in seen.path for seen in server.seen[before:]):
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    server.heal()
    assert process.returncode == 130, said
    assert (tmp_path / "stdout").read_bytes() == b"before"
    assert not archive.exists()
    assert not list(tmp_path.glob(".regfs-*"))
