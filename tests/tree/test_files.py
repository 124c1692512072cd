"""files/: an artifact as the directory that its own tool would write, and what listing it costs."""

from __future__ import annotations

import json

import pytest

from regfs.errors import DigestMismatch, NotFound
from regfs.model.digest import Digest
from tests.support.artifacts import TITLE, Artifact, archive, artifact_of, blob, push_artifact
from tests.support.images import OCI, directory, file, image_of, layer, symlink
from tests.support.served import Served

TAR = f"{OCI}.layer.v1.tar"
UNPACK = "io.deis.oras.content.unpack"
HELM = "application/vnd.cncf.helm."
KITOPS = "application/vnd.kitops.modelkit."


def push(served: Served, built: Artifact, name: str = "model") -> Artifact:
    return push_artifact(served.registry, name, "1", built)


def asked(served: Served) -> list[str]:
    """Return what was asked for, as method and kind."""
    return [f"{seen.method} {seen.path.split('/')[-2]}" for seen in served.server.seen]


def oras() -> Artifact:
    return artifact_of(
        blob(b"weights" * 1000, TAR, {TITLE: "model.bin"}),
        blob(b"# read me\n", TAR, {TITLE: "docs/README.md"}),
        archive(
            directory("site"), file("site/index.html", b"<p>"), symlink("site/link", "index.html"),
            media_type=f"{TAR}+gzip", annotations={TITLE: "site", UNPACK: "true"},
        ),
        kind="application/vnd.example",
    )  # fmt: skip


def test_an_oras_artifact_is_the_directory_that_was_pushed(served: Served) -> None:
    push(served, oras())
    shown = served.show()
    assert sorted(shown.names("model/1")) == [
        "blobs", "config.json", "digest", "files", "manifest-digest", "manifest.json", "oci", "referrers",
    ]  # fmt: skip
    assert shown.names("model/1/files") == ["model.bin", "docs", "site"]
    assert shown.read("model/1/files/model.bin") == b"weights" * 1000
    assert shown.read("model/1/files/docs/README.md") == b"# read me\n"
    assert sorted(shown.names("model/1/files/site")) == ["index.html", "link"]
    assert shown.read("model/1/files/site/index.html") == b"<p>"
    assert shown.link("model/1/files/site/link") == b"index.html"
    with pytest.raises(NotFound):
        shown.find("model/1/rootfs")
    with pytest.raises(NotFound):
        shown.find("model/1/files/model.bin.old")


def test_listing_files_costs_the_manifest_alone(served: Served) -> None:
    push(served, oras())
    shown = served.show()
    assert shown.attributes("model/1/files/model.bin").size == 7000
    assert shown.attributes("model/1/files/docs/README.md").size == 10
    shown.names("model/1/files")
    shown.listed("model/1/files", b"site")
    assert [line for line in asked(served) if "blobs" in line] == []
    assert len(asked(served)) <= 3


def test_a_chart_s_names_cost_its_config_at_most(served: Served) -> None:
    built = artifact_of(
        archive(file("web/Chart.yaml", b"name: web\n"), media_type=f"{HELM}chart.content.v1.tar+gzip"),
        config=b'{"name": "web", "version": "1.0.0"}',
        config_type=f"{HELM}config.v1+json",
    )
    push(served, built)
    shown = served.show()
    assert shown.names("model/1/files") == ["web"]
    assert asked(served) == ["GET tags", "HEAD manifests", "GET manifests", "GET blobs"]
    assert shown.read("model/1/files/web/Chart.yaml") == b"name: web\n"


def test_a_large_blob_has_a_descriptor_of_its_own_for_the_kernel(served: Served) -> None:
    push(served, oras())
    shown = served.show()
    opened = shown.tree.open(shown.find("model/1/files/model.bin").node)
    assert opened.backing_fd() is not None
    opened.close()


def test_the_tar_of_a_modelkit_is_found_without_a_diff_id_and_again_without_the_registry(served: Served) -> None:
    built = artifact_of(
        archive(file("models/m.gguf", b"GGUF"), media_type=f"{KITOPS}model.v1.tar+gzip"),
        archive(file("a.py", b"1"), file("b.py", b"2"), media_type=f"{KITOPS}code.v1.tar", compression="none"),
        config=json.dumps({"model": {"path": "./models"}, "code": [{"path": "."}]}).encode(),
        config_type=f"{KITOPS}config.v1+json",
    )
    push(served, built)
    shown = served.show()
    assert shown.read("model/1/files/models/m.gguf") == b"GGUF"
    assert sorted(shown.names("model/1/files/code")) == ["a.py", "b.py"]
    again = served.show(offline=True)
    assert again.read("model/1/files/models/m.gguf") == b"GGUF"


