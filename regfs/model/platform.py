"""Platforms: parses them, and chooses the entry of an index that fits one.

Used by manifest.py (descriptors carry platforms) and by images (the choice). Source: image-spec, image-index.md;
containerd's platforms package, database.go and compare.go (normal forms, and which platform runs which images). Pure,
but for host_platform(), which calls uname(2); any thread.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from regfs.errors import InvalidOption, PlatformMissing, Unsupported
from regfs.model.media_types import CONFIG_TYPES, INDEX_TYPES

UNKNOWN = "unknown"
_REFERENCE_TYPE = "vnd.docker.reference.type"
_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv8l": ("arm", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv5tel": ("arm", "v5"),
}
# Images use the names of Go: GOOS and GOARCH of its internal/platform (go tool dist list -json has those of its present
# release). Any other name is a typing error.
_KNOWN_ARCHITECTURES = frozenset(
    {"386", "amd64", "amd64p32", "arm", "arm64", "arm64be", "armbe", "loong64", "mips", "mips64", "mips64le",
     "mips64p32", "mips64p32le", "mipsle", "ppc", "ppc64", "ppc64le", "riscv", "riscv64", "s390", "s390x", "sparc",
     "sparc64", "wasm"}
)  # fmt: skip
_KNOWN_SYSTEMS = frozenset(
    {"aix", "android", "darwin", "dragonfly", "freebsd", "hurd", "illumos", "ios", "js", "linux", "nacl", "netbsd",
     "openbsd", "plan9", "solaris", "wasip1", "wasip2", "windows", "zos"}
)  # fmt: skip
_PART_RE = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_SYSTEM_RE = re.compile(r"([A-Za-z0-9_.-]+)(?:\(([A-Za-z0-9_.+-]+)\))?", re.ASCII)
_ARM64_RE = re.compile(r"v([89])(?:\.([0-9]))?", re.ASCII)


class Platform(NamedTuple):
    """An operating system and an architecture, as written in an index, a config or an option."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    @property
    def is_known(self) -> bool:
        """Whether both parts are known: attestations are entries for `unknown/unknown`."""
        return all(part not in ("", UNKNOWN) for part in (self.os, self.architecture))

    def normal(self) -> Platform:
        """Return the normal form of this platform: x86_64 is amd64, arm64/v8 is arm64."""
        system, architecture, variant = self.os.lower(), self.architecture.lower(), self.variant.lower()
        if system == "macos":
            system = "darwin"
        if architecture in _ARCHITECTURES:
            architecture, default = _ARCHITECTURES[architecture]
            variant = variant or default
        if architecture == "arm":
            variant = {"": "v7", "5": "v5", "6": "v6", "7": "v7", "8": "v8"}.get(variant, variant)
        elif (architecture, variant) in {("arm64", "8"), ("arm64", "v8"), ("arm64", "v8.0"), ("amd64", "v1")}:
            variant = ""
        elif (architecture, variant) == ("arm64", "v9.0"):
            variant = "v9"
        return self._replace(os=system, architecture=architecture, variant=variant)

    @property
    def has_windows_layers(self) -> bool:
        """Whether the layers of an image for this platform are in Windows' form, which is not a tree of files."""
        return self.os.lower() == "windows"

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Choosable(Protocol):
    """What choose() needs to know of an entry; implemented by manifest.Descriptor."""

    @property
    def media_type(self) -> str: ...

    @property
    def platform(self) -> Platform | None: ...

    @property
    def artifact_type(self) -> str | None: ...

    @property
    def annotations(self) -> Mapping[str, str]: ...


Entry = TypeVar("Entry", bound=Choosable)


