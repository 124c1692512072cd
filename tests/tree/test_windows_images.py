"""Images of Windows: what they are, and the bytes of their layers, but no files."""

from __future__ import annotations

import json
import os
import re
import tarfile
from pathlib import Path

import pytest

from regfs.cli.exit_codes import exit_code
from regfs.cli.main import run as run_regfs
from regfs.errors import Unsupported
from regfs.model.platform import Platform
from tests.support.images import BuiltImage, file, image_of, index_of, layer
from tests.support.memory_registry import INDEX
from tests.support.served import Served

FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
WINDOWS = {"os": "windows", "architecture": "amd64", "os.version": "10.0.20348.1"}
WANTED = Platform("windows", "amd64")


def image(base_type: str = FOREIGN, *, system: str = "windows") -> BuiltImage:
    base = layer(file("Files/Windows/cmd.exe", b"MZ"), media_type=base_type)
    return image_of(base, layer(file("Files/app.exe", b"MZ2")), system=system)


@pytest.mark.parametrize("base_type", [FOREIGN, NONDISTRIBUTABLE, "application/vnd.oci.image.layer.v1.tar+gzip"])
def test_the_files_of_a_windows_image_are_unsupported_and_the_message_names_type_platform_and_remedy(
    served: Served, base_type: str
) -> None:
    built = served.push("win", "1", image(base_type))
    shown = served.show()
    message = re.escape(f"layers of type {base_type!r} of an image for 'windows/amd64' cannot be shown as files")
    for path in ("rootfs", "rootfs/Files", "layers/0/tree", "layers/000/tree/Files"):
        with pytest.raises(Unsupported, match=message) as refused:
            shown.names(f"win/1/{path}")
        assert "layers/N/blob is the tar of each" in str(refused.value)
    for name in ("packages", "wasted", "layers/0/real-size", "layers/0/files"):
        with pytest.raises(Unsupported, match=message):
            shown.read(f"win/1/{name}")
    assert served.server.paths(f"blobs/{built.layers[0].digest}|blobs/{built.layers[1].digest}") == []


def test_the_tars_of_a_windows_image_and_what_its_config_tells_can_be_read(served: Served) -> None:
    built = served.push("win", "1", image())
    shown = served.show()
    parts = {"blobs", "config.json", "history", "layers", "manifest.json", "oci", "rootfs"}
    assert parts <= set(shown.names("win/1"))
    for number, each in enumerate(built.layers):
        link = shown.link(f"win/1/layers/{number}/blob")
        assert link == f"../../blobs/{each.digest}".encode()
        assert shown.read(f"win/1/blobs/{each.digest}") == each.blob
        assert shown.read(f"win/1/oci/blobs/sha256/{each.digest.encoded}") == each.blob
    steps = [line.split() for line in shown.read("win/1/history").decode().splitlines()[1:]]
    assert [(step[1], step[3], step[5]) for step in steps] == [("000", "-", "0"), ("001", "-", "1")]
    assert shown.read("win/1/layers/0/media_type") == f"{FOREIGN}\n".encode()


def test_a_base_that_the_registry_may_not_distribute_is_unsupported_where_its_bytes_are_read(served: Served) -> None:
    built = served.push("win", "1", image())
    served.registry.repository("win").blobs.pop(str(built.layers[0].digest))
    shown = served.show()
    with pytest.raises(Unsupported, match=re.escape(FOREIGN)):
        shown.read(f"win/1/blobs/{built.layers[0].digest}")
    assert shown.read(f"win/1/blobs/{built.layers[1].digest}") == built.layers[1].blob


@pytest.mark.parametrize("base_type", [FOREIGN, NONDISTRIBUTABLE])
def test_a_linux_image_shows_a_non_distributable_layer_that_the_registry_has(served: Served, base_type: str) -> None:
    served.push("lin", "1", image(base_type, system="linux"))
    shown = served.show()
    assert shown.read("lin/1/rootfs/Files/Windows/cmd.exe") == b"MZ"
    assert shown.names("lin/1/layers/0/tree/Files/Windows") == ["cmd.exe"]