def test_a_tar_with_more_than_its_title_says_is_shown_whole_and_told(served: Served) -> None:
    annotations = {TITLE: "site", UNPACK: "true"}
    entries = (file("site/a", b"a"), file("other", b"b"))
    push(served, artifact_of(archive(*entries, media_type=f"{TAR}+gzip", annotations=annotations)))
    shown = served.show()
    assert sorted(shown.names("model/1/files/site")) == ["other", "site"]
    assert "more than 'site'" in shown.journal.text()


def test_a_tar_of_another_digest_than_the_artifact_says_is_not_shown(served: Served) -> None:
    wrong = {TITLE: "site", UNPACK: "true", "io.deis.oras.content.digest": str(Digest.of(b"another"))}
    push(served, artifact_of(archive(file("site/a", b"a"), media_type=f"{TAR}+gzip", annotations=wrong)))
    with pytest.raises(DigestMismatch):
        served.show().names("model/1/files/site")


def test_hostile_names_stay_below_files_and_are_told_in_errors(served: Served) -> None:
    names = ["/etc/passwd", "../../up", "ok", "ok", "ok/below"]
    push(served, artifact_of(*[blob(b"%d" % number, TAR, {TITLE: name}) for number, name in enumerate(names)]))
    shown = served.show()
    listed = shown.names("model/1/files")
    assert "ok" in listed
    assert all(name == "ok" or name.startswith(("sha256-", "ok (sha256-")) for name in listed)
    assert shown.read("model/1/files/ok") == b"2"
    assert shown.read(f"model/1/files/sha256-{Digest.of(b'0').encoded}") == b"0"
    assert "'/etc/passwd' cannot be a name" in shown.journal.text()
    assert "'ok' is the name of two blobs" in shown.journal.text()


def test_files_of_a_model_pack_have_the_attributes_that_it_says(served: Served) -> None:
    metadata = json.dumps({"mode": 0o640, "uid": 7, "gid": 8, "mtime": "2026-01-01T00:00:00Z"})
    annotations = {"org.cncf.model.filepath": "w/m.bin", "org.cncf.model.file.metadata+json": metadata}
    push(served, artifact_of(blob(b"1234", "application/vnd.cncf.model.weight.v1.raw", annotations)))
    attributes = served.show().attributes("model/1/files/w/m.bin")
    assert (attributes.mode & 0o7777, attributes.uid, attributes.gid, attributes.size) == (0o640, 7, 8, 4)
    assert attributes.mtime_ns == 1767225600 * 10**9


def test_an_oras_push_with_the_config_of_an_image_is_no_image(served: Served) -> None:
    config = b"{}"
    push(served, artifact_of(blob(b"text", TAR, {TITLE: "a.txt"}), config=config, config_type=f"{OCI}.config.v1+json"))
    shown = served.show()
    assert "rootfs" not in shown.names("model/1")
    assert "layers" not in shown.names("model/1")
    assert shown.read("model/1/files/a.txt") == b"text"
    with pytest.raises(NotFound, match="artifact"):
        shown.find("model/1/rootfs")


def test_an_image_has_no_files_and_one_whose_layers_have_titles_has_both(served: Served) -> None:
    served.push("app", "1", image_of(layer(file("a"))))
    titled = layer(file("a"))
    object.__setattr__(titled, "annotations", {TITLE: "base.tar.gz"})
    served.push("app", "2", image_of(titled))
    shown = served.show()
    assert "files" not in shown.names("app/1")
    with pytest.raises(NotFound):
        shown.find("app/1/files")
    assert shown.names("app/2/files") == ["base.tar.gz"]
    assert shown.names("app/2/rootfs") == ["a"]


def test_every_listed_file_has_the_inode_number_and_mode_that_a_look_up_finds(served: Served) -> None:
    push(served, oras())
    shown = served.show()
    for path in ("model/1/files", "model/1/files/docs", "model/1/files/site"):
        for entry in shown.tree.listing(shown.find(path).node).entries(0, 100):
            found = shown.find(path.encode() + b"/" + entry.name)
            assert entry.attributes[:8] == found.attributes[:8]
            assert entry.attributes[60:62] == found.attributes[60:62]


def test_a_copy_of_an_artifact_can_be_changed_and_deleted(served: Served) -> None:
    push(served, oras())
    shown = served.show()
    modes = {path: shown.attributes(f"model/1/files{path}").mode & 0o777 for path in ("", "/docs", "/model.bin")}
    assert modes == {"": 0o755, "/docs": 0o755, "/model.bin": 0o644}


def test_a_tree_in_another_process_finds_files_that_the_kernel_knows(served: Served) -> None:
    push(served, oras())
    shown = served.show()
    shown.read("model/1/files/docs/README.md")
    shown.read("model/1/files/site/index.html")
    shown.read("model/1/oci/index.json")
    another = served.show(offline=True)
    another.tree.restore(shown.tree.snapshot())
    assert another.read("model/1/files/site/index.html") == b"<p>"
