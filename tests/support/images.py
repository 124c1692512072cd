"""Builders for layers and images: entries → tar → layer → image → OCI layout.

    base = layer(directory("etc"), file("etc/motd", b"hello\\n", mode=0o600), symlink("etc/issue", "motd"))
    top = layer(whiteout("etc/motd"), opaque("var"), compression="zstd")
    image = image_of(base, top)
    write_layout(tmp_path / "layout", image, tag="latest")

Every entry takes mode, uid, gid, mtime_ns, xattrs and pax. Names are str or bytes; any bytes will do. Headers are
written here and not by the tarfile module, so that tests can say exactly what is in them.
"""

from __future__ import annotations

import gzip
import io
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from regfs.model.digest import Digest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BLOCK = 512
MTIME_NS = 1_600_000_000_000_000_000
OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker"
_SUFFIX = {"gzip": "+gzip", "zstd": "+zstd", "none": ""}


def _bytes(name: str | bytes) -> bytes:
    return name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")


# Entries


@dataclass(frozen=True, kw_only=True)
class TarEntry:
    """One member of a tar, with whatever header fields a test wants."""

    name: bytes
    type: bytes = b"0"
    content: bytes = b""
    target: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_ns: int = MTIME_NS
    device: tuple[int, int] = (0, 0)
    owners: tuple[bytes, bytes] = (b"", b"")
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    pax: Mapping[str, bytes] = field(default_factory=dict)

    def pack(self) -> bytes:
        """Return the member's blocks, a PAX header before them where the plain one cannot hold everything."""
        records = self._records()
        size = len(self.content)
        blocks = self._header(self.name[:100], self.type, size) + padded(self.content)
        if not records:
            return blocks
        packed = b"".join(_record(key, value) for key, value in records.items())
        return self._header(b"PaxHeaders/" + self.name[:80], b"x", len(packed)) + padded(packed) + blocks

    def _records(self) -> dict[str, bytes]:
        records: dict[str, bytes] = {}
        if len(self.name) > 100 or not self.name.isascii():
            records["path"] = self.name
        if len(self.target) > 100 or not self.target.isascii():
            records["linkpath"] = self.target
        if self.mtime_ns % 1_000_000_000 or self.mtime_ns < 0:
            sign = "-" if self.mtime_ns < 0 else ""
            seconds, nanoseconds = divmod(abs(self.mtime_ns), 1_000_000_000)
            records["mtime"] = f"{sign}{seconds}.{nanoseconds:09}".encode()
        for key, number in (("uid", self.uid), ("gid", self.gid)):
            if number > 0o7777777:
                records[key] = str(number).encode()
        records.update({f"SCHILY.xattr.{name}": value for name, value in self.xattrs.items()})
        records.update(self.pax)
        return records

    def _header(self, name: bytes, kind: bytes, size: int) -> bytes:
        header = bytearray(BLOCK)
        header[0:100] = name.ljust(100, b"\0")
        header[100:108] = octal(self.mode, 8)
        header[108:116] = octal(self.uid if self.uid <= 0o7777777 else 0, 8)
        header[116:124] = octal(self.gid if self.gid <= 0o7777777 else 0, 8)
        header[124:136] = octal(size, 12)
        header[136:148] = octal(max(self.mtime_ns // 1_000_000_000, 0), 12)
        header[156:157] = kind
        header[157:257] = self.target[:100].ljust(100, b"\0")
        header[257:265] = b"ustar\x0000"
        header[265:297], header[297:329] = (name.ljust(32, b"\0") for name in self.owners)
        header[329:337] = octal(self.device[0], 8)
        header[337:345] = octal(self.device[1], 8)
        return with_checksum(bytes(header))


def octal(number: int, width: int) -> bytes:
    """Return a number as a header field holds it: octal digits and a NUL."""
    return b"%0*o\0" % (width - 1, number)


def padded(content: bytes) -> bytes:
    """Return *content* filled up to whole blocks."""
    return content + bytes(-len(content) % BLOCK)


def with_checksum(header: bytes) -> bytes:
    """Return *header* with its checksum put in."""
    blank = header[:148] + b" " * 8 + header[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def _record(key: str, value: bytes) -> bytes:
    """Return one PAX record, `length key=value newline`, where length counts itself."""
    rest = b" " + key.encode() + b"=" + value + b"\n"
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def file(name: str | bytes, content: bytes = b"", **fields: object) -> TarEntry:
    """Return a regular file."""
    return replace(TarEntry(name=_bytes(name), content=content), **fields)  # type: ignore[arg-type]


def directory(name: str | bytes, **fields: object) -> TarEntry:
    """Return a directory, 0755."""
    return replace(TarEntry(name=_bytes(name).rstrip(b"/") + b"/", type=b"5", mode=0o755), **fields)  # type: ignore[arg-type]


def symlink(name: str | bytes, target: str | bytes, **fields: object) -> TarEntry:
    """Return a symbolic link."""
    return replace(TarEntry(name=_bytes(name), type=b"2", target=_bytes(target), mode=0o777), **fields)  # type: ignore[arg-type]


def hardlink(name: str | bytes, target: str | bytes, **fields: object) -> TarEntry:
    """Return a hard link to the path *target* of the image."""
    return replace(TarEntry(name=_bytes(name), type=b"1", target=_bytes(target)), **fields)  # type: ignore[arg-type]


def device(name: str | bytes, major: int, minor: int, *, block: bool = False, **fields: object) -> TarEntry:
    """Return a character device, or a block device."""
    kind = b"4" if block else b"3"
    return replace(TarEntry(name=_bytes(name), type=kind, device=(major, minor)), **fields)  # type: ignore[arg-type]


def fifo(name: str | bytes, **fields: object) -> TarEntry:
    """Return a named pipe."""
    return replace(TarEntry(name=_bytes(name), type=b"6"), **fields)  # type: ignore[arg-type]


def whiteout(path: str | bytes, **fields: object) -> TarEntry:
    """Return the marker that hides *path* of lower layers."""
    parent, slash, name = _bytes(path).rpartition(b"/")
    return file(parent + slash + b".wh." + name, **fields)  # type: ignore[arg-type]


def opaque(path: str | bytes, **fields: object) -> TarEntry:
    """Return the marker that hides all that lower layers have in the directory *path* ("" for the root)."""
    parent = _bytes(path).rstrip(b"/")
    return file(parent + b"/.wh..wh..opq" if parent else b".wh..wh..opq", **fields)  # type: ignore[arg-type]


def tar_of(*entries: TarEntry, end: bool = True) -> bytes:
    """Return the tar of *entries*, with the two empty blocks at its end unless *end* is false."""
    return b"".join(entry.pack() for entry in entries) + (bytes(2 * BLOCK) if end else b"")


# Layers and images


@dataclass(frozen=True)
class BuiltLayer:
    """A layer: its tar, and the blob that a registry has of it."""

    tar: bytes
    blob: bytes
    media_type: str
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    @cached_property
    def diff_id(self) -> Digest:
        return Digest.of(self.tar)

    @cached_property
    def digest(self) -> Digest:
        return Digest.of(self.blob)

    def descriptor(self) -> dict[str, object]:
        """Return the entry of the manifest's layers."""
        annotations = {"annotations": dict(self.annotations)} if self.annotations else {}
        return {"mediaType": self.media_type, "digest": str(self.digest), "size": len(self.blob), **annotations}


def compressed(content: bytes, compression: str) -> bytes:
    """Return *content* in one gzip member, one zstd frame, or as it is ("none")."""
    if compression == "gzip":
        packed = io.BytesIO()
        with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0, compresslevel=6) as stream:
            stream.write(content)
        return packed.getvalue()
    if compression == "zstd":
        return zstd.compress(content)
    assert compression == "none", compression
    return content


def layer(*entries: TarEntry, compression: str = "gzip", media_type: str = "") -> BuiltLayer:
    """Return the layer of *entries*, with the media type of its compression unless told otherwise."""
    return layer_of_tar(tar_of(*entries), compression=compression, media_type=media_type)


def layer_of_tar(tar: bytes, *, compression: str = "gzip", media_type: str = "") -> BuiltLayer:
    """Return the layer of a tar that a test has made its own way."""
    return BuiltLayer(tar, compressed(tar, compression), media_type or f"{OCI}.layer.v1.tar{_SUFFIX[compression]}")


@dataclass(frozen=True)
class BuiltImage:
    """An image: the bytes of its manifest and config, and its layers."""

    manifest: bytes
    config: bytes
    layers: tuple[BuiltLayer, ...]
    media_type: str = f"{OCI}.manifest.v1+json"

    @cached_property
    def digest(self) -> Digest:
        return Digest.of(self.manifest)

    def blobs(self) -> dict[Digest, bytes]:
        """Return every blob that the manifest names."""
        blobs = {layer.digest: layer.blob for layer in self.layers}
        blobs[Digest.of(self.config)] = self.config
        return blobs

    def descriptor(self, **fields: object) -> dict[str, object]:
        """Return the manifest's descriptor, with *fields* such as platform and annotations."""
        return {"mediaType": self.media_type, "digest": str(self.digest), "size": len(self.manifest), **fields}


def image_of(
    *layers: BuiltLayer,
    system: str = "linux",
    architecture: str = "amd64",
    variant: str = "",
    command: Iterable[str] = (),
    annotations: Mapping[str, str] | None = None,
    docker: bool = False,
    run: Mapping[str, object] | None = None,
) -> BuiltImage:
    """Return the image of *layers*, base first: an OCI one, or one of Docker's media types (for gzip layers).

    *run* is what its config says about running it, beside *command*.
    """
    named = {"os": system, "architecture": architecture, "variant": variant}
    platform = {key: text for key, text in named.items() if text}
    running: dict[str, object] = {"Cmd": list(command)} if command else {}
    running.update(run or {})
    config = {
        **platform,
        "created": "2020-09-13T12:26:40Z",
        "config": running,
        "rootfs": {"type": "layers", "diff_ids": [str(each.diff_id) for each in layers]},
        "history": [{"created_by": f"layer {number}"} for number, _ in enumerate(layers)],
    }
    config_bytes = json.dumps(config).encode()
    config_type = f"{DOCKER}.container.image.v1+json" if docker else f"{OCI}.config.v1+json"
    media_type = f"{DOCKER}.distribution.manifest.v2+json" if docker else f"{OCI}.manifest.v1+json"
    descriptors = [each.descriptor() for each in layers]
    if docker:
        descriptors = [each | {"mediaType": f"{DOCKER}.image.rootfs.diff.tar.gzip"} for each in descriptors]
    manifest: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": {"mediaType": config_type, "digest": str(Digest.of(config_bytes)), "size": len(config_bytes)},
        "layers": descriptors,
    }
    if annotations:
        manifest["annotations"] = dict(annotations)
    return BuiltImage(json.dumps(manifest).encode(), config_bytes, tuple(layers), media_type)


def index_of(*manifests: dict[str, object], docker: bool = False) -> bytes:
    """Return an image index of descriptors (BuiltImage.descriptor)."""
    media_type = f"{DOCKER}.distribution.manifest.list.v2+json" if docker else f"{OCI}.index.v1+json"
    return json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": list(manifests)}).encode()


def write_layout(path: Path, image: BuiltImage, *, tag: str = "latest") -> Path:
    """Write an OCI layout at *path* whose *tag* is *image*, and return *path*."""
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    for digest, content in (image.blobs() | {image.digest: image.manifest}).items():
        (blobs / digest.encoded).write_bytes(content)
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    named = image.descriptor(annotations={"org.opencontainers.image.ref.name": tag})
    (path / "index.json").write_bytes(index_of(named))
    return path
