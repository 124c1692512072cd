"""What an answer says beside its bytes, and what one answer says of the next, seen by the user of a mount.

A Content-Type, the media type and the size in an index, the media type of a config, a HEAD: all of them are hints. What
has a digest is decided by its bytes, and an answer that was wrong once does no harm later.
"""

from __future__ import annotations

import json
import os
from errno import EOPNOTSUPP, errorcode

from regfs.model import media_types
from regfs.model.digest import Digest
from tests.e2e.faults.conftest import MOTD, by_itself
from tests.support.fault_server import FaultServer, changed
from tests.support.faulty_mount import FaultyMount
from tests.support.hello import host_architecture
from tests.support.images import file, image_of, index_of, layer
from tests.support.memory_registry import INDEX, MANIFEST, described
from tests.support.variants import all_at_once

HERE = {"os": "linux", "architecture": host_architecture()}


SAID = ["application/octet-stream", "text/html", media_types.DOCKER_MANIFEST, INDEX]


@by_itself
def test_a_manifest_that_came_once_with_a_wrong_content_type_opens_then_and_later(faulty: FaultyMount) -> None:
    servers = {said: faulty.new_server() for said in SAID}
    by_tag = {said: faulty.push_app(server=server) for said, server in servers.items()}
    by_digest = {said: faulty.push_app("other", server=server) for said, server in servers.items()}
    for said, server in servers.items():
        wrong = changed(lambda right, said=said: right.with_header("Content-Type", said))  # type: ignore[misc]
        server.on("*", "/manifests/", wrong, times=4)

    def check(said: str, server: FaultServer) -> None:
        assert faulty.reads(faulty.path(MOTD, server=server))
        other = faulty.path(f"other/{by_digest[said].digest}/rootfs/motd", server=server)
        assert other.read_bytes() == faulty.path("other/1/rootfs/motd", server=server).read_bytes()
        manifest = faulty.path(f"app/{by_tag[said].digest}/manifest.json", server=server)
        assert manifest.read_bytes() == by_tag[said].manifest

    faulty.mount()
    all_at_once(check, servers)
    faulty.heal()
    faulty.remount()
    all_at_once(check, servers)
    assert faulty.errors() == ""


def test_an_index_that_calls_a_manifest_by_the_other_vendors_type_or_gives_it_a_wrong_size_opens(
    faulty: FaultyMount,
) -> None:
    for name, docker in (("docker", True), ("oci", False)):
        built = image_of(layer(file("motd", b"hello")), architecture=HERE["architecture"], docker=docker)
        app = faulty.push(name, "a", built)
        entry = app.descriptor(platform=HERE)
        other = MANIFEST if docker else media_types.DOCKER_MANIFEST
        for tag, change in (("type", {"mediaType": other}), ("size", {"size": 10}), ("none", {"mediaType": ""})):
            faulty.registry.add_manifest(name, index_of(entry | change, docker=docker), tag=tag, media_type=INDEX)
            directory = faulty.path(f"{name}/{tag}")
            assert (directory / "rootfs/motd").read_bytes() == b"hello"
            assert (directory / "manifest.json").read_bytes() == app.manifest
            assert os.stat(directory / "manifest.json").st_size == len(app.manifest)
            assert (directory / f"manifests/linux-{HERE['architecture']}/rootfs/motd").read_bytes() == b"hello"
    assert faulty.errors() == ""


def test_a_manifest_that_an_index_calls_an_index_is_an_error_under_that_name_alone(faulty: FaultyMount) -> None:
    app = faulty.push_app()
    entry = app.descriptor(platform=HERE) | {"mediaType": INDEX}
    faulty.registry.add_manifest("app", index_of(entry), tag="wrong", media_type=INDEX)
    assert faulty.reads(faulty.path(MOTD))
    assert "rootfs" not in os.listdir(faulty.path("app/wrong"))
    assert faulty.fails(faulty.path("app/wrong/rootfs"), os.listdir) == "EIO"
    assert f"{app.digest}: it is" in faulty.errors()
    assert (faulty.path(f"app/{app.digest}") / "rootfs/etc/hosts").read_bytes() == b"127.0.0.1 localhost\n"


