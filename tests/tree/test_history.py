"""history, wasted, a layer's real-size and files, and the attributes that say which layer brought a path."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from regfs.errors import WouldBlock
from regfs.model.digest import Digest
from regfs.process.waiting.deadline import NON_BLOCKING, under
from tests.support.images import BuiltImage, directory, file, hardlink, image_of, layer, opaque, symlink, whiteout
from tests.support.served import Served
from tests.support.shown import Shown


def built() -> BuiltImage:
    """Return an image of three layers: the upper ones replace, delete and hide files of the lower."""
    return image_of(
        layer(
            file("etc/secret.key", b"secret"), file("etc/kept", b"k"), file("bin/tool", b"old" * 100),
            file("opt/a/x", b"xx"), file("opt/b/y", b"yyy"), file("linked", b"linked"), hardlink("link", "linked"),
        ),
        layer(whiteout("etc/secret.key"), file("bin/tool", b"new"), directory("opt/a"), opaque("opt/a")),
        layer(file("opt/b", b"no directory"), whiteout("linked")),
    )  # fmt: skip


def with_history(image: BuiltImage, history: list[dict[str, object]]) -> BuiltImage:
    config = json.dumps({**json.loads(image.config), "history": history}).encode()
    manifest = json.loads(image.manifest)
    manifest["config"] |= {"digest": str(Digest.of(config)), "size": len(config)}
    return replace(image, config=config, manifest=json.dumps(manifest).encode())


def xattr(shown: Shown, path: str, name: str) -> bytes | None:
    return shown.tree.xattrs(shown.find(path).node).get(name.encode())


def test_history_tells_each_step_with_its_layer_and_command(served: Served) -> None:
    steps: list[dict[str, object]] = [
        {"created_by": "ADD rootfs.tar /"},
        {"created_by": 'CMD\n  ["sh"]', "empty_layer": True},
        {"created_by": "RUN rm\x1b[2J secret.key"},
        {"created_by": "COPY . /opt"},
    ]
    image = served.push("app", "1", with_history(built(), steps))
    shown = served.show()
    sizes = [str(len(each.blob)) for each in image.layers]
    lines = [line.split(None, 4) for line in shown.read("app/1/history").decode().splitlines()]
    assert [line[:4] for line in lines[1:]] == [
        ["1", "000", sizes[0], "-"],
        ["2", "empty", "-", "-"],
        ["3", "001", sizes[1], "-"],
        ["4", "002", sizes[2], "-"],
    ]
    assert [line[4] for line in lines[1:]] == [
        "ADD rootfs.tar /",
        'CMD ["sh"]',
        r"RUN rm\033[2J secret.key",
        "COPY . /opt",
    ]
    shown.names("app/1/layers/1/tree")
    assert shown.read("app/1/history").decode().splitlines()[3].split()[3] == "3"  # it is here now


def test_a_history_that_does_not_fit_the_layers_names_no_layer_for_a_step(served: Served) -> None:
    served.push("app", "1", with_history(built(), [{"created_by": "only one"}]))
    lines = served.show().read("app/1/history").decode().splitlines()
    assert lines[1].split()[:2] == ["1", "?"]
    assert [line.split()[1] for line in lines[2:]] == ["000", "001", "002"]


def test_the_sizes_of_a_layer_are_worked_out_when_they_are_read_and_not_before(served: Served) -> None:
    served.push("app", "1", built())
    shown = served.show()
    node = shown.find("app/1/layers/0/real-size").node
    assert shown.attributes("app/1/layers/0/real-size").size == 0
    with under(NON_BLOCKING), pytest.raises(WouldBlock):
        shown.tree.open(node)
    assert shown.read("app/1/layers/0/real-size") == b"318\n"
    assert shown.read("app/1/layers/0/files") == b"12\n"  # implied directories are files of the layer too


def test_wasted_has_what_upper_layers_hide_and_where_it_can_be_read(served: Served) -> None:
    served.push("app", "1", built())
    shown = served.show()
    head, _, *lines = shown.read("app/1/wasted").decode().splitlines()
    assert head.startswith("4 files, 311 bytes of 333, are in layers")
    assert [line.split(None, 3) for line in lines] == [
        ["300", "replaced", "001", "layers/000/tree/bin/tool"],
        ["6", "deleted", "001", "layers/000/tree/etc/secret.key"],
        ["3", "deleted", "002", "layers/000/tree/opt/b/y"],
        ["2", "deleted", "001", "layers/000/tree/opt/a/x"],
    ]
    assert shown.read("app/1/layers/000/tree/etc/secret.key") == b"secret"


def test_nothing_is_wasted_in_an_image_of_one_layer(served: Served) -> None:
    served.push("app", "1", image_of(layer(file("a", b"1"))))
    assert served.show().read("app/1/wasted").startswith(b"0 files, 0 bytes of 1,")


def test_each_path_tells_its_layer_by_attributes_that_no_list_has(served: Served) -> None:
    image = served.push("app", "1", built())
    shown = served.show()
    assert xattr(shown, "app/1/rootfs/etc/kept", "user.regfs.layer") == b"000"
    assert xattr(shown, "app/1/rootfs/bin/tool", "user.regfs.layer") == b"001"
    assert xattr(shown, "app/1/rootfs/bin/tool", "user.regfs.created_by") == b"layer 1"
    assert xattr(shown, "app/1/rootfs/opt/b", "user.regfs.digest") == str(image.layers[2].digest).encode()
    assert xattr(shown, "app/1/rootfs/opt/b", "user.regfs.other") is None
    assert xattr(shown, "app/1/layers/2/tree/opt/b", "user.regfs.layer") is None
    assert list(shown.tree.xattrs(shown.find("app/1/rootfs/bin/tool").node)) == []


def test_packages_are_those_of_the_image_s_own_database(served: Served) -> None:
    status = b"Package: %s\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\n\n"
    served.push("deb", "1", image_of(layer(file("var/lib/dpkg/status", status % b"zlib" + status % b"bash"))))
    distroless = [file(f"var/lib/dpkg/status.d/{name}", b"Package: %s\n" % name.encode()) for name in ("a", "b")]
    served.push("deb", "2", image_of(layer(*distroless, file("var/lib/dpkg/status.d/a.md5sums", b"Package: no\n"))))
    links = (symlink("lib", "usr/lib"), file("usr/lib/apk/db/installed", b"P:musl\nV:1.2\nA:x86_64\n"))
    served.push("apk", "1", image_of(layer(*links)))
    served.push("rpm", "1", image_of(layer(file("var/lib/rpm/rpmdb.sqlite", b"SQLite"))))
    served.push("none", "1", image_of(layer(file("a"))))
    shown = served.show()
    assert shown.read("deb/1/packages") == b"deb\tbash\t1\tamd64\ndeb\tzlib\t1\tamd64\n"
    assert shown.read("deb/2/packages") == b"deb\ta\t-\t-\ndeb\tb\t-\t-\n"
    assert shown.read("apk/1/packages") == b"apk\tmusl\t1.2\tx86_64\n"
    assert b"rpmdb.sqlite of rpm is not read: it is not a database" in shown.read("rpm/1/packages")
    assert shown.read("none/1/packages").startswith(b"# no database")
