"""Artifacts: which names the tools that made them give to their blobs, and that no name leads out of files/."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regfs.model.artifacts.documents import chart_name, kitfile_paths, parse_metadata
from regfs.model.artifacts.layout import ArtifactFile, Layout, Placing, digest_name
from regfs.model.artifacts.producers import has_names, layout_of, wants_config
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from tests.support.artifacts import TITLE, Artifact, artifact_of, blob

TAR = "application/vnd.oci.image.layer.v1.tar"
CNCF, CNAI = "application/vnd.cncf.model.", "application/vnd.cnai.model."
DOCKER = "application/vnd.docker.ai."
KITOPS = "application/vnd.kitops.modelkit."
HELM = "application/vnd.cncf.helm."


def named(built: Artifact) -> dict[str, ArtifactFile]:
    """Return the files by their paths."""
    return files_of(layout_of(built.parsed, built.config if wants_config(built.parsed) else b""))


def files_of(layout: Layout) -> dict[str, ArtifactFile]:
    return {
        f"{path}/{name}".lstrip("/"): file
        for path, directory in layout.directories.items()
        for name, file in directory.items()
        if file is not None
    }


def archives(built: Artifact) -> dict[str, tuple[str, ...]]:
    return {path: file.inside for path, file in named(built).items() if file.is_archive}


def test_an_oras_file_is_a_file_though_its_media_type_is_that_of_a_tar() -> None:
    files = named(artifact_of(blob(b"1", TAR, {TITLE: "data/a.bin"}), blob(b"2", f"{TAR}+gzip", {TITLE: "b.tgz"})))
    assert {path: file.is_archive for path, file in files.items()} == {"data/a.bin": False, "b.tgz": False}


def test_an_oras_directory_is_a_tree_whose_tar_digest_is_known() -> None:
    annotations = {TITLE: "site", "io.deis.oras.content.unpack": "true", "io.deis.oras.content.digest": str(A)}
    (file,) = named(artifact_of(blob(b"1", f"{TAR}+gzip", annotations))).values()
    assert (file.is_archive, file.inside, file.diff_id) == (True, ("site",), A)


def test_a_directory_of_oras_s_client_in_python_is_a_tree_by_its_type_alone() -> None:
    layers = [
        blob(b"1", f"{TAR}+gzip", {TITLE: "site"}),
        blob(b"2", f"{TAR}+gzip", {TITLE: "b.tar.gz"}),
        blob(b"3", TAR, {TITLE: "a.bin"}),
    ]
    of_python = artifact_of(*layers, config_type="application/vnd.unknown.config.v1+json")
    assert archives(of_python) == {"site": ("site",)}
    assert archives(artifact_of(*layers, config_type="application/vnd.example.config.v1+json")) == {}


@pytest.mark.parametrize(("types", "names"), [(CNCF, "org.cncf.model."), (CNAI, "org.cnai.model.")])
def test_a_model_pack_has_its_paths_and_attributes(types: str, names: str) -> None:
    metadata = json.dumps({"mode": 0o100640, "uid": 7, "gid": 8, "mtime": "2026-01-01T00:00:01Z", "size": 1})
    raw = {f"{names}filepath": "weights/m.safetensors", f"{names}file.metadata+json": metadata}
    built = artifact_of(
        blob(b"1", f"{types}weight.v1.raw", raw),
        blob(b"2", f"{types}dataset.v1.tar", {f"{names}filepath": "data/train/"}),
        blob(b"3", f"{types}code.v1.tar+gzip", {f"{names}filepath": "."}),
        blob(b"4", f"{types}weight.v1.gguf"),
    )
    files = named(built)
    weights = files["weights/m.safetensors"]
    assert (weights.mode, weights.uid, weights.gid, weights.mtime_ns) == (0o640, 7, 8, 1767225601 * 10**9)
    assert archives(built) == {"data/train": ("data", "train"), "code": ()}
    assert files["data/train"].diff_id == files["data/train"].descriptor.digest  # a plain tar is its own
    assert files["code"].diff_id is None
    assert "model.gguf" in files


def test_a_docker_model_without_paths_has_the_names_that_the_runner_gives() -> None:
    types = ("gguf.v3", "license", "license", "chat.template.jinja", "gguf.v3", "vllm.config.tar")
    built = artifact_of(*[blob(b"%d" % number, f"{DOCKER}{kind}") for number, kind in enumerate(types)])
    assert list(named(built)) == [
        "model.gguf", "LICENSE", "LICENSE-2", "template.jinja", "model-2.gguf", "vllm-config"
    ]  # fmt: skip
    assert archives(built) == {"vllm-config": ()}


def test_a_docker_model_with_paths_has_those() -> None:
    built = artifact_of(blob(b"1", f"{DOCKER}model.file", {"org.cncf.model.filepath": "a/config.json"}))
    assert list(named(built)) == ["a/config.json"]


def test_a_modelkit_has_the_paths_of_its_kitfile() -> None:
    kitfile = {
        "model": {"path": "./models/m.gguf", "parts": [{"path": "lora"}]},
        "code": [{"path": "src"}, {"path": "."}],
        "datasets": [{"path": "data"}],
        "docs": [{"path": "README.md"}],
    }
    kinds = ("model", "modelpart", "dataset", "code", "code", "docs")
    built = artifact_of(
        *[blob(b"%d" % number, f"{KITOPS}{kind}.v1.tar+gzip") for number, kind in enumerate(kinds)],
        config=json.dumps(kitfile).encode(),
        config_type=f"{KITOPS}config.v1+json",
    )
    paths = ["models/m.gguf", "lora", "data", "src", "code", "README.md"]
    assert sorted(archives(built)) == sorted(paths)


@pytest.mark.parametrize("in_config", [False, True])
def test_a_chart_is_a_directory_beside_its_provenance(in_config: bool) -> None:
    built = artifact_of(
        blob(b"1", f"{HELM}chart.content.v1.tar+gzip"),
        blob(b"2", f"{HELM}chart.provenance.v1.prov"),
        config=b'{"name": "web", "version": "1.2.3+4"}',
        config_type=f"{HELM}config.v1+json",
        annotations={} if in_config else {TITLE: "web", "org.opencontainers.image.version": "1.2.3+4"},
    )
    assert wants_config(built.parsed) == in_config
    assert list(named(built)) == ["web", "web-1.2.3+4.tgz.prov"]
    assert archives(built) == {"web": ("web",)}


def test_bundles_modules_and_unknown_blobs_have_names_of_their_own() -> None:
    built = artifact_of(
        blob(b"{}1", "application/vnd.dev.sigstore.bundle.v0.3+json"),
        blob(b"2", "application/vnd.wasm.content.layer.v1+wasm"),
        blob(b"3", "application/vnd.in-toto+json"),
        blob(b"4", "application/x-what"),
        blob(b"{}", "application/vnd.oci.empty.v1+json"),
    )
    first, second, third, fourth, _ = built.parsed.layers
    assert list(named(built)) == [
        f"sha256-{first.digest.encoded}.sigstore.json",
        "module.wasm",
        f"sha256-{third.digest.encoded}.json",
        f"sha256-{fourth.digest.encoded}",
    ]
    assert second in [file.descriptor for file in named(built).values()]


def test_an_image_s_layers_have_no_names() -> None:
    assert not has_names(artifact_of(blob(b"1", f"{TAR}+gzip"), blob(b"2", TAR)).parsed)
    assert has_names(artifact_of(blob(b"1", f"{TAR}+gzip"), blob(b"2", "application/wasm")).parsed)


A, B = Digest.of(b"a"), Digest.of(b"b")


def placed(*names: str) -> tuple[dict[str, ArtifactFile], tuple[str, ...]]:
    """Place different blobs under *names*; return files and remarks."""
    placing = Placing()
    for number, name in enumerate(names):
        placing.add(name, ArtifactFile(Descriptor("x/y", Digest.of(b"%d" % number), 1)))
    return files_of(placing.layout()), placing.layout().remarks


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "a/../b", "a//b", "a/", ".", "n\0l", "x" * 256, "a/" * 99])
def test_a_name_that_leads_out_or_is_none_is_the_digest_instead(name: str) -> None:
    files, remarks = placed(name)
    assert list(files) == [f"sha256-{Digest.of(b'0').encoded}"]
    assert len(remarks) == 1


def test_the_first_of_equal_names_keeps_it() -> None:
    files, remarks = placed("a", "a", "a")
    suffixes = [f"a (sha256-{Digest.of(b'%d' % number).encoded[:12]})" for number in (1, 2)]
    assert list(files) == ["a", *suffixes]
    assert len(remarks) == 2


def test_equal_names_of_one_blob_are_one_file_and_two_names_of_it_are_two() -> None:
    placing = Placing()
    for name in ("a", "a", "b"):
        placing.add(name, ArtifactFile(Descriptor("x/y", A, 1)))
    assert list(files_of(placing.layout())) == ["a", "b"]
    assert placing.layout().remarks == ()


def test_a_file_that_should_be_a_directory_stays_a_file() -> None:
    files, remarks = placed("a", "a/b", "a/c", "d/e", "d")
    second, third = (f"sha256-{Digest.of(b'%d' % number).encoded[:12]}" for number in (1, 2))
    last = f"d (sha256-{Digest.of(b'4').encoded[:12]})"
    assert set(files) == {"a", f"a ({second})/b", f"a ({third})/c", "d/e", last}
    assert len(remarks) == 3


NAMES = st.one_of(st.text(max_size=12), st.lists(st.sampled_from(["a", "b", "..", ".", "", "c\0"])).map("/".join))


@settings(max_examples=60)
@given(st.lists(st.tuples(NAMES, st.integers(0, 3), st.booleans()), max_size=12))
def test_every_blob_has_a_name_that_a_file_system_can_have(blobs: list[tuple[str, int, bool]]) -> None:
    placing = Placing()
    for name, number, is_archive in blobs:
        name = name.encode("utf-8", "replace").decode()
        placing.add(name, ArtifactFile(Descriptor("x/y", Digest.of(b"%d" % number), 1), is_archive))
    layout = placing.layout()
    files = files_of(layout)
    assert {file.descriptor.digest for file in files.values()} == {Digest.of(b"%d" % number) for _, number, _ in blobs}
    for path, directory in layout.directories.items():
        for name, file in directory.items():
            assert name not in ("", ".", "..")
            assert not set(name) & {"/", "\0"}
            assert len(name.encode()) <= 255
            assert (file is None) == (f"{path}/{name}".lstrip("/") in layout.directories)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["model", "path", "parts", "code", "mode", "uid", "mtime", "name", "version"]), inner
        )
    ),
)


@settings(max_examples=40)
@given(JSON | st.binary(max_size=40))
def test_documents_of_strangers_never_fail(document: object) -> None:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    for paths in kitfile_paths(content).values():
        assert all(isinstance(path, str) for path in paths)
    assert all(isinstance(text, str) for text in chart_name(content))
    metadata = parse_metadata(content.decode("utf-8", "replace"))
    assert 0 < metadata.mode <= 0o777
    assert 0 <= metadata.uid < 1 << 32
    assert 0 <= metadata.mtime_ns < 1 << 63


def test_the_digest_name_of_a_blob_tells_a_document() -> None:
    assert digest_name(Descriptor("a/b+json", A, 1)) == f"sha256-{A.encoded}.json"
    assert digest_name(Descriptor("a/b", B, 1)) == f"sha256-{B.encoded}"