def parse_platform(text: str) -> Platform:
    """Return the platform that *text* spells: `linux/arm64/v8`, `arm64`, `windows(10.0.17763)/amd64`.

    Parts that are left out are those of the host. Raises InvalidOption, also for names that no image can have.
    """
    first, *rest = text.split("/")
    system = _SYSTEM_RE.fullmatch(first)
    if system is None or len(rest) > 2 or not all(_PART_RE.fullmatch(part) for part in rest):
        raise InvalidOption(f"{text[:100]!r} is not a platform: OS/ARCHITECTURE[/VARIANT] is needed, as in linux/arm64")
    name, version = system[1].lower(), system[2] or ""
    if _is_architecture(name) and len(rest) < 2 and "".join(rest).lower() not in _KNOWN_SYSTEMS:
        return Platform(host_platform().os, name, "".join(rest)).normal()
    if not rest:
        if name not in _KNOWN_SYSTEMS:
            near = _near(name, {*_KNOWN_SYSTEMS, *_KNOWN_ARCHITECTURES, *_ARCHITECTURES})
            raise InvalidOption(
                f"{text[:100]!r} is neither an operating system nor an architecture, as in linux/arm64{near}"
            )
        host = host_platform()
        return Platform(name, host.architecture, host.variant, version).normal()
    if rest[0].lower() in _KNOWN_SYSTEMS and _is_architecture(name):
        raise InvalidOption(f"{text[:100]!r} begins with an architecture; did you mean {rest[0].lower()}/{name}?")
    wanted = Platform(name, rest[0], rest[1] if len(rest) == 2 else "", version).normal()
    if wanted.os not in _KNOWN_SYSTEMS:
        raise InvalidOption(f"{first[:100]!r} is not an operating system{_near(wanted.os, _KNOWN_SYSTEMS)}")
    if not _is_architecture(wanted.architecture):
        near = _near(wanted.architecture, {*_KNOWN_ARCHITECTURES, *_ARCHITECTURES})
        raise InvalidOption(f"{rest[0][:100]!r} is not an architecture that images are built for{near}")
    return wanted


def host_platform() -> Platform:
    """Return the platform of this machine, by uname(2)."""
    kernel = os.uname()
    return Platform(kernel.sysname.lower(), kernel.machine).normal()


def is_attestation(entry: Choosable) -> bool:
    """Tell whether an index's entry is an attestation of another entry, as BuildKit writes it.

    Source: BuildKit, docs/attestations/attestation-storage.md.
    """
    return _REFERENCE_TYPE in entry.annotations


def is_image_entry(entry: Choosable) -> bool:
    """Tell whether an index's entry is an ordinary image (or an index of them) that any runtime may choose.

    Not attestations, not artifacts (SOCI's indexes have a platform as images do), and not images that need features
    of their runtime (nydus marks its own with os.features).
    """
    if is_attestation(entry) or (entry.artifact_type and entry.artifact_type not in CONFIG_TYPES):
        return False
    platform = entry.platform
    if platform is None:
        return True
    features = set(platform.os_features) - ({"win32k"} if platform.os.lower() == "windows" else set())
    return platform.is_known and not features


def choose(
    entries: Sequence[Entry], wanted: Platform, *, platform_of: Callable[[Entry], Platform | None] | None = None
) -> Entry:
    """Return the entry of an index that suits *wanted* best: the same platform, then one that it can also run.

    Of equal entries the first wins (image-index.md). Entries without a platform are tried last: *platform_of* returns
    the platform in their config, and may block on the network; without *platform_of* the first one is chosen. A nested
    index without a platform is chosen last; the caller then chooses in it.

    Raises PlatformMissing, which names the available platforms, and what *platform_of* raises.
    """
    images = [entry for entry in entries if is_image_entry(entry)]
    if found := _first_that_serves([(entry, entry.platform) for entry in images if entry.platform], wanted):
        return found
    unnamed = [entry for entry in images if entry.platform is None]
    nested = [entry for entry in unnamed if entry.media_type in INDEX_TYPES]
    single = [entry for entry in unnamed if entry.media_type not in INDEX_TYPES]
    if platform_of is None:
        if single or nested:
            return (single + nested)[0]
    else:
        told = [(entry, platform) for entry in single if (platform := platform_of(entry)) is not None]
        if found := _first_that_serves(told, wanted):
            return found
        if nested:
            return nested[0]
    there_are = sorted({str(entry.platform) for entry in images if entry.platform}) or [
        "none that says what it runs on"
    ]
    raise PlatformMissing(f"no image for {wanted} in the index; there are: {', '.join(there_are)[:1000]}")


