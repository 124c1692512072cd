"""Client: registries through one cache, with one set of options. Also regfs.open(), tags(), repositories() and diff(),
which make one.

A client is a mount without FUSE: the same tree, cache, credentials, mirrors and deadlines. A program that opens many
images should make one and keep it. Thread rule: any thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TypedDict, Unpack

from regfs.app.composition import App, build
from regfs.app.config import OPTIONS, Option, default_config, parse_registry, with_options
from regfs.images.named_images import full_name, image_named
from regfs.library.change import Change, changes
from regfs.library.failures import asking
from regfs.library.image import Image
from regfs.library.path import Path
from regfs.library.path_resolver import Files
from regfs.model.names import parse_reference


class Options(TypedDict, total=False):
    """The options of a client; they mean the same as for a mount, and have the same defaults."""

    platform: str | None
    """`os/arch[/variant]`"""
    default_registry: str | None
    insecure_registries: Iterable[str]
    policy: str | os.PathLike[str] | None
    offline: bool
    cache_dir: str | os.PathLike[str] | None
    timeout_s: float | None
    """How many seconds one call may wait without progress."""
    environment: Mapping[str, str] | None
    """Replaces os.environ, from which credentials, proxies and the cache directory are taken."""


class Client:
    """Access to registries for one program. A context manager; close() releases the cache."""

    def __init__(self, **options: Unpack[Options]) -> None:
        """Make a client without a request. Raises InvalidName and InvalidOption, which are OSErrors here."""
        environment = options.get("environment")
        environment = os.environ if environment is None else environment
        with asking(None):
            config = with_options(default_config(environment), _words(options))
            self._app: App = build(config, environment)
        self._config = config
        self._files = Files(self._app.tree, timeout_s=self._config.timeout_s)

    @property
    def note(self) -> str | None:
        """A message for the user if the cache directory cannot be used and a temporary one replaces it; else None."""
        return self._app.note

    def open(self, image: str) -> Image:
        """Return the image or artifact that the reference *image* names: `debian:12`, `ghcr.io/org/app@sha256:…`.

        Blocks on the network for its manifest. The tag is resolved once: the image stays the same when the tag moves.
        """
        return self._open(image, close=lambda: None)

    def tags(self, repository: str) -> list[str]:
        """Return the tags of *repository*, in the registry's order. Blocks on the network."""
        with asking(self._config.timeout_s):
            name = parse_reference(repository, default_registry=self._config.default_registry).repository
            return list(self._app.repositories.repository(name).tags.names())

    def repositories(self, registry: str | None = None) -> list[str]:
        """Return the repositories in the catalog of *registry*, by default of the default registry. Blocks on the
        network.

        Raises NotFound, AccessDenied or Unsupported if the registry has no catalog; Docker Hub has none.
        """
        with asking(self._config.timeout_s):
            host = self._config.default_registry if registry is None else parse_registry(registry)
            return list(self._app.registry.listing.repositories(host))

    def diff(self, a: str, b: str, path: str = "") -> Iterator[Change]:
        """Return an iterator over what differs from the files of the image *a* to those of *b*, at and below *path*.

        *a* and *b* are references, resolved by this call. The iterator fetches layers as it goes; the client must stay
        open meanwhile. Times are not compared. Raises NotFound if neither image has *path*.
        """
        with asking(self._config.timeout_s):
            references = [parse_reference(text, default_registry=self._config.default_registry) for text in (a, b)]
            found = [image_named(each, self._app.repositories, self._app.images) for each in references]
        return changes(found[0], found[1], path, timeout_s=self._config.timeout_s)

    def path(self, path: str = "") -> Path:
        """Return a path of the tree, as it is below a mount point: `ghcr.io/org/app/1.2/rootfs/etc`.

        A tag in it is resolved at the first use, and then means the same image as long as the client remembers it.
        """
        return Path(self._files).joinpath(path)

    def close(self) -> None:
        """Release the cache. A second call does nothing."""
        self._files.close()
        self._app.close()

    def __enter__(self) -> Client:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        self.close()

    def open_alone(self, image: str) -> Image:
        """Return the image as open() does; closing the image closes the client."""
        return self._open(image, close=self.close)

    def _open(self, image: str, *, close: Callable[[], None]) -> Image:
        with asking(self._config.timeout_s):
            reference = parse_reference(image, default_registry=self._config.default_registry)
            found = image_named(reference, self._app.repositories, self._app.images)
        return Image(
            found,
            self._files,
            referring=self._app.images.referring,
            name=full_name(reference, found),
            timeout_s=self._config.timeout_s,
            close=close,
        )


def _words(options: Options) -> list[tuple[Option, str]]:
    """Return *options* as options of the command line with their texts."""
    cache_dir, timeout_s, policy = options.get("cache_dir"), options.get("timeout_s"), options.get("policy")
    texts = [
        ("platform", options.get("platform")),
        ("default-registry", options.get("default_registry")),
        ("cache-dir", None if cache_dir is None else os.fspath(cache_dir)),
        ("policy", None if policy is None else os.fspath(policy)),
        ("timeout", None if timeout_s is None else f"{timeout_s}s"),
        ("offline", "" if options.get("offline") else None),
        *(("insecure-registry", registry) for registry in options.get("insecure_registries", ())),
    ]
    by_name = {option.name: option for option in OPTIONS}
    return [(by_name[name], text) for name, text in texts if text is not None]


def open_image(image: str, **options: Unpack[Options]) -> Image:
    """Return the image or artifact that the reference *image* names, through a client of its own. See Client.

    Close the image, or use it in a `with` statement: that closes its client.
    """
    client = Client(**options)
    try:
        return client.open_alone(image)
    except BaseException:  # Ctrl-C too: the caller has no image yet, so nothing else closes the client
        client.close()
        raise


def tags(repository: str, **options: Unpack[Options]) -> list[str]:
    """Return the tags of *repository*. See Client.tags."""
    with Client(**options) as client:
        return client.tags(repository)


def repositories(registry: str | None = None, **options: Unpack[Options]) -> list[str]:
    """Return the repositories in the catalog of *registry*. See Client.repositories."""
    with Client(**options) as client:
        return client.repositories(registry)


def diff(a: str, b: str, path: str = "", **options: Unpack[Options]) -> Iterator[Change]:
    """Yield what differs from the files of the image *a* to those of *b*, at and below *path*. See Client.diff.

    The first step resolves the references. The cache is released after the last step, or when the iterator is closed.
    """
    with Client(**options) as client:
        yield from client.diff(a, b, path)