def test_the_index_tells_the_platform_where_the_config_does_not(served: Served) -> None:
    built = served.push("win", "a", image(system=""))
    index = index_of(built.descriptor(platform=WINDOWS))
    served.document("win", "1", index, INDEX)
    shown = served.show(platform=WANTED)
    with pytest.raises(Unsupported, match=r"windows/amd64"):
        shown.names("win/1/rootfs")


def test_a_layer_that_a_linux_image_shares_with_one_of_windows_is_shown_in_that_alone(served: Served) -> None:
    served.push("lin", "1", image(system="linux"))
    served.push("win", "1", image())
    shown = served.show()
    assert shown.names("lin/1/layers/0/tree") == ["Files"]
    with pytest.raises(Unsupported):
        shown.names("win/1/layers/0/tree")


def test_two_images_of_windows_cannot_be_compared_by_their_files(served: Served) -> None:
    served.push("win", "1", image())
    served.push("win", "2", image(NONDISTRIBUTABLE))
    shown = served.show()
    for name in ("summary", "added/Files"):
        with pytest.raises(Unsupported, match="windows"):
            shown.read(f"win/.diff/1..2/{name}")


def test_notes_lead_to_what_can_be_read_of_windows_images(served: Served) -> None:
    built, linux = served.push("win", "1", image()), image_of(layer(file("a")), architecture="s390x")
    served.push("win", "a", linux)
    shown = served.show()
    note = shown.read("win/1/PLATFORM-DIFFERS.txt").decode()
    assert "built for windows/amd64" in note
    assert "layers/N/blob is the tar of each" in note
    assert "can be read; its programs" not in note
    described = built.descriptor(platform=WINDOWS)
    s390x = linux.descriptor(platform={"os": "linux", "architecture": "s390x"})
    for tag, index, place in (
        ("only", index_of(described), "manifests/windows-amd64/layers"),
        ("both", index_of(described, s390x), "manifests/linux-s390x/rootfs"),
    ):
        served.document("win", tag, index, INDEX)
        assert place in shown.read(f"win/{tag}/PLATFORM-MISSING.txt").decode()
        assert shown.names(f"win/{tag}/{place}")


def verb(served: Served, *words: str) -> int:
    """Return the exit code of a verb on the cache of *served*."""
    name, *rest = words
    options = ["--default-registry", served.server.address, "--cache-dir", str(served.cache)]
    return run_regfs([name, *options, "--platform", "windows/amd64", *rest], {"PATH": os.environ["PATH"]})


@pytest.mark.parametrize(
    "words",
    [
        ("ls", "win:1"),
        ("cat", "win:1:/Files/app.exe"),
        ("du", "win:1"),
        ("which", "win:1", "/Files/app.exe"),
        ("unpack", "win:1", "{place}/files"),
        ("index", "win:1", "--min-layer-size", "0", "--output", "{place}/index"),
    ],
    ids=lambda words: words[0],
)
def test_a_verb_that_needs_files_of_windows_ends_with_the_code_for_what_is_not_supported(
    served: Served, tmp_path: Path, words: tuple[str, ...]
) -> None:
    served.push("win", "1", image())
    served.push("win", "2", image(NONDISTRIBUTABLE))
    with pytest.raises(Unsupported) as refused:
        verb(served, *(word.format(place=tmp_path) for word in words))
    assert exit_code(refused.value) == 7
    for told in (FOREIGN, "windows/amd64", "layers/N/blob"):
        assert told in str(refused.value)


def test_diff_tells_it_as_trouble(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    served.push("win", "1", image())
    served.push("win", "2", image(NONDISTRIBUTABLE))
    assert verb(served, "diff", "win:1", "win:2") == 2
    assert "windows/amd64" in capfd.readouterr().err


def test_verbs_that_need_no_files_work_on_images_of_windows(
    served: Served, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    built = served.push("win", "1", image())
    assert verb(served, "history", "win:1") == 0
    assert "layer 1" in capfd.readouterr().out
    assert verb(served, "inspect", "win:1", "--json") == 0
    told = json.loads(capfd.readouterr().out)
    assert FOREIGN in json.dumps(told)
    archive = tmp_path / "win.tar"
    assert verb(served, "export", "win:1", "-o", str(archive)) == 0
    with tarfile.open(archive) as tar:
        assert {f"blobs/sha256/{each.digest.encoded}" for each in built.layers} <= set(tar.getnames())
