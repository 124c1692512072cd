"""Names: registries, repositories, tags, references.

A RepositoryName that exists is valid, so that it may stand in a URL. Sources: distribution-spec, "Pulling manifests"
(repository and tag grammar); distribution/reference, normalize.go and regexp.go (which first component is a host).
All patterns are ASCII and used with fullmatch: `$` would accept a trailing newline, `\\w` any Unicode letter.
Pure; any thread.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from regfs.errors import InvalidName, NameTooLong
from regfs.model.digest import Digest

DOCKER_HUB = "docker.io"
_HUB_ALIASES = frozenset({"index.docker.io", "registry-1.docker.io"})
NAME_MAX = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_COMPONENT_RE = re.compile(_COMPONENT, re.ASCII)
_PATH_RE = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_TAG_RE = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", re.ASCII)
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST_RE = re.compile(rf"((?:{_LABEL}(?:\.{_LABEL})*)|\[[0-9a-fA-F:]+\])(?::([0-9]{{1,5}}))?", re.ASCII)
_LABEL_MAX, _PORT_MAX = 63, 65535  # RFC 1035 section 2.3.4; no resolver and no socket goes beyond
# Cosign's and the referrers tag schema's tags: about another manifest, not versions of the repository.
_ATTACHMENT_RE = re.compile(r"sha(?:256-[0-9a-f]{64}|512-[0-9a-f]{64,128})(?:\.(?:sig|att|sbom))?", re.ASCII)
# The short form of an image's id: Docker takes it for one, so that it is no name of an official image.
_IDENTIFIER_RE = re.compile(r"[a-f0-9]{64}", re.ASCII)


def is_repository_component(name: str) -> bool:
    """Tell whether *name* may be one component of a repository's path."""
    return len(name) <= NAME_MAX and _COMPONENT_RE.fullmatch(name) is not None


def is_tag(name: str) -> bool:
    """Tell whether *name* may be a tag."""
    return _TAG_RE.fullmatch(name) is not None


def is_attachment_tag(tag: str) -> bool:
    """Tell whether *tag* is one of those that signatures, attestations and referrers are kept under."""
    return _ATTACHMENT_RE.fullmatch(tag) is not None


def is_registry(name: str) -> bool:
    """Tell whether *name* as the first component of a reference is a registry: Docker's rule.

    It is `localhost`, or has a dot, a colon or an upper-case letter, and is a host with an optional port.
    """
    looks_like_a_host = name == "localhost" or "." in name or ":" in name or name != name.lower()
    return looks_like_a_host and _is_host(name)


def canonical_registry(host: str) -> str:
    """Return the one name under which *host* is known. Raises InvalidName where it is no host."""
    if not _is_host(host):
        raise InvalidName(f"{host[:300]!r} is not a registry: a host name with an optional port is needed")
    lower = host.lower()
    return DOCKER_HUB if lower in _HUB_ALIASES else lower


def _is_host(name: str) -> bool:
    match = _HOST_RE.fullmatch(name)
    if match is None or len(name) > NAME_MAX:
        return False
    host, port = match[1], match[2]
    if port is not None and not 0 < int(port) <= _PORT_MAX:
        return False
    if host.startswith("["):
        return _is_ipv6(host[1:-1])
    return all(len(label) <= _LABEL_MAX for label in host.split("."))


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True, order=True)
class RepositoryName:
    """A repository of a registry: *registry* is `host[:port]`, *path* is `library/debian`.

    Docker Hub's official images have `library/` here, in URLs and in token scopes. Raises InvalidName.
    """

    registry: str
    path: str

    def __post_init__(self) -> None:
        if self.registry != canonical_registry(self.registry):
            raise InvalidName(f"{self.registry!r} is not a registry's canonical name")
        if not _PATH_RE.fullmatch(self.path):
            raise InvalidName(f"{self.path[:300]!r} is not a repository")
        if any(len(component) > NAME_MAX for component in self.path.split("/")):
            raise NameTooLong(f"{self.path[:300]!r} has a component of more than {NAME_MAX} bytes")

    def __str__(self) -> str:
        return f"{self.registry}/{self.path}"


@dataclass(frozen=True, slots=True)
class Reference:
    """A repository and, in it, a tag or a digest (the digest decides where both are given)."""

    repository: RepositoryName
    tag: str | None
    digest: Digest | None

    def __post_init__(self) -> None:
        if self.tag is not None and not is_tag(self.tag):
            raise InvalidName(f"{self.tag[:300]!r} is not a tag")

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        digest = f"@{self.digest}" if self.digest is not None else ""
        return f"{self.repository}{tag}{digest}"


def parse_repository(text: str, *, default_registry: str = DOCKER_HUB) -> RepositoryName:
    """Return the repository that *text* names: `debian`, `ghcr.io/owner/app`. Raises InvalidName."""
    first, slash, rest = text.partition("/")
    if slash and is_registry(first):
        registry, path = canonical_registry(first), rest
    else:
        registry, path = canonical_registry(default_registry), text
    if registry == DOCKER_HUB and not slash and _IDENTIFIER_RE.fullmatch(path):
        raise InvalidName(f"{path!r} is an image's identifier; write library/{path[:8]}… for a repository of that name")
    if registry == DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    return RepositoryName(registry, path)


def parse_reference(text: str, *, default_registry: str = DOCKER_HUB) -> Reference:
    """Return what a pasted reference names: `[docker://][registry/]repository[:tag][@digest]`, by default `latest`.

    Raises InvalidName.
    """
    rest = text.removeprefix("docker://")
    rest, at, digest_text = rest.partition("@")
    digest = Digest.parse(digest_text) if at else None
    head, slash, last = rest.rpartition("/")
    name, colon, tag = last.partition(":")
    repository = parse_repository(f"{head}{slash}{name}", default_registry=default_registry)
    if colon:
        return Reference(repository, tag, digest)
    return Reference(repository, None if digest else "latest", digest)
