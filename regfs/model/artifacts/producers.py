"""Recognises the tool that made an artifact, and names each blob as that tool does.

    ModelPack (org.cncf.model., old: org.cnai.model.)   the file path in an annotation; types say raw or tar
    Docker models                                       the same; older ones: model.gguf, LICENSE, template.jinja
    KitOps                                              the paths of the Kitfile, which is the config
    Helm                                                the chart's directory, NAME-VERSION.tgz.prov
    ORAS, and all tools that follow it                  the title; a directory if another annotation says so
    ORAS's client in Python                             the title; a directory by the media type alone
    sigstore, WebAssembly                               sha256-….sigstore.json, module.wasm
    others                                              the digest

The first rule that fits a layer names it. A tar is a directory with the name that the manifest has: its own entries are
unknown before it is fetched. ORAS gives a single file the media type of a tar layer, so the type says nothing about a
titled layer. ORAS's client in Python, recognised by its config's type, marks a directory only by the type of a
compressed layer. Sources: CNCF model-spec; docker/model-spec; KitOps, mediaType.go; Helm, registry constants; ORAS,
oras-go content/file, oras-py provider.py; sigstore, BUNDLE_SPEC. Pure; any thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from regfs.errors import InvalidName
from regfs.model.artifacts.documents import FileMetadata, chart_name, kitfile_paths, parse_metadata
from regfs.model.artifacts.layout import ArtifactFile, Layout, Placing, digest_name, safe_parts
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor, Manifest
from regfs.model.media_types import OCI_EMPTY

TITLE = "org.opencontainers.image.title"
_VERSION = "org.opencontainers.image.version"
_UNPACK = "io.deis.oras.content.unpack"
_TAR_DIGEST = "io.deis.oras.content.digest"
_PYTHON_CONFIG = "application/vnd.unknown.config.v1+json"
_PYTHON_DIRECTORY = "application/vnd.oci.image.layer.v1.tar+gzip"
_ARCHIVE_SUFFIXES = (".gz", ".tgz", ".tar")
_MODEL_PACKS = {"application/vnd.cncf.model.": "org.cncf.model.", "application/vnd.cnai.model.": "org.cnai.model."}
_DOCKER_MODEL = "application/vnd.docker.ai."
_KITOPS = "application/vnd.kitops.modelkit."
_KITOPS_CONFIG = f"{_KITOPS}config.v1+json"
_HELM_CONFIG = "application/vnd.cncf.helm.config.v1+json"
_HELM_CHARTS = frozenset({"application/vnd.cncf.helm.chart.content.v1.tar+gzip", "application/tar+gzip"})
_HELM_PROVENANCE = "application/vnd.cncf.helm.chart.provenance.v1.prov"
_BUNDLE = "application/vnd.dev.sigstore.bundle"
_WASM = frozenset(
    {
        "application/vnd.wasm.content.layer.v1+wasm",
        "application/vnd.module.wasm.content.layer.v1+wasm",
        "application/wasm",
    }
)
# The file names of model-runner for a model whose layers have no paths.
_DOCKER_NAMES = {
    "gguf.v3": "model.gguf",
    "gguf.v3.lora": "lora.gguf",
    "gguf.v3.mmproj": "mmproj.gguf",
    "mmproj": "mmproj.gguf",
    "safetensors": "model.safetensors",
    "dduf": "model.dduf",
    "license": "LICENSE",
    "chat.template.jinja": "template.jinja",
    "vllm.config.tar": "vllm-config",
}


class _Named(NamedTuple):
    """What a rule says of a layer. *name* is its file name, *invented* one to be numbered if several layers get it."""

    name: str = ""
    invented: str = ""
    is_archive: bool = False
    inside: str = ""
    diff_id: str = ""
    metadata: FileMetadata = FileMetadata()


class _Context(NamedTuple):
    """What the rules know beside the layer. *seen* counts the earlier layers of each kind."""

    manifest: Manifest
    config: bytes
    paths: Mapping[str, tuple[str, ...]]
    seen: Counter[str]


def wants_config(manifest: Manifest) -> bool:
    """Whether the config must be read, because it has the names of the artifact's files."""
    if manifest.config.media_type == _HELM_CONFIG:
        return not {TITLE, _VERSION} <= manifest.annotations.keys()
    return manifest.config.media_type == _KITOPS_CONFIG


def has_names(manifest: Manifest) -> bool:
    """Whether a rule names any layer. If none does, all files are called by their digests."""
    context = _Context(manifest, b"", {}, Counter())
    return any(_by_rule(layer, context) is not None for layer in manifest.layers)


def has_titles(manifest: Manifest) -> bool:
    """Whether every layer, of any media type, has a title, as ORAS writes it."""
    return bool(manifest.layers) and all(layer.annotations.get(TITLE) for layer in manifest.layers)


def layout_of(manifest: Manifest, config: bytes = b"", *, named_only: bool = False) -> Layout:
    """Return the files and directories of the layers of *manifest*, without layers of the empty type.

    *config* is the config's content, needed if wants_config(). *named_only* leaves out blobs without a name: the layers
    of an image that also carries a file.
    """
    kitfile = kitfile_paths(config) if manifest.config.media_type == _KITOPS_CONFIG else {}
    context = _Context(manifest, config, kitfile, Counter())
    placing = Placing()
    numbers: Counter[str] = Counter()
    for layer in manifest.layers:
        named = _by_rule(layer, context)
        if layer.media_type == OCI_EMPTY or (named is None and named_only):
            continue
        named = named or _Named()
        name = named.name
        if not name and named.invented:
            numbers[named.invented] += 1
            name = _numbered(named.invented, numbers[named.invented])
        placing.add(name or digest_name(layer), _file(layer, named))
    return placing.layout()


