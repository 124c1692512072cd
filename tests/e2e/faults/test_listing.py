"""Lists that go wrong and tags that move, seen by the user of a mount: F61 and F64 to F67 of the fault catalogue.

F68 is about referrers, which a mount does not show: it never asks for them, and leaves the tags out of listings that
take their place where a registry has no such API.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import threading

from regfs.model.digest import Digest
from tests.e2e.conftest import becomes
from tests.e2e.faults.conftest import MOTD, by_both_drivers, by_itself
from tests.support.fault_server import Action, FaultServer, Response, changed, reply
from tests.support.faulty_mount import FaultyMount
from tests.support.images import BuiltImage, file, image_of, layer
from tests.support.memory_registry import INDEX, MemoryRegistry
from tests.support.variants import all_at_once

TAGS = ["1", *(f"t{number}" for number in range(9))]


def paged(faulty: FaultyMount, *, login: bool = False) -> FaultServer:
    """Return a registry whose repository `app` has ten tags on four pages, and wants a password if *login*."""
    registry = MemoryRegistry(page_size=3)
    server = faulty.new_server(registry)
    faulty.push_app(server=server)
    for tag in TAGS[1:]:
        registry.add_manifest("app", b'{"schemaVersion":2,"manifests":[]}', tag=tag, media_type=INDEX)
    if login:
        user, password = faulty.log_in(server=server)
        registry.users, registry.public = {user: password}, False
    return server


def listed(faulty: FaultyMount, server: FaultServer) -> list[str]:
    """Return what `ls` shows of the repository, which has every name once."""
    names = os.listdir(faulty.path("app", server=server))
    assert len(names) == len(set(names))
    return sorted(names)


def lists_again(faulty: FaultyMount, server: FaultServer) -> None:
    """Let the server behave, and insist that all tags are listed, sooner or later."""
    server.heal()

    def names() -> list[str]:
        try:
            return listed(faulty, server)
        except FileNotFoundError:
            raise
        except OSError:
            return []

    becomes(names, TAGS)


def is_refused(faulty: FaultyMount, server: FaultServer, errno: str = "EIO") -> None:
    """Insist that the listing fails, that what is named opens all the same, and that the listing comes back."""
    assert faulty.fails(faulty.path("app", server=server), os.listdir) == errno
    assert server.address in faulty.errors()
    assert faulty.reads(faulty.path(MOTD, server=server))
    lists_again(faulty, server)


def without_end() -> Action:
    """Answer one page after the other, each with other names."""
    numbers = itertools.count()
    document = json.dumps({"name": "app", "tags": [f"nNUMBER-{one}" for one in range(5000)]})

    def answer(_right: Response) -> Response:
        number = next(numbers)
        headers = ("Content-Type", "application/json"), ("Link", f'</v2/app/tags/list?page={number}>; rel="next"')
        return Response(200, headers, document.replace("NUMBER", str(number)).encode())

    return changed(answer)


@by_itself
def test_f61_a_list_of_a_million_tags_is_too_large_in_bounded_memory(faulty: FaultyMount) -> None:
    faulty.mount("--timeout", "200s")  # `close` looks at the memory of its processes
    server = paged(faulty)
    server.on("GET", "/tags/", without_end())
    is_refused(faulty, server, "EFBIG")


def test_f64_half_a_list_is_an_error_and_is_not_taken_for_the_whole(faulty: FaultyMount) -> None:
    faulty.mount()

    def check(_name: str, variant: tuple[int, str]) -> None:
        status, errno = variant
        server = paged(faulty)
        server.on("GET", "last=t4", reply(status))
        is_refused(faulty, server, errno)
        assert len(server.paths("last=t4")) < 10

    failing = {"500": (500, "EHOSTUNREACH"), "404": (404, "EIO"), "410": (410, "EIO"), "403": (403, "EACCES")}
    all_at_once(check, failing)


def test_f65_a_registry_that_cannot_be_listed_shows_what_is_known_and_opens_the_rest(faulty: FaultyMount) -> None:
    faulty.mount()

    def check(name: str, action: Action) -> None:
        server = paged(faulty)
        server.on("GET", "_catalog", action)
        root = faulty.path("", server=server)
        assert os.listdir(root) == []
        assert faulty.reads(faulty.path(MOTD, server=server))
        assert os.listdir(root) == ["app"]
        assert listed(faulty, server) == TAGS
        assert len(server.paths("_catalog")) == 1 or name == "empty"  # a catalog too, believed for as long as a tag

    refusals = {str(status): reply(status) for status in (401, 403, 404, 405, 501)}
    all_at_once(check, refusals | {"empty": reply(200, '{"repositories":[]}'), "[]": reply(200, "[]")})
    told = faulty.errors().splitlines()
    assert told
    assert all("list its repositories, so that ls shows what" in line for line in told)


# Tags that move. Every image has the files `one` and `two`, which both hold the image's name.


def version(name: str) -> BuiltImage:
    return image_of(layer(file("one", name.encode()), file("two", name.encode()), file(f"only-in-{name}")))


@by_both_drivers
def test_f66_a_tag_that_is_deleted_is_gone_for_new_lookups_and_stays_for_open_files(faulty: FaultyMount) -> None:
    faulty.push("app", "1", version("old"))
    faulty.push("app", "2", version("other"))
    tag = faulty.path("app/1")
    assert sorted(os.listdir(faulty.path("app"))) == ["1", "2"]
    inside = os.open(tag / "rootfs", os.O_RDONLY | os.O_DIRECTORY)
    with open(tag / "rootfs/one", "rb", buffering=0) as opened:
        del faulty.registry.repository("app").tags["1"]
        assert faulty.fails(tag / "digest", os.stat) == "ENOENT"
        assert faulty.fails(tag / "rootfs/one", os.stat) == "ENOENT"
        assert os.listdir(faulty.path("app")) == ["2"]
        assert opened.read() == b"old"
        assert sorted(os.listdir(inside)) == ["one", "only-in-old", "two"]
        if faulty.driver == "kernel":  # libfuse asks for every name by its full path
            assert read_in(inside, "two") == b"old"
    os.close(inside)
    assert (faulty.path("app/2/rootfs/one")).read_bytes() == b"other"
    faulty.push("app", "1", version("again"))
    becomes(lambda: os.path.exists(tag / "rootfs/only-in-again"), True)
    assert sorted(os.listdir(faulty.path("app"))) == ["1", "2"]


def read_in(directory: int, name: str) -> bytes:
    descriptor = os.open(name, os.O_RDONLY, dir_fd=directory)
    try:
        return os.read(descriptor, 100)
    finally:
        os.close(descriptor)


@by_both_drivers
def test_f66_a_tag_that_moves_leaves_open_files_and_directories_in_one_whole_image(faulty: FaultyMount) -> None:
    faulty.push("app", "1", version("old"))
    rootfs = faulty.path("app/1/rootfs")
    inside = os.open(rootfs, os.O_RDONLY | os.O_DIRECTORY)
    with open(rootfs / "one", "rb", buffering=0) as opened:
        number = os.fstat(opened.fileno()).st_ino
        faulty.push("app", "1", version("new"))
        if faulty.driver == "kernel":  # libfuse has one node for a path: the new image waits for the old one
            assert (rootfs / "one").read_bytes() == b"new"
            assert read_in(inside, "two") == b"old"
        assert opened.read() == b"old"
        assert os.fstat(opened.fileno()).st_ino == number
    assert sorted(os.listdir(inside)) == ["one", "only-in-old", "two"]
    os.close(inside)
    becomes((rootfs / "one").read_bytes, b"new")
    becomes(lambda: sorted(os.listdir(rootfs)), ["one", "only-in-new", "two"])
    assert (rootfs / "one").stat().st_ino != number


@by_both_drivers
def test_f67_a_tag_with_two_truths_gives_each_of_them_whole_and_with_its_own_inodes(faulty: FaultyMount) -> None:
    names = {str(faulty.push("app", "1", version(name)).digest): name.encode() for name in ("first", "second")}
    chance, lock = random.Random(67), threading.Lock()

    def flip(right: Response) -> Response:
        with lock:
            faulty.registry.repository("app").tags["1"] = chance.choice(list(names))
        return right

    faulty.server.on("HEAD", "app/manifests/1", changed(flip))
    tag = faulty.path("app/1")
    inodes: dict[int, bytes] = {}
    for _ in range(100):
        with open(tag / "rootfs/one", "rb") as opened:
            content = opened.read()
            assert inodes.setdefault(os.fstat(opened.fileno()).st_ino, content) == content
        inside = os.open(tag / "rootfs", os.O_RDONLY | os.O_DIRECTORY)
        listed_here = sorted(os.listdir(inside))
        assert listed_here in (["one", "only-in-first", "two"], ["one", "only-in-second", "two"])
        if faulty.driver == "kernel":  # libfuse asks for every name by its full path
            assert {f"only-in-{read_in(inside, name).decode()}" for name in ("one", "two")} == {listed_here[1]}
        os.close(inside)
        assert str(Digest.of((tag / "manifest.json").read_bytes())) in names
        assert (tag / "digest").read_text().strip() in names
        if set(inodes.values()) == set(names.values()):
            break
    assert set(inodes.values()) == set(names.values())


def test_f68_referrers_are_not_asked_for_and_the_tags_in_their_place_are_not_listed(faulty: FaultyMount) -> None:
    image = faulty.push_app()
    for method in ("GET", "HEAD"):
        faulty.server.on(method, "/referrers/", reply(500))
    faulty.push("app", f"sha256-{image.digest.encoded}", version("signature"))
    assert os.listdir(faulty.path("app")) == ["1"]
    assert (faulty.path(f"app/sha256-{image.digest.encoded}/rootfs/one")).read_bytes() == b"signature"
    assert faulty.reads(faulty.path(MOTD))
    assert faulty.server.paths("/referrers/") == []
