"""oci/: an image layout that the tools of others read as it is."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from regfs.model.digest import Digest
from tests.support.artifacts import TITLE, artifact_of, blob, push_artifact
from tests.support.images import BuiltImage, file, image_of, index_of, layer
from tests.support.memory_registry import INDEX
from tests.support.served import Served
from tests.support.shown import Shown

AMD64 = {"platform": {"os": "linux", "architecture": "amd64"}}


def built(**more: bool) -> BuiltImage:
    return image_of(layer(file("etc/base", b"base")), layer(file("top", b"top")), **more)  # type: ignore[arg-type]


def manifest_in(shown: Shown, path: str) -> tuple[dict[str, object], bytes]:
    """Return the only entry of index.json, and the manifest that it names, after a look at its digest."""
    (entry,) = json.loads(shown.read(f"{path}/index.json"))["manifests"]
    algorithm, _, encoded = entry["digest"].partition(":")
    content = shown.read(f"{path}/blobs/{algorithm}/{encoded}")
    assert Digest.of(content) == Digest(algorithm, encoded)
    assert entry["size"] == len(content)
    return entry, content


def test_the_layout_has_the_manifest_of_the_platform_and_its_blobs(served: Served) -> None:
    image = served.push("app", "a", built())
    served.document("app", "1", index_of(image.descriptor(**AMD64)), INDEX)
    shown = served.show()
    assert shown.names("app/1/oci") == ["oci-layout", "index.json", "blobs"]
    assert json.loads(shown.read("app/1/oci/oci-layout")) == {"imageLayoutVersion": "1.0.0"}
    entry, content = manifest_in(shown, "app/1/oci")
    assert content == image.manifest
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": "latest"}
    assert entry["platform"] == {"os": "linux", "architecture": "amd64"}
    blobs = {str(digest).removeprefix("sha256:") for digest in (*image.blobs(), image.digest)}
    assert set(shown.names("app/1/oci/blobs/sha256")) == blobs
    assert [seen for seen in served.server.seen if "blobs" in seen.path] == []
    for digest, expected in image.blobs().items():
        assert shown.read(f"app/1/oci/blobs/sha256/{digest.encoded}") == expected


def test_a_manifest_of_docker_s_type_is_an_oci_one_there(served: Served) -> None:
    image = served.push("app", "1", built(docker=True))
    shown = served.show()
    entry, content = manifest_in(shown, "app/1/oci")
    manifest = json.loads(content)
    assert entry["mediaType"] == manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    assert {each["mediaType"] for each in manifest["layers"]} == {"application/vnd.oci.image.layer.v1.tar+gzip"}
    assert [each["digest"] for each in manifest["layers"]] == [str(each.digest) for each in image.layers]


def test_an_artifact_has_a_layout_too(served: Served) -> None:
    pushed = artifact_of(blob(b"text", "text/plain", {TITLE: "a"}), kind="application/vnd.example")
    push_artifact(served.registry, "notes", "1", pushed)
    shown = served.show()
    entry, content = manifest_in(shown, "notes/1/oci")
    assert content == pushed.manifest
    assert entry["artifactType"] == "application/vnd.example"
    assert shown.read(f"notes/1/oci/blobs/sha256/{Digest.of(b'{}').encoded}") == b"{}"


def written(shown: Shown, path: str, target: Path) -> Path:
    """Copy the directory *path* of the tree to *target*, and return that."""
    target.mkdir()
    for name in shown.names(path):
        if shown.attributes(f"{path}/{name}").mode & 0o170000 == 0o040000:
            written(shown, f"{path}/{name}", target / name)
        else:
            (target / name).write_bytes(shown.read(f"{path}/{name}"))
    return target


@pytest.mark.parametrize("docker", [False, True])
def test_skopeo_and_umoci_read_it(served: Served, tmp_path: Path, *, docker: bool) -> None:
    image = served.push("app", "1", built(docker=docker))
    layout = written(served.show(), "app/1/oci", tmp_path / "layout")
    subprocess.run(["skopeo", "copy", "--quiet", f"oci:{layout}", f"dir:{tmp_path / 'copied'}"], check=True)
    names = {path.name for path in (tmp_path / "copied").iterdir()}
    assert {digest.encoded for digest in image.blobs()} <= names
    bundle = tmp_path / "bundle"
    unpack = ["umoci", "unpack", "--rootless", "--image", f"{layout}:latest", str(bundle)]
    subprocess.run(unpack, check=True, capture_output=True)
    assert (bundle / "rootfs/etc/base").read_bytes() == b"base"
    assert (bundle / "rootfs/top").read_bytes() == b"top"