def require_files(platform: Platform, media_type: str) -> None:
    """Raise Unsupported if layers of an image for *platform* are not shown as files: those for Windows.

    Such a tar holds `Files/`, `Hives/` (changes of the registry), security descriptors, and in a base layer links that
    Windows makes when it imports it. Merged by Linux's rules it would be no file system that Windows ever shows.
    """
    if platform.has_windows_layers:
        raise Unsupported(
            f"layers of type {media_type[:200]!r} of an image for {str(platform)[:100]!r} cannot be shown as files: "
            "Windows alone can merge them; layers/N/blob is the tar of each (tar tzf layers/000/blob)"
        )


def runs(wanted: Platform, there: Platform) -> bool:
    """Tell whether a machine of the platform *wanted* runs programs for *there*; True if *there* is unknown."""
    if not there.is_known:
        return True
    normal = there.normal()
    return any(_serves(normal, candidate) for candidate in candidates(wanted))


def candidates(wanted: Platform) -> Iterator[Platform]:
    """Yield the platforms that *wanted* can run, in normal form, the best first."""
    wanted = wanted.normal()._replace(os_features=())
    for architecture, variant in _runnable(wanted.architecture, wanted.variant):
        yield wanted._replace(architecture=architecture, variant=variant).normal()


def _first_that_serves(named: Sequence[tuple[Entry, Platform]], wanted: Platform) -> Entry | None:
    normal = [(entry, platform.normal()) for entry, platform in named]
    for candidate in candidates(wanted):
        for entry, platform in normal:
            if _serves(platform, candidate):
                return entry
    return None


def _serves(platform: Platform, candidate: Platform) -> bool:
    """Tell whether *platform* is *candidate*, both in normal form; a wanted version 10.0.17763 has many builds."""
    if _kind(platform) != _kind(candidate):
        return False
    version = candidate.os_version
    return not version or platform.os_version == version or platform.os_version.startswith(f"{version}.")


def _kind(platform: Platform) -> tuple[str, str, str]:
    return platform.os, platform.architecture, platform.variant


def _runnable(architecture: str, variant: str) -> Iterator[tuple[str, str]]:
    yield architecture, variant
    if architecture == "amd64":
        if re.fullmatch(r"v[2-9]", variant):
            yield from (("amd64", f"v{level}") for level in range(int(variant[1]) - 1, 0, -1))
        yield "386", ""
    elif architecture == "arm":
        if re.fullmatch(r"v[5-8]", variant):
            yield from (("arm", f"v{level}") for level in range(int(variant[1]) - 1, 4, -1))
    elif architecture == "arm64":
        yield from _arm64_below(variant)
        yield from (("arm", f"v{level}") for level in range(8, 4, -1))


def _arm64_below(variant: str) -> Iterator[tuple[str, str]]:
    """Yield the arm64 variants below *variant*. Armv9.n has all that Armv8.(n+5) has."""
    match = _ARM64_RE.fullmatch(variant or "v8")
    if match is None:
        return
    generation, minor = match[1], int(match[2] or 0)
    if generation == "9":
        yield from (("arm64", f"v9.{lower}") for lower in range(minor - 1, -1, -1))
        minor += 6
    yield from (("arm64", f"v8.{lower}") for lower in range(minor - 1, -1, -1))


def _is_architecture(name: str) -> bool:
    return name in _KNOWN_ARCHITECTURES or name in _ARCHITECTURES


def _near(word: str, known: Collection[str]) -> str:
    """Return `; did you mean X?` for the known word most similar to *word*, '' if none is similar."""
    from difflib import get_close_matches  # imported here: it takes 5 ms, and only mistyped words need it

    near = get_close_matches(word.lower(), sorted(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
