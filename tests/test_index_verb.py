"""`regfs index`: a SOCI index of an image is made, pushed, found again and used."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from regfs import __version__
from regfs.model.digest import Digest
from regfs.model.names import RepositoryName
from tests.support.images import BuiltImage, file, image_of, index_of, layer
from tests.support.memory_registry import INDEX
from tests.support.mounted import run_regfs
from tests.support.push import Pusher
from tests.support.registry import DockerRegistry
from tests.support.shown import Shown

BIG, TEXT = os.urandom(6 << 20), b"the quick brown fox jumps over the lazy dog\n"
PLATFORM = {"os": "linux", "architecture": "amd64"}
Regfs = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def regfs(tmp_path: Path) -> Regfs:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return run_regfs(*words, "--cache-dir", tmp_path / "cache", home=tmp_path)

    return run


def an_image() -> BuiltImage:
    return image_of(
        layer(file("big", BIG), file("text", TEXT, xattrs={"user.a": b"1"}), file("more", BIG[::-1])),
        layer(file("small", b"s")),
    )


def fetched(url: str, path: str) -> bytes:
    accept = {"Accept": "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/v2/{path}", headers=accept), timeout=20) as answer:
        content: bytes = answer.read()
        return content


def test_an_index_that_was_pushed_saves_the_next_machine_most_of_the_bytes(
    regfs: Regfs, docker_registry: DockerRegistry, tmp_path: Path
) -> None:
    image = Pusher(docker_registry.url).image("index/one", "1", an_image())
    name = f"{docker_registry.address}/index/one"
    done = regfs("index", "--push", "--min-layer-size", "1", "--span-size", "1", f"{name}:1")
    assert done.returncode == 0, done.stderr
    tag, _, digest = done.stdout.strip().partition("@")
    assert tag == f"{name}:1-soci"
    assert digest == str(Digest.of(fetched(docker_registry.url, "index/one/manifests/1-soci")))
    # the image itself is what it was
    assert fetched(docker_registry.url, "index/one/manifests/1") == image.manifest
    with Shown(tmp_path / "another", default_registry=docker_registry.address) as shown:
        repository = shown.repositories.repository(RepositoryName(docker_registry.address, "index/one"))
        assert repository.tags.resolve("1-soci").digest == Digest.parse(digest)
        assert shown.read("index/one/1-soci/rootfs/text") == TEXT
        assert shown.read("index/one/1-soci/rootfs/small") == b"s"
        assert shown.app.stats.value("layers.tables") == 1
        assert shown.app.stats.value("chunks.bytes") < len(image.layers[0].blob) // 4
    listed = run_regfs("cache", "ls", "--cache-dir", tmp_path / "another", home=tmp_path).stdout.splitlines()
    assert {line[line.index(tag) :]: line.split()[5] for line in listed[1:]} == {
        tag: "1/2",
        f"{tag} (application/vnd.amazon.soci.index.v2+json)": "-",
    }


def test_documents_are_those_that_soci_makes(regfs: Regfs, docker_registry: DockerRegistry) -> None:
    push = Pusher(docker_registry.url)
    image, other = push.image("index/docs", "a", an_image()), push.image("index/docs", "b", image_of(layer(file("x"))))
    arm = {"os": "linux", "architecture": "arm64", "variant": "v8"}
    top = index_of(image.descriptor(platform=PLATFORM), other.descriptor(platform=arm))
    push.manifest("index/docs", "multi", top, INDEX)
    name = f"{docker_registry.address}/index/docs:multi"
    words = ("--platform", "linux/amd64", "--push", "--min-layer-size", "1")
    for _ in range(2):  # the second time the entries are replaced, not added
        assert regfs("index", *words, "--tag", "multi", name).returncode == 0
    made = json.loads(fetched(docker_registry.url, "index/docs/manifests/multi"))
    annotated, untouched, *rest = made["manifests"]
    assert untouched == other.descriptor(platform=arm)
    (entry,) = rest
    assert entry["artifactType"] == "application/vnd.amazon.soci.index.v2+json"
    assert entry["platform"] == annotated["platform"] == PLATFORM
    assert entry["annotations"] == {"com.amazon.soci.image-manifest-digest": annotated["digest"]}
    manifest = json.loads(fetched(docker_registry.url, f"index/docs/manifests/{annotated['digest']}"))
    assert manifest["annotations"] == {"com.amazon.soci.index-digest": entry["digest"]}
    assert manifest["layers"] == json.loads(image.manifest)["layers"]
    soci = json.loads(fetched(docker_registry.url, f"index/docs/manifests/{entry['digest']}"))
    assert soci["config"]["mediaType"] == "application/vnd.amazon.soci.index.v2+json"
    assert soci["annotations"] == {"com.amazon.soci.build-tool-identifier": f"regfs {__version__}"}
    assert soci["config"]["digest"] == str(Digest.of(b"{}"))
    (ztoc,) = soci["layers"]
    assert ztoc["annotations"]["com.amazon.soci.image-layer-digest"] == str(image.layers[0].digest)
    assert len(fetched(docker_registry.url, f"index/docs/blobs/{ztoc['digest']}")) == ztoc["size"]


def test_an_index_is_written_into_a_directory(regfs: Regfs, docker_registry: DockerRegistry, tmp_path: Path) -> None:
    Pusher(docker_registry.url).image("index/out", "1", an_image())
    name, out = f"{docker_registry.address}/index/out:1", tmp_path / "out"
    done = regfs("index", "--output", str(out), "--min-layer-size", "1", name)
    assert done.returncode == 0, done.stderr
    top = json.loads((out / "index.json").read_bytes())["manifests"][0]
    assert done.stdout.strip().endswith(top["digest"])
    for blob in (out / "blobs" / "sha256").iterdir():
        assert Digest.of(blob.read_bytes()).encoded == blob.name
    with pytest.raises(urllib.error.HTTPError, match="404"):
        fetched(docker_registry.url, "index/out/manifests/1-soci")


def test_what_cannot_be_indexed_is_said(regfs: Regfs, docker_registry: DockerRegistry) -> None:
    push = Pusher(docker_registry.url)
    push.image("index/none", "small", image_of(layer(file("a"))))
    push.image("index/none", "zstd", image_of(layer(file("a", BIG), compression="zstd")))
    name = f"{docker_registry.address}/index/none"
    small, zstd = (
        regfs("index", "--push", f"{name}:small"),
        regfs("index", "--push", "--min-layer-size", "0", f"{name}:zstd"),
    )
    assert small.returncode
    assert "no layer of it can be indexed" in small.stderr
    assert zstd.returncode
    assert "is not gzip" in zstd.stderr
    assert "--push, or --output DIR" in regfs("index", f"{name}:small").stderr
    assert "--tag" in regfs("index", "--push", f"{name}@{Digest.of(b'x')}").stderr
