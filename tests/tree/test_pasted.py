"""References as people paste them, at the root and below a registry; and spellings that need no colon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from regfs.errors import DigestUnresolved, NotFound
from regfs.model.names import RepositoryName
from regfs.mount.errnos import is_failure
from tests.support.fault_server import FaultServer
from tests.support.hub import HubLike, hub_at
from tests.support.images import BuiltImage, file, image_of, index_of, layer
from tests.support.memory_registry import INDEX, MemoryRegistry
from tests.support.served import Served
from tests.support.shown import Shown

IMAGE = image_of(layer(file("hello", b"hi")))
OTHER = image_of(layer(file("hello", b"other")))
DIGEST = str(IMAGE.digest)
DASHED = DIGEST.replace(":", "-")


@pytest.fixture
def server() -> Iterator[FaultServer]:
    """Docker Hub with library/debian:12, library/debian:2204 and bitnami/redis:7."""
    hub = HubLike()
    hub.push("library/debian", "12", IMAGE)
    hub.push("library/debian", "2204", IMAGE)
    hub.push("bitnami/redis", "7", IMAGE)
    with FaultServer(hub) as server:
        yield server


@pytest.fixture
def shown(server: FaultServer, tmp_path: Path) -> Iterator[Shown]:
    with Shown(tmp_path / "cache", hosts=hub_at(tmp_path, server.url)) as shown:
        yield shown


@pytest.mark.parametrize("registry", ["", "docker.io/", "index.docker.io/", "registry-1.docker.io/"])
@pytest.mark.parametrize(
    "pasted",
    ["debian:12", f"debian@{DIGEST}", f"debian:nope@{DIGEST}", "debian/12", "library/debian:12", "bitnami/redis:7",
     f"debian@{DASHED}", f"debian/{DIGEST}", f"debian/@{DASHED}", "debian:2204"],
)  # fmt: skip
def test_what_docker_runs_opens_as_it_is_pasted(shown: Shown, registry: str, pasted: str) -> None:
    assert shown.read(f"{registry}{pasted}/rootfs/hello") == b"hi"


def test_a_pasted_reference_that_names_nothing_does_not_exist(shown: Shown) -> None:
    for pasted in ("debian:13", f"debian@{OTHER.digest}", "debian:", "debian@", "debian:1:2", "library:12", ":12"):
        with pytest.raises(Exception) as missing:
            shown.find(pasted)
        assert type(missing.value).__name__ in ("NotFound", "RepositoryUnknown", "InvalidName"), pasted


def test_a_pasted_name_of_another_registry_says_in_errors_where_it_may_be(tmp_path: Path) -> None:
    """`ls MOUNT/debian:12` with another default registry than Docker Hub was ENOENT, and nothing said why."""
    registry = MemoryRegistry()
    for content in IMAGE.blobs().values():
        registry.add_blob("library/debian", content)
    registry.add_manifest("library/debian", IMAGE.manifest, tag="12", media_type=IMAGE.media_type)
    with FaultServer(registry) as server, Shown(tmp_path / "cache", default_registry=server.address) as shown:
        for name in ("debian:12", "debian"):
            with pytest.raises(NotFound):
                shown.find(name)
        assert shown.journal.texts() == [f"{server.address} has no debian:12; Docker Hub's is docker.io/debian:12"]
        assert shown.read("library/debian/12/digest")
        with pytest.raises(NotFound):
            shown.find("debian:12")
        assert shown.journal.texts()[-1] == f"{server.address} has no debian:12; there is library/debian:12"


def test_a_name_with_a_low_port_is_a_tag_and_no_host_is_asked(shown: Shown, server: FaultServer) -> None:
    with pytest.raises(NotFound):
        shown.find("debian:99")
    assert server.paths()
    assert all("/v2/library/debian/manifests/99" in path for path in server.paths())


def test_a_name_with_a_high_port_is_a_registry_unless_the_default_registry_has_that_tag(
    shown: Shown, server: FaultServer
) -> None:
    assert shown.read("debian:2204/digest") == f"{DIGEST}\n".encode()
    assert shown.find("registry:5000").node
    assert shown.tree.name_of(shown.find("registry:5000").node) == "registry:5000"
    assert server.paths("library/registry/manifests/5000")


def test_a_registry_that_the_user_has_named_is_no_tag(server: FaultServer, tmp_path: Path) -> None:
    named = frozenset({"registry:80", "debian:2204"})
    with Shown(tmp_path / "cache", hosts=hub_at(tmp_path, server.url), named=named) as shown:
        for name in named:
            assert shown.find(name).node
    assert server.paths() == []


@pytest.mark.parametrize("name", ["localhost:80", "ghcr.io", "[::1]:5000", "registry.local:12", "localhost+5000"])
def test_what_can_only_be_a_host_is_one_without_a_question(shown: Shown, server: FaultServer, name: str) -> None:
    assert shown.find(name).node
    assert server.paths() == []


def test_another_default_registry_has_no_official_images(served: Served) -> None:
    served.push("app", "v1", IMAGE)
    shown = served.show()
    assert shown.read("app:v1/rootfs/hello") == b"hi"
    assert shown.read(f"app@{DIGEST}/rootfs/hello") == b"hi"
    assert served.server.paths("library/") == []


# Without a colon.


def test_a_port_and_a_digest_can_be_written_without_a_colon(served: Served) -> None:
    served.push("org/app", "v1", IMAGE)
    shown = served.show()
    host = served.server.address.replace(":", "+")
    for path in (f"{host}/org/app/v1", f"{host}/org/app/@{DASHED}", f"org/app@{DASHED}", f"org/app/@{DASHED}"):
        assert shown.read(f"{path}/rootfs/hello") == b"hi"
    assert host not in shown.names()
    assert not [name for name in shown.names("org/app") if name.startswith("@")]


def test_blobs_and_manifests_open_without_a_colon(served: Served) -> None:
    served.push("app", "one", IMAGE)
    served.document("app", "v1", index_of(IMAGE.descriptor()), INDEX)
    shown = served.show()
    blob = str(IMAGE.layers[0].digest)
    assert shown.read(f"app/v1/blobs/{blob.replace(':', '-')}") == IMAGE.layers[0].blob
    assert shown.read(f"app/v1/manifests/{DASHED}/manifest.json") == IMAGE.manifest
    with pytest.raises(NotFound):
        shown.find(f"app/v1/blobs/{str(OTHER.digest).replace(':', '-')}")


def test_a_dashed_digest_without_the_sign_is_a_tag(served: Served) -> None:
    """The specification keeps signatures and referrers under such tags."""
    served.push("app", "v1", IMAGE)
    served.push("app", DASHED, OTHER)
    shown = served.show()
    assert shown.read(f"app/{DASHED}/rootfs/hello") == b"other"
    assert shown.read(f"app/@{DASHED}/rootfs/hello") == b"hi"


def unresolved(shown: Shown, path: str, words: str) -> None:
    with pytest.raises(DigestUnresolved, match=words) as failed:
        shown.find(path)
    assert is_failure(failed.value)  # so that .regfs/errors has the reason


def test_a_short_digest_is_the_one_known_digest_that_begins_so(served: Served) -> None:
    served.push("app", "v1", IMAGE)
    short = IMAGE.digest.encoded[:12]
    shown = served.show()
    unresolved(shown, f"app/@{short}", "no known digest")
    assert shown.read("app/v1/digest")
    for spelled in (f"app/@{short}", f"app@{short}", f"app/@{IMAGE.digest.encoded[:40]}"):
        assert shown.read(f"{spelled}/rootfs/hello") == b"hi"
    for wrong in (f"app/@{short[:11]}", f"app/@{short[:-1]}g", "app/@"):
        assert not isinstance(shown_kind(shown, wrong), bytes)


def shown_kind(shown: Shown, path: str) -> bytes | Exception:
    try:
        return shown.read(f"{path}/rootfs/hello")
    except Exception as error:
        return error


def test_a_short_digest_may_be_that_of_an_entry_of_a_known_index(served: Served) -> None:
    served.push("app", "one", IMAGE)
    index = index_of(IMAGE.descriptor(platform={"os": "linux", "architecture": "s390x"}))
    served.document("app", "v1", index, INDEX)
    shown = served.show()
    assert shown.names("app/v1/manifests") == ["linux-s390x"]
    assert shown.read(f"app/@{IMAGE.digest.encoded[:12]}/rootfs/hello") == b"hi"


def test_a_short_digest_that_two_digests_begin_with_is_neither(served: Served) -> None:
    twins = same_beginning()
    for number, twin in enumerate(twins):
        served.push("app", f"v{number}", twin)
    shown = served.show()
    for number in range(2):
        assert shown.read(f"app/v{number}/digest")
    # Twelve equal digits cannot be made in a test: two are, and the store is asked below the tree.
    repository = shown.repositories.repository(shown_name(served))
    with pytest.raises(DigestUnresolved, match="several digests"):
        repository.manifests.digest_beginning(twins[0].digest.encoded[:2])


def same_beginning() -> tuple[BuiltImage, BuiltImage]:
    """Return two images whose digests have the first two digits in common."""
    seen: dict[str, BuiltImage] = {}
    for number in range(1000):
        built = image_of(architecture=f"a{number}")
        twin = seen.setdefault(built.digest.encoded[:2], built)
        if twin is not built:
            return twin, built
    raise AssertionError("no two of a thousand digests begin alike")


def shown_name(served: Served) -> RepositoryName:
    return RepositoryName(served.server.address, "app")


def test_a_short_digest_of_another_repository_is_unknown(served: Served) -> None:
    served.push("private", "v1", IMAGE)
    served.push("public", "v1", OTHER)
    shown = served.show()
    assert shown.read("private/v1/manifest.json")
    assert shown.read("public/v1/manifest.json")
    unresolved(shown, f"public/@{IMAGE.digest.encoded[:12]}", "no known digest")