def test_an_image_that_docker_pushed_in_2016_has_a_rootfs(faulty: FaultyMount) -> None:
    built = image_of(layer(file("motd", b"hello")), architecture=HERE["architecture"], docker=True)
    faulty.push("app", "new", built)
    manifest = json.loads(built.manifest)
    for number, config_type in enumerate(("application/octet-stream", "text/html", "application/json", "", None)):
        manifest["config"]["mediaType"] = config_type
        content = json.dumps(manifest).encode()
        faulty.registry.add_manifest("app", content, tag=f"old{number}", media_type=media_types.DOCKER_MANIFEST)
        assert {"layers", "rootfs"} < set(os.listdir(faulty.path(f"app/old{number}")))
        assert faulty.path(f"app/old{number}/rootfs/motd").read_bytes() == b"hello"


def test_a_chart_in_a_docker_manifest_and_an_old_config_type_in_an_oci_one_are_no_images(faulty: FaultyMount) -> None:
    for tag, docker, config_type in (("chart", True, "application/vnd.cncf.helm.config.v1+json"), ("oci", False, "")):
        built = image_of(layer(file("motd", b"hello")), architecture=HERE["architecture"], docker=docker)
        faulty.push("app", f"{tag}-image", built)
        manifest = json.loads(built.manifest)
        manifest["config"]["mediaType"] = config_type
        faulty.registry.add_manifest("app", json.dumps(manifest).encode(), tag=tag, media_type=built.media_type)
        assert not {"layers", "rootfs"} & set(os.listdir(faulty.path(f"app/{tag}")))
        assert faulty.fails(faulty.path(f"app/{tag}/rootfs"), os.stat) == "ENOENT"


def test_a_config_of_an_old_type_that_is_no_images_is_an_error_and_its_bytes_are_there(faulty: FaultyMount) -> None:
    built = image_of(layer(file("motd", b"hello")), docker=True)
    faulty.push("app", "1", built)
    content = b"<html>not a config</html>"
    faulty.registry.add_blob("app", content)
    manifest = json.loads(built.manifest)
    manifest["config"] = {"mediaType": "text/html", "digest": str(Digest.of(content)), "size": len(content)}
    document = json.dumps(manifest).encode()
    faulty.registry.add_manifest("app", document, tag="page", media_type=media_types.DOCKER_MANIFEST)
    assert faulty.path("app/page/config.json").read_bytes() == content
    assert faulty.fails(faulty.path("app/page/rootfs"), os.listdir) == "EIO"
    assert faulty.fails(faulty.path("app/page/layers"), os.listdir) == "EIO"


def test_an_index_whose_manifest_was_deleted_is_without_a_rootfs_and_the_reason_is_told(faulty: FaultyMount) -> None:
    app = faulty.push_app()
    faulty.registry.add_manifest("app", index_of(app.descriptor(platform=HERE)), tag="index", media_type=INDEX)
    del faulty.registry.repository("app").manifests[str(app.digest)]
    directory = faulty.path("app/index")
    assert {"digest", "index.json", "manifests"} <= set(os.listdir(directory))
    for name in ("rootfs", f"manifests/linux-{HERE['architecture']}/rootfs"):
        assert faulty.fails(directory / name, os.stat) == "ENOENT"
    told = [line for line in faulty.errors().splitlines() if "ManifestMissing" in line]
    assert len(told) >= 2
    assert all(str(app.digest) in line and "index names" in line for line in told)


def test_of_an_image_with_a_layer_that_is_no_archive_the_other_layers_are_shown(faulty: FaultyMount) -> None:
    built = image_of(layer(file("motd", b"hello")), architecture=HERE["architecture"])
    faulty.push("app", "plain", built)
    module = faulty.registry.add_blob("app", b"\0asm", media_type="application/vnd.wasm.content.layer.v1+wasm")
    manifest = json.loads(built.manifest)
    manifest["layers"].insert(0, described(module))
    faulty.registry.add_manifest("app", json.dumps(manifest).encode(), tag="wasm", media_type=MANIFEST)
    directory = faulty.path("app/wasm")
    (number,) = os.listdir(directory / "layers")
    assert (directory / "layers" / number / "tree/motd").read_bytes() == b"hello"
    assert (directory / f"blobs/{module.digest}").read_bytes() == b"\0asm"
    assert faulty.fails(directory / "rootfs", os.listdir) == errorcode[EOPNOTSUPP]
    assert "vnd.wasm" in faulty.errors()