def _by_rule(layer: Descriptor, context: _Context) -> _Named | None:
    """Return the name by the first rule that fits *layer*; None if no rule fits."""
    return next((named for rule in _RULES if (named := rule(layer, context)) is not None), None)


def _file(layer: Descriptor, named: _Named) -> ArtifactFile:
    diff_id = None
    if named.is_archive and _is_plain_tar(layer):
        diff_id = layer.digest
    elif named.diff_id:
        try:
            diff_id = Digest.parse(named.diff_id)
        except InvalidName:
            diff_id = None  # computed later, by inflating the blob
    inside = safe_parts(named.inside) if named.inside else None
    return ArtifactFile(layer, named.is_archive, inside or (), diff_id, *named.metadata)


def _is_plain_tar(layer: Descriptor) -> bool:
    return layer.media_type.endswith(".tar") and TITLE not in layer.annotations


def _numbered(name: str, number: int) -> str:
    """Return *name* for the first of its kind, `model-2.gguf` for the second."""
    stem, dot, suffix = name.rpartition(".")
    return name if number == 1 else f"{stem}-{number}{dot}{suffix}" if dot else f"{name}-{number}"


def _directory(path: str, kind: str) -> _Named:
    """Return an archive as the directory *path*; without a name it is called *kind*."""
    path = path.rstrip("/")
    while path.startswith("./"):
        path = path[2:].lstrip("/")
    if path in ("", "."):
        return _Named(invented=kind, is_archive=True)
    return _Named(path, is_archive=True, inside=path)


def _model_pack(layer: Descriptor, _: _Context) -> _Named | None:
    for prefix, names in _MODEL_PACKS.items():
        if layer.media_type.startswith(prefix):
            kind = layer.media_type.removeprefix(prefix)
            path = layer.annotations.get(f"{names}filepath") or layer.annotations.get(TITLE, "")
            if ".tar" in kind:
                return _directory(path, kind.partition(".v1")[0])
            metadata = parse_metadata(layer.annotations.get(f"{names}file.metadata+json", "{}"))
            suffix = kind.rpartition(".")[2]
            return _Named(path, f"model.{suffix}" if suffix in ("gguf", "safetensors") else "", metadata=metadata)
    return None


def _docker_model(layer: Descriptor, _: _Context) -> _Named | None:
    if not layer.media_type.startswith(_DOCKER_MODEL):
        return None
    kind = layer.media_type.removeprefix(_DOCKER_MODEL)
    path = layer.annotations.get("org.cncf.model.filepath") or layer.annotations.get(TITLE, "")
    if kind.endswith(".tar"):
        return _directory(path, _DOCKER_NAMES.get(kind, "files"))
    metadata = parse_metadata(layer.annotations.get("org.cncf.model.file.metadata+json", "{}"))
    return _Named(path, _DOCKER_NAMES.get(kind, ""), metadata=metadata)


def _kitops(layer: Descriptor, context: _Context) -> _Named | None:
    if not layer.media_type.startswith(_KITOPS):
        return None
    kind = layer.media_type.removeprefix(_KITOPS).partition(".")[0]
    paths, number = context.paths.get(kind, ()), context.seen[kind]
    context.seen[kind] += 1
    return _directory(paths[number] if number < len(paths) else "", kind)


def _helm(layer: Descriptor, context: _Context) -> _Named | None:
    if context.manifest.config.media_type != _HELM_CONFIG:
        return None
    annotations = context.manifest.annotations
    name, version = annotations.get(TITLE, ""), annotations.get(_VERSION, "")
    if context.config:
        name, version = chart_name(context.config)
    if layer.media_type in _HELM_CHARTS:
        return _directory(name, "chart")
    if layer.media_type == _HELM_PROVENANCE:
        # Registries allow no `+` in a tag, so Helm writes `_` there; the file name has the version unchanged.
        return _Named(f"{name}-{version}.tgz.prov" if name and version else "", "chart.tgz.prov")
    return None


def _oras(layer: Descriptor, context: _Context) -> _Named | None:
    title = layer.annotations.get(TITLE, "")
    if not title:
        return None
    if layer.annotations.get(_UNPACK) == "true":
        return _directory(title, "files")._replace(diff_id=layer.annotations.get(_TAR_DIGEST, ""))
    types = context.manifest.config.media_type, layer.media_type
    if types == (_PYTHON_CONFIG, _PYTHON_DIRECTORY) and not title.endswith(_ARCHIVE_SUFFIXES):
        return _directory(title, "files")
    return _Named(title)


def _bundle(layer: Descriptor, _: _Context) -> _Named | None:
    is_bundle = layer.media_type.startswith(_BUNDLE)
    return _Named(digest_name(layer, ".sigstore.json")) if is_bundle else None


def _wasm(layer: Descriptor, _: _Context) -> _Named | None:
    return _Named(invented="module.wasm") if layer.media_type in _WASM else None


_RULES: tuple[Callable[[Descriptor, _Context], _Named | None], ...] = (
    _model_pack, _docker_model, _kitops, _helm, _oras, _bundle, _wasm,
)  # fmt: skip
