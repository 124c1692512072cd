"""What goes wrong shows at the path that needs it, with its errno and its reason; everything else lives on."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from regfs.model.digest import Digest
from tests.conftest import MountRegfs
from tests.e2e.conftest import Demo, becomes
from tests.support.hello import hello_program
from tests.support.images import file, image_of, layer, layer_of_tar, tar_of
from tests.support.mounted import Mounted
from tests.support.proxy import Answer, ReverseProxy, Seen
from tests.support.push import Pusher

HTML = Answer(200, {"Content-Type": "text/html"}, b"<html>Please sign in to the hotel's network</html>")


@pytest.fixture
def mount(mount_regfs: MountRegfs, proxy: ReverseProxy, driver: str) -> Mounted:
    """A mount whose default registry is the server that fails on command."""
    return mount_regfs("--driver", driver, "--timeout", "1m", "--default-registry", proxy.address)


def errno_of(action: Callable[[], object]) -> str:
    """Return the name of the errno that *action* fails with."""
    with pytest.raises(OSError) as caught:
        action()
    return errno.errorcode[caught.value.errno or 0]


def can_be_listed(directory: Path) -> bool:
    """Tell whether *directory* can be listed."""
    try:
        os.listdir(directory)
    except OSError:
        return False
    return True


def instead_of(pattern: str, answer: Answer) -> Callable[[Seen], Answer | None]:
    """Return a rule that gives *answer* to the requests whose path contains *pattern*."""
    return lambda seen: answer if pattern in seen.path else None


def cached_under(cache: Path, digest: str) -> list[Path]:
    """Return the files of a cache that are named by *digest*."""
    return list(cache.rglob(f"*{digest.removeprefix('sha256:')}*"))


def rest_of_the_mount_lives(mount: Mounted, demo: Demo) -> bool:
    image = mount.path / demo.address / "library/hello-world/latest"
    return (image / "rootfs/hello").read_bytes() == hello_program()


def broken_layer(demo: Demo, digest: str, how: str) -> Answer:
    """Return an answer to a request for the layer *digest* of demo/real that is wrong in the way *how*."""
    with ReverseProxy(demo.address) as upstream:
        whole = upstream.forward(Seen("GET", f"/v2/demo/real/blobs/{digest}", {})).body
    if how == "cut in the middle, every time":
        return Answer(200, {}, whole, cut_after=len(whole) // 2)
    if how == "shorter than its descriptor says":
        return Answer(200, {}, whole[:-100])
    if how == "one byte is different":
        return Answer(200, {}, whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    assert how == "another layer altogether"
    return Answer(200, {}, gzip.compress(tar_of(file("evil", b"evil"))))


@pytest.mark.parametrize(
    "how",
    [
        "cut in the middle, every time",
        "shorter than its descriptor says",
        "one byte is different",
        "another layer altogether",
    ],
)
def test_a_wrong_layer_is_never_shown_nor_kept(mount: Mounted, proxy: ReverseProxy, demo: Demo, how: str) -> None:
    digest, diff_id = str(demo.real.layers[1].digest), str(demo.real.layers[1].diff_id)
    proxy.answer = instead_of(digest, broken_layer(demo, digest, how))
    rootfs = mount.path / "demo/real/v2/rootfs"
    failure = errno_of(lambda: os.listdir(rootfs))
    assert failure in ({"EHOSTUNREACH", "ETIMEDOUT", "EIO"} if "cut" in how else {"EIO"})
    assert digest in mount.errors()
    assert "/demo/real/v2" in mount.errors()
    assert cached_under(mount.cache, digest) == cached_under(mount.cache, diff_id) == []
    assert rest_of_the_mount_lives(mount, demo)


def test_a_layer_is_read_once_its_registry_has_recovered(mount: Mounted, proxy: ReverseProxy, demo: Demo) -> None:
    digest = str(demo.real.layers[1].digest)
    proxy.answer = instead_of(digest, broken_layer(demo, digest, "one byte is different"))
    rootfs = mount.path / "demo/real/v2/rootfs"
    assert errno_of(lambda: os.listdir(rootfs)) == "EIO"
    proxy.answer = lambda _seen: None
    # For some seconds the layer is known to be wrong and is not fetched again.
    becomes(lambda: can_be_listed(rootfs), True)
    assert (rootfs / "etc/replaced").read_text() == "in the second layer\n"


@pytest.mark.parametrize(
    "tar", [b"this is no tar " * 1000, tar_of(file("big", b"x" * 100_000))[:50_000]], ids=["no tar", "cut tar"]
)
def test_a_layer_that_is_no_archive_fails_and_leaves_nothing(
    mount: Mounted, demo: Demo, tar: bytes, request: pytest.FixtureRequest
) -> None:
    name = f"broken/r{hashlib.sha256(request.node.name.encode()).hexdigest()[:12]}"
    image = Pusher(demo.url).image(name, "1", image_of(layer_of_tar(tar)))
    assert errno_of(lambda: os.listdir(mount.path / name / "1/rootfs")) == "EIO"
    assert str(image.layers[0].digest) in mount.errors()
    assert list((mount.cache / "layers").rglob(f"*{image.layers[0].diff_id.encoded}*.index")) == []
    assert (mount.path / name / "1/manifest.json").read_bytes() == image.manifest
    assert rest_of_the_mount_lives(mount, demo)


def test_a_layer_with_another_diff_id_is_not_shown(mount: Mounted, demo: Demo) -> None:
    push = Pusher(demo.url)
    image = push.image("broken/diff-id", "right", image_of(layer(file("file", b"content"))))
    config = image.config.replace(str(image.layers[0].diff_id).encode(), str(Digest.of(b"something else")).encode())
    push.blob("broken/diff-id", config)
    manifest = image.manifest.replace(str(Digest.of(image.config)).encode(), str(Digest.of(config)).encode())
    push.manifest("broken/diff-id", "wrong", manifest, "application/vnd.oci.image.manifest.v1+json")
    assert errno_of(lambda: os.listdir(mount.path / "broken/diff-id/wrong/rootfs")) == "EIO"
    assert image.layers[0].diff_id.encoded[-8:] in mount.errors()


def test_a_manifest_with_wrong_bytes_is_refused(mount: Mounted, proxy: ReverseProxy, demo: Demo) -> None:
    wrong = demo.hello.manifest.replace(b'"schemaVersion"', b'"SchemaVersion"')
    media_type = "application/vnd.oci.image.manifest.v1+json"
    proxy.answer = lambda seen: (
        Answer(200, {"Content-Type": media_type, "Docker-Content-Digest": str(demo.hello.digest)}, wrong)
        if "/hello-world/manifests/" in seen.path
        else None
    )
    assert errno_of((mount.path / "library/hello-world/latest/manifest.json").read_bytes) == "EIO"
    assert cached_under(mount.cache, str(demo.hello.digest)) == []


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(401, {"WWW-Authenticate": 'Basic realm="x"'}), "EACCES"),
        (Answer(403), "EACCES"),
        (Answer(404), "ENOENT"),
        (Answer(429, {"Retry-After": "3600"}), "EBUSY"),
        (Answer(500), "EHOSTUNREACH"),
        (HTML, "EIO"),
    ],
    ids=["401 for ever", "403", "404", "429", "500", "HTML"],
)
def test_what_a_registry_answers_decides_the_errno(
    mount: Mounted, proxy: ReverseProxy, demo: Demo, answer: Answer, expected: str
) -> None:
    proxy.answer = instead_of("/v2/library/hello-world/", answer)
    assert errno_of(lambda: os.listdir(mount.path / "library/hello-world/latest/rootfs")) == expected
    assert rest_of_the_mount_lives(mount, demo)


def test_a_registry_that_is_gone_is_unreachable_and_not_empty(mount: Mounted, proxy: ReverseProxy, demo: Demo) -> None:
    proxy.close()
    assert errno_of(lambda: os.listdir(mount.path / "library/hello-world")) == "EHOSTUNREACH"
    assert proxy.address in mount.errors()
    assert rest_of_the_mount_lives(mount, demo)


def test_a_silent_registry_costs_its_waiters_their_deadline_and_others_nothing(
    mount_regfs: MountRegfs, proxy: ReverseProxy, demo: Demo, driver: str
) -> None:
    mount = mount_regfs("--driver", driver, "--timeout", "10s", "--default-registry", proxy.address)
    done = threading.Event()

    def silence(_seen: Seen) -> Answer | None:
        done.wait(250)
        return None

    proxy.answer = silence
    try:
        stuck = mount.path / "library/hello-world/latest/rootfs"
        for _attempt in range(5):  # a busy machine may take as long as the deadline to serve the others; then again
            waiter: list[str] = []
            thread = threading.Thread(target=lambda waiter=waiter: waiter.append(errno_of(lambda: os.listdir(stuck))))
            thread.start()
            assert rest_of_the_mount_lives(mount, demo)
            were_served_meanwhile = waiter == []
            thread.join(100)
            assert waiter == ["ETIMEDOUT"]
            if were_served_meanwhile:
                break
        assert were_served_meanwhile, "the waiter's deadline passed before others were served"
    finally:
        done.set()


def test_offline_serves_what_is_cached_and_says_so_of_the_rest(
    mount_regfs: MountRegfs, demo: Demo, proxy: ReverseProxy, tmp_path: Path
) -> None:
    cache = tmp_path / "shared"
    online = mount_regfs("--default-registry", proxy.address, cache=cache)
    (online.path / "library/hello-world/latest/rootfs/hello").read_bytes()
    online.unmount()
    proxy.seen.clear()
    offline = mount_regfs("--offline", "--default-registry", proxy.address, cache=cache)
    assert (offline.path / "library/hello-world/latest/rootfs/hello").read_bytes() == hello_program()
    assert errno_of(lambda: os.listdir(offline.path / "demo/real/v2/rootfs")) == "EHOSTUNREACH"
    assert proxy.seen == []
