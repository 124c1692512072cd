"""Repositories: what is asked, how often, and what is shown when no registry responds."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable

import pytest

from regfs.errors import BadContent, NotFound, RegistryTimeout, RegistryUnavailable, WouldBlock
from regfs.images.repositories import Repositories
from regfs.images.repository import Repository
from regfs.model import media_types
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.model.names import RepositoryName
from regfs.mount.errnos import errno_of
from regfs.process.waiting.deadline import NON_BLOCKING, Deadline, under
from regfs.store.blobs import BlobStore
from regfs.store.references.references import References
from tests.support.fault_server import changed, reply, silence
from tests.support.images import BuiltImage, file, image_of, layer
from tests.support.served import Served

IMAGE = image_of(layer(file("file", b"content")))


def push(served: Served, *tags: str, repository: str = "app", image: BuiltImage = IMAGE) -> None:
    for tag in tags:
        served.push(repository, tag, image)


def test_a_thousand_names_that_nobody_has_are_not_remembered_for_ever(
    served: Served, repositories: Repositories
) -> None:
    for number in range(3000):
        repositories.repository(RepositoryName(served.server.address, f"made-up-{number}"))
    assert len(repositories._repositories) <= 1024


@pytest.mark.parametrize("remembered", ["text/html", media_types.OCI_INDEX, media_types.DOCKER_SCHEMA1_SIGNED, ""])
def test_a_cache_that_remembers_a_wrong_type_for_a_manifest_heals(served: Served, remembered: str) -> None:
    push(served, "1")
    served.show().read(f"app/{IMAGE.digest}/manifest.json")
    name = RepositoryName(served.server.address, "app")
    References(served.cache / "references.sqlite").keep_manifest(name, IMAGE.digest, remembered)
    asked = len(served.server.seen)
    shown = served.show()
    assert shown.read(f"app/{IMAGE.digest}/rootfs/file") == b"content"
    assert ("manifests" in str(served.server.paths()[asked:])) == (remembered == "")


def test_a_manifest_that_came_without_a_type_is_known_offline(served: Served) -> None:
    push(served, "1")
    served.server.on("*", "/manifests/", changed(lambda right: right.with_header("Content-Type", None)))
    served.show().read("app/1/rootfs/file")
    for name in ("1", str(IMAGE.digest)):
        assert served.show(offline=True).read(f"app/{name}/rootfs/file") == b"content"


def test_after_a_refresh_everything_is_asked_for_once_more(served: Served) -> None:
    push(served, "1")
    repositories = served.show(tag_ttl_s=3600.0).repositories
    names = [RepositoryName(served.server.address, "app")]
    names += [RepositoryName(served.server.address, f"other{number}") for number in range(1030)]
    held = [repositories.repository(name) for name in names]  # more than are remembered
    for _ in range(2):
        assert (held[0].tags.names(), held[0].tags.resolve("1").digest) == (("1",), IMAGE.digest)
    asked = [path for path in served.server.paths("app") if "/v2/app/" in path]
    repositories.refresh()
    assert held[0].tags.last_known("1") is not None
    for _ in range(2):
        assert (held[0].tags.names(), held[0].tags.resolve("1").digest) == (("1",), IMAGE.digest)
    assert [path for path in served.server.paths("app") if "/v2/app/" in path] == asked * 2


def test_what_was_asked_before_a_refresh_and_answered_after_it_is_asked_for_again(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(served, "1")
    repositories = served.show(tag_ttl_s=3600.0).repositories
    app = repositories.repository(RepositoryName(served.server.address, "app"))
    registry = repositories._registry
    for part, name in ((registry.manifests, "resolve"), (registry.listing, "tags")):
        ask: Callable[..., object] = getattr(part, name)
        answers: list[object] = []

        def asked(
            *arguments: object,
            ask: Callable[..., object] = ask,
            answers: list[object] = answers,
            **options: object,
        ) -> object:
            answers.append(ask(*arguments, **options))
            if len(answers) == 1:
                repositories.refresh()
            return answers[-1]

        monkeypatch.setattr(part, name, asked)
        for _ in range(3):
            if name == "resolve":
                assert app.tags.resolve("1").digest == IMAGE.digest
            else:
                assert app.tags.names() == ("1",)
        assert len(answers) == 2, name


@pytest.mark.parametrize("question", ["tag", "listing"])
def test_what_was_read_from_the_cache_before_a_refresh_is_asked_for_again(
    served: Served, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    push(served, "1")
    before = served.show().repositories.repository(RepositoryName(served.server.address, "app"))
    assert (before.tags.names(), before.tags.resolve("1").digest) == (("1",), IMAGE.digest)
    repositories = served.show(tag_ttl_s=3600.0).repositories
    app = repositories.repository(RepositoryName(served.server.address, "app"))
    read = getattr(References, question)

    def read_before_a_refresh(*arguments: object) -> object:
        record = read(*arguments)
        monkeypatch.undo()
        repositories.refresh()
        return record

    monkeypatch.setattr(References, question, read_before_a_refresh)
    asked = len(served.server.paths("app"))
    for _ in range(2):
        assert app.tags.resolve("1").digest == IMAGE.digest if question == "tag" else app.tags.names() == ("1",)
    assert len(served.server.paths("app")) == asked + 1


def test_two_mounts_on_one_cache_ask_once_for_a_tag(served: Served) -> None:
    push(served, "1")
    for _ in range(2):
        app = served.show().repositories.repository(RepositoryName(served.server.address, "app"))
        assert app.tags.resolve("1").digest == IMAGE.digest
    assert served.server.paths("manifests/1") == ["HEAD /v2/app/manifests/1"]


def test_a_hundred_who_ask_for_a_tag_at_once_are_one_request(served: Served) -> None:
    push(served, "1")
    app = served.show().repositories.repository(RepositoryName(served.server.address, "app"))
    digests: list[Digest] = []
    threads = [threading.Thread(target=lambda: digests.append(app.tags.resolve("1").digest)) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert digests == [IMAGE.digest] * 100
    assert len(served.server.paths("manifests/1")) == 1


def test_f18_a_registry_that_hangs_leaves_the_last_known_tag_when_the_time_is_over(
    served: Served, app: Repository
) -> None:
    push(served, "1", "2")
    assert app.tags.resolve("1").digest == IMAGE.digest
    served.server.on("*", "manifests", silence)
    with under(Deadline(0.2)):
        assert app.tags.resolve("1").digest == IMAGE.digest
    with under(Deadline(0.2)), pytest.raises(RegistryTimeout):
        app.tags.resolve("2")


def test_without_patience_only_what_is_known_is_answered(served: Served) -> None:
    push(served, "1", "2")
    app = served.show().repositories.repository(RepositoryName(served.server.address, "app"))
    app.tags.resolve("1")
    with under(NON_BLOCKING):
        assert app.tags.resolve("1").digest == IMAGE.digest
        for ask in (lambda: app.tags.resolve("2"), app.tags.names, lambda: app.tags.valid_s("2")):
            with pytest.raises(WouldBlock):
                ask()


def test_tags_that_were_visited_are_listed_when_the_list_was_never_seen(served: Served, app: Repository) -> None:
    push(served, "1", "2")
    app.tags.resolve("2")
    served.server.on("GET", "tags/list", reply(503))
    assert app.tags.names() == ("2",)


def test_a_list_that_was_never_seen_and_cannot_be_had_is_a_failure_and_no_empty_list(
    served: Served, app: Repository
) -> None:
    push(served, "1")
    served.server.on("GET", "tags/list", reply(503))
    with pytest.raises(RegistryUnavailable):
        app.tags.names()
    served.server.heal()
    assert app.tags.names() == ("1",)


def test_a_repository_that_is_gone_takes_its_list_along(served: Served, app: Repository) -> None:
    push(served, "1")
    assert app.tags.names() == ("1",)
    served.registry.repositories.pop("app")
    with pytest.raises(NotFound):
        app.tags.names()
    served.server.on("GET", "tags/list", reply(503))
    with pytest.raises(RegistryUnavailable):
        app.tags.names()


def test_a_document_is_fetched_once_and_found_in_the_cache_by_the_next_mount(served: Served, app: Repository) -> None:
    push(served, "1")
    assert app.manifests.document(IMAGE.digest).content == IMAGE.manifest
    again = served.show().repositories.repository(app.name)
    assert again.manifests.document(IMAGE.digest).content == IMAGE.manifest
    assert len(served.server.paths(f"manifests/{IMAGE.digest}")) == 1


def test_what_named_a_document_says_its_type_whether_it_comes_from_the_registry_or_the_cache(
    served: Served, app: Repository
) -> None:
    push(served, "1")
    served.registry.repository("app").manifests[str(IMAGE.digest)] = (IMAGE.manifest, "text/plain")
    for _ in ("fetched", "cached"):
        assert app.manifests.document(IMAGE.digest, IMAGE.media_type).media_type == IMAGE.media_type


def test_a_document_of_another_repository_is_asked_for_again(served: Served, app: Repository) -> None:
    push(served, "1")
    push(served, "1", repository="other", image=image_of(layer(file("other"))))
    app.manifests.document(IMAGE.digest)
    other = served.show().repositories.repository(RepositoryName(served.server.address, "other"))
    with pytest.raises(NotFound):
        other.manifests.document(IMAGE.digest)


def test_one_blob_named_with_two_sizes_at_once_is_served_to_none_with_the_other_s(
    served: Served, app: Repository
) -> None:
    push(served, "1")
    built = IMAGE.layers[0]
    right = Descriptor(built.media_type, built.digest, len(built.blob))
    wrong = Descriptor(built.media_type, built.digest, len(built.blob) - 1)
    outcomes: dict[int, object] = {}

    def ask(descriptor: Descriptor) -> None:
        try:
            outcomes[descriptor.size] = app.blobs.file(descriptor).stat().st_size
        except BadContent:
            outcomes[descriptor.size] = BadContent

    threads = [threading.Thread(target=ask, args=(descriptor,)) for descriptor in (right, wrong)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert outcomes == {right.size: right.size, wrong.size: BadContent}


def test_a_repository_that_a_refused_one_hides_behind_is_not_said_to_exist(
    served: Served, repositories: Repositories
) -> None:
    served.server.on("GET", "_catalog", reply(401))
    push(served, "1")
    repositories.ask_for_catalog(served.server.address)
    assert repositories.components_below(served.server.address, "") == set()
    repositories.repository(RepositoryName(served.server.address, "app")).tags.resolve("1")
    repositories.ask_for_catalog(served.server.address)
    assert repositories.components_below(served.server.address, "") == {"app"}
    assert len(served.server.paths("_catalog")) == 1


def test_a_cached_blob_that_cannot_be_read_once_is_fetched_and_stays(
    served: Served, app: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(served, "1")
    built = IMAGE.layers[0]
    descriptor = Descriptor(built.media_type, built.digest, len(built.blob))
    path = app.blobs.file(descriptor)

    def fails(*_arguments: object) -> bool:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(BlobStore, "is_right", fails)
    assert b"".join(app.blobs.chunks(descriptor)) == path.read_bytes() == built.blob


@pytest.mark.parametrize("tag_ttl_s", [0.0, 60.0])
def test_a_manifest_that_the_registry_has_under_its_tag_alone_is_shown(served: Served, tag_ttl_s: float) -> None:
    """A registry that answers HEAD of a tag, and 404 to GET by the digest that it named, once gave ENOENT."""
    push(served, "1")
    served.server.on("GET", "/manifests/sha256", reply(404))
    shown = served.show(tag_ttl_s=tag_ttl_s)
    assert shown.read("app/1/manifest.json") == IMAGE.manifest
    assert shown.read("app/1/rootfs/file") == b"content"
    assert served.server.paths("GET /v2/app/manifests/1") == ["GET /v2/app/manifests/1"]


def test_a_tag_that_the_registry_names_by_a_digest_that_it_lacks_is_there_but_has_bad_content(served: Served) -> None:
    push(served, "1")
    wrong = str(Digest.of(b"no manifest"))
    served.server.on(
        "HEAD", "/manifests/1", changed(lambda right: right.with_header("Docker-Content-Digest", wrong)), times=1
    )
    shown = served.show(tag_ttl_s=60.0)
    app = shown.repositories.repository(RepositoryName(served.server.address, "app"))
    resolved = app.tags.resolve("1")
    for _ in range(3):  # also while it is remembered
        with pytest.raises(BadContent, match=f"app:1: the registry named {wrong}, which it does not have") as caught:
            app.manifests.document(resolved.digest, resolved.media_type)
        assert errno_of(caught.value) == errno.EIO
    assert shown.read("app/1/manifest.json") == IMAGE.manifest  # the tag was asked for again


def test_a_digest_that_no_tag_points_to_and_the_registry_lacks_is_not_there(served: Served) -> None:
    push(served, "1")
    shown = served.show(tag_ttl_s=60.0)
    shown.read("app/1/manifest.json")
    with pytest.raises(NotFound):
        shown.find(f"app/{Digest.of(b'no manifest')}/manifest.json")


def test_a_tag_that_was_deleted_between_two_requests_is_not_there(served: Served) -> None:
    push(served, "1")
    shown = served.show(tag_ttl_s=60.0)
    app = shown.repositories.repository(RepositoryName(served.server.address, "app"))
    resolved = app.tags.resolve("1")
    served.server.on("*", "/manifests/", reply(404))
    with pytest.raises(NotFound):
        app.manifests.document(resolved.digest, resolved.media_type)


def test_a_request_that_hangs_once_does_not_keep_a_short_timeout_from_the_next_answer(served: Served) -> None:
    push(served, "1")
    served.server.on("HEAD", "/manifests/1", silence, times=1)
    app = served.show().repositories.repository(RepositoryName(served.server.address, "app"))
    with under(Deadline(0.5, is_users=True)), pytest.raises(RegistryTimeout):
        app.tags.resolve("1")
    later = Deadline(100.0, is_users=True)
    later.timeout_s = 0.5  # what is looked at; it may wait for longer, as a busy machine needs
    with under(later):
        assert app.tags.resolve("1").digest == IMAGE.digest
    assert served.server.paths("manifests/1") == ["HEAD /v2/app/manifests/1"] * 2
