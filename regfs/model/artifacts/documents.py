"""Parses what artifacts say about their files beside the manifest: annotations and configs that are JSON.

    org.cncf.model.file.metadata+json   an annotation: {"name", "mode", "uid", "gid", "size", "mtime", "typeflag"}
    Kitfile                             KitOps' config: {"model": {"path", "parts": [{"path"}]}, "code": [{"path"}], …}
    Chart.yaml                          Helm's config, as JSON: {"name", "version"}

No blob needs these documents to be read, so an unreadable one counts as absent. Sources: CNCF model-spec,
docs/annotations.md; KitOps, Kitfile; Helm, Chart.yaml. Used by producers.py. Pure; any thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from regfs.errors import BadContent, TooLarge
from regfs.model.dates import date_ns
from regfs.model.strict_json import DOCUMENT_LIMIT, parse_document, printable

_METADATA_LIMIT = 1 << 16
_MAX_ENTRIES = 4096
_MAX_ID = (1 << 32) - 2
_PERMISSIONS = 0o777
_USUAL = 0o644


class FileMetadata(NamedTuple):
    """The stat(2) fields of a file of a ModelPack."""

    mode: int = _USUAL
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0


def parse_metadata(text: str) -> FileMetadata:
    """Return the metadata in the annotation *text*; of the mode, only the permission bits."""
    values = _document(text.encode(), limit=_METADATA_LIMIT)
    mode = _number(values, "mode", most=(1 << 32) - 1) & _PERMISSIONS
    mtime = values.get("mtime")
    return FileMetadata(
        mode or _USUAL,
        _number(values, "uid", most=_MAX_ID),
        _number(values, "gid", most=_MAX_ID),
        date_ns(mtime) if isinstance(mtime, str) else 0,
    )


def kitfile_paths(config: bytes) -> dict[str, tuple[str, ...]]:
    """Return the paths that a Kitfile names, by the kind of their layers, in the order of these layers."""
    kitfile = _document(config)
    model = kitfile.get("model")
    parts = model.get("parts") if isinstance(model, dict) else None
    return {
        "model": tuple(_paths([model])),
        "modelpart": tuple(_paths(parts)),
        "code": tuple(_paths(kitfile.get("code"))),
        "dataset": tuple(_paths(kitfile.get("datasets"))),
        "docs": tuple(_paths(kitfile.get("docs"))),
    }


def chart_name(config: bytes) -> tuple[str, str]:
    """Return name and version of a Helm chart; "" if its config lacks one."""
    chart = _document(config)
    return _text(chart, "name"), _text(chart, "version")


def _paths(entries: object) -> Iterator[str]:
    for entry in entries[:_MAX_ENTRIES] if isinstance(entries, list) else ():
        yield _text(entry, "path") if isinstance(entry, dict) else ""


def _document(content: bytes, *, limit: int = DOCUMENT_LIMIT) -> Mapping[str, object]:
    try:
        return parse_document(content, error=BadContent, limit=limit).values
    except (BadContent, TooLarge):
        return {}


def _text(values: Mapping[str, object], key: str) -> str:
    value = values.get(key)
    return printable(value) if isinstance(value, str) else ""


def _number(values: Mapping[str, object], key: str, *, most: int) -> int:
    value = values.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most else 0
