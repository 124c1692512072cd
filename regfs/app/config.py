"""Config: what the user asked for, as one frozen value; and the table of options that it is made from.

cli/ turns arguments and -o words into a Config with `with_options`. `--help` and the manual page are made from the
same table. Nothing here reads the environment: it comes in as a mapping.
Pure; any thread.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from regfs.app.quantities import parse_age, parse_cache_size, parse_duration, parse_min_free, parse_share
from regfs.errors import InvalidName, InvalidOption
from regfs.model.cache_limits import TWENTIETH, Limits, MinFree
from regfs.model.names import DOCKER_HUB, ONE_IMAGE, canonical_registry
from regfs.model.platform import Platform, host_platform, parse_platform
from regfs.process.user import home_directory, is_root_of_machine, may_write

SITE_CACHE = Path("/var/cache/regfs")
OWNERS = ("image", "me", "subuid")
DRIVERS = ("auto", "kernel", "fusepy")
MOST_CONNECTIONS = 6
"""The most connections for transfers from one host, as in registry/client_parts.py."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that may be set. Sizes are bytes; times are seconds; paths are absolute."""

    default_registry: str = DOCKER_HUB
    insecure_registries: frozenset[str] = frozenset()
    platform: Platform | None = None
    tag_ttl_s: float = 60.0
    timeout_s: float = 300.0
    connections: int | None = None
    background_fetch: bool = False
    rest_from: float = 1 / 3
    hub_listing: bool = False
    soci_v1: bool = False
    policy: str = ""
    """A containers-policy.json(5) or notation's trustpolicy.json; "none"; "" means podman's, if it exists."""
    trusted_root: str = ""
    """The path of sigstore's trusted_root.json, "" for none."""
    offline: bool = False
    cache_dir: Path = SITE_CACHE
    cache_size: int | None = None
    min_free: MinFree = TWENTIETH
    cache_age_s: float = math.inf
    scrub_age_s: float = math.inf
    """The seconds after which each file of the cache is read again to find rot."""
    driver: str = "auto"
    allow_other: bool = False
    allow_suid: bool = False
    allow_dev: bool = False
    default_permissions: bool = False
    owner: str = "image"
    """Who owns the files: "image" (as it says), "me" (who mounts) or "subuid" (by /etc/subuid and /etc/subgid)."""
    passthrough: bool = True
    inode32: bool = False
    low_latency: bool = False
    noexec: bool = False
    read_only: bool = False
    restart: bool = True
    """Whether the mount outlives its daemon, and a new daemon takes it over."""
    fsname: str | None = None
    image: str | None = None
    """The image of the default registry that is shown alone: repository and tag or digest."""
    foreground: bool = False
    debug: bool = False
    log_file: Path | None = None
    log_level: int = logging.INFO
    is_quiet: bool = False

    @property
    def limits(self) -> Limits:
        """The cache's size limit, the free space to keep on its disk, and the age at which content is evicted."""
        return Limits(self.cache_size, self.min_free, self.cache_age_s)

    @property
    def shown_image(self) -> str:
        """The image in the mount option fsname (set by `regfs mount --fuse`); "" if there is none."""
        return self.fsname.removeprefix(ONE_IMAGE) if self.fsname and self.fsname.startswith(ONE_IMAGE) else ""

    @property
    def source(self) -> str:
        """What /proc/mounts names as the device."""
        if self.image is not None:
            return f"{ONE_IMAGE}{self.shown_image or f'{self.default_registry}/{self.image}'}"
        return self.fsname or self.default_registry


class Option(NamedTuple):
    """One option: `--name METAVAR`, or a flag if *metavar* is empty. *apply* puts its text into a Config."""

    name: str
    heading: str
    metavar: str
    help: str
    apply: Callable[[Config, str], Config]

    @property
    def is_flag(self) -> bool:
        """Whether the option takes no value."""
        return not self.metavar

    @property
    def word(self) -> str:
        """The option's name after `-o`."""
        return self.name.replace("-", "_")


def parse_registry(text: str) -> str:
    """Return the canonical name of a registry. Raises InvalidOption, also where a URL was given."""
    try:
        return canonical_registry(text.strip())
    except InvalidName as error:
        raise InvalidOption(f"{error}, for example docker.io or localhost:5000") from None


def parse_path(text: str) -> Path:
    """Return an absolute path; relative ones count from the present directory. Raises InvalidOption."""
    not_empty(text)
    return Path(text).expanduser().absolute() if text.startswith("~") else Path(text).absolute()


def not_empty(path: str) -> str:
    """Return *path*. Raises InvalidOption if it is empty: an unset `$DIR` must not mean the working directory."""
    if not path:
        raise InvalidOption("the path is empty")
    return path


def parse_driver(text: str) -> str:
    """Return *text*, the name of a driver. Raises InvalidOption for any other text."""
    if text not in DRIVERS:
        raise InvalidOption(f"{text!r} is not a driver{suggestion(text, DRIVERS)}; there are {', '.join(DRIVERS)}")
    return text


def parse_owner(text: str) -> str:
    """Return *text*: `me`, `image` or `subuid`. Raises InvalidOption for any other text."""
    if text not in OWNERS:
        raise InvalidOption(f"{text!r} is not an owner; write me, image or subuid")
    return text


def parse_connections(text: str) -> int | None:
    """Return how many connections *text* means, None for `auto`. Raises InvalidOption."""
    if text == "auto":
        return None
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:4]) <= MOST_CONNECTIONS):
        raise InvalidOption(f"{text!r} is not a number of connections; write auto, or 1 to {MOST_CONNECTIONS}")
    return int(text)


def _parse_insecure(text: str) -> str:
    """Return a registry, or a network that stands for all registries in it (10.0.0.0/8), as Docker does."""
    if "/" not in text:
        return parse_registry(text)
    if "://" in text:
        scheme, _, rest = text.partition("://")
        registry = parse_registry(rest.rstrip("/"))  # first: it refuses a password, which the message would repeat
        raise InvalidOption(f"{text!r} is not a registry; leave out {scheme.strip()}://, as in {registry}")
    from ipaddress import ip_network  # imported here: it takes 4 ms, and few users name a network

    try:
        return str(ip_network(text.strip()))
    except ValueError as error:
        raise InvalidOption(f"{error}; write a registry, or a network as 10.0.0.0/8") from None


def _parse_platform(text: str) -> Platform:
    return host_platform() if text == "local" else parse_platform(text)


MOUNT, REGISTRY, CACHE, LOGGING = "mount", "registry", "cache", "logging"
OPTIONS: tuple[Option, ...] = (
    Option("driver", MOUNT, "auto|kernel|fusepy",
           "how to talk to the kernel (default: auto, that is kernel where it runs)",
           lambda config, text: replace(config, driver=parse_driver(text))),
    Option("allow-other", MOUNT, "",
           "let other users in: they see what your credentials can read, as far as owners and modes let them",
           lambda config, _: replace(config, allow_other=True)),
    Option("allow-suid", MOUNT, "", "honour setuid and setgid bits of images (root only)",
           lambda config, _: replace(config, allow_suid=True)),
    Option("allow-dev", MOUNT, "", "let device files of images work (root only)",
           lambda config, _: replace(config, allow_dev=True)),
    Option("default-permissions", MOUNT, "",
           "let the kernel check owners and modes, for you too (implied by --allow-other)",
           lambda config, _: replace(config, default_permissions=True)),
    Option("owner", MOUNT, "me|image|subuid",
           "who owns the files: you, so that what is yours alone (unshare -r, bwrap, podman) can write on top; "
           "subuid: users by /etc/subuid; default: image, as it says",
           lambda config, text: replace(config, owner=parse_owner(text))),
    Option("subuid", MOUNT, "", "the same as --owner subuid: root's files are yours, others' those of your range",
           lambda config, _: replace(config, owner="subuid")),
    Option("no-passthrough", MOUNT, "",
           "let regfs serve cached large files itself, so that an overlay over an overlay over a rootfs can be mounted",
           lambda config, _: replace(config, passthrough=False)),
    Option("low-latency", MOUNT, "",
           "let no core of the machine sleep deeply during bursts of requests: costs power (root only)",
           lambda config, _: replace(config, low_latency=True)),
    Option("background-fetch", MOUNT, "",
           "once an image that is read chunk by chunk was opened, fetch the rest of it while no read waits",
           lambda config, _: replace(config, background_fetch=True)),
    Option("rest-from", MOUNT, "PERCENT",
           "once so much of a layer that is read chunk by chunk is here, fetch the rest (default: 33; 100: never)",
           lambda config, text: replace(config, rest_from=parse_share(text))),
    Option("inode32", MOUNT, "",
           "show inode numbers below 2^32, for 32-bit programs; images then share numbers",
           lambda config, _: replace(config, inode32=True)),
    Option("no-restart", MOUNT, "",
           "let the mount end with its daemon, as it does with -f and the fusepy driver; without it another daemon "
           "takes a mount over whose daemon has crashed, and nothing inside notices",
           lambda config, _: replace(config, restart=False)),
    Option("default-registry", REGISTRY, "HOST",
           "the registry that names without one belong to (default: docker.io)",
           lambda config, text: replace(config, default_registry=parse_registry(text))),
    Option("platform", REGISTRY, "OS/ARCH[/VARIANT]", "which image of an index to show (default: this machine's)",
           lambda config, text: replace(config, platform=_parse_platform(text))),
    Option("tag-ttl", REGISTRY, "TIME",
           "how long a tag, or list of tags, is trusted before it is asked for again (default: 60s; 0: ask each time)",
           lambda config, text: replace(config, tag_ttl_s=parse_duration(text))),
    Option("timeout", REGISTRY, "TIME", "the longest that one file operation waits for a registry (default: 5m)",
           lambda config, text: replace(config, timeout_s=parse_duration(text))),
    Option("connections", REGISTRY, "auto|N",
           "how many connections one big blob is fetched over, 1 to 6 (default: auto, as many as make it faster)",
           lambda config, text: replace(config, connections=parse_connections(text))),
    Option("insecure-registry", REGISTRY, "HOST",
           "do not verify this registry's certificate, and use http where it has no https; may be repeated",
           lambda config, text: replace(
               config, insecure_registries=config.insecure_registries | {_parse_insecure(text)})),
    Option("hub-listing", REGISTRY, "", "list Docker Hub's namespaces through its API, which has limits of its own",
           lambda config, _: replace(config, hub_listing=True)),
    Option("soci-v1", REGISTRY, "",
           "use SOCI indexes of version 1 too: they refer to an image, whose digest does not vouch for them",
           lambda config, _: replace(config, soci_v1=True)),
    Option("policy", REGISTRY, "FILE|none",
           "show only images that this containers-policy.json allows (default: ~/.config/containers/policy.json or "
           "/etc/containers/policy.json where there is one; none: show all); or notation's trustpolicy.json, with the "
           "truststore directory beside it",
           lambda config, text: replace(config, policy=text if text == "none" else str(parse_path(text)))),
    Option("trusted-root", REGISTRY, "FILE",
           "verify sigstore bundles by this trusted_root.json, where the policy wants a signer of Fulcio's (needs "
           "regfs[sigstore]); without it, by the keys in the policy",
           lambda config, text: replace(config, trusted_root=str(parse_path(text)))),
    Option("offline", REGISTRY, "", "never use the network: serve what the cache has",
           lambda config, _: replace(config, offline=True)),
    Option("cache-dir", CACHE, "DIR",
           "where fetched content is kept (default: ~/.cache/regfs, for root /var/cache/regfs)",
           lambda config, text: replace(config, cache_dir=parse_path(text))),
    Option("cache-size", CACHE, "SIZE",
           "the most that the cache may hold (default: 10GiB, or a tenth of the disk if less; 0: what is in use)",
           lambda config, text: replace(config, cache_size=parse_cache_size(text))),
    Option("min-free", CACHE, "SIZE|PERCENT",
           "what stays free on the disk of the cache, whatever fills it (default: a twentieth)",
           lambda config, text: replace(config, min_free=parse_min_free(text))),
    Option("cache-age", CACHE, "TIME",
           "evict what was not used for so long, for example 30d (default: never)",
           lambda config, text: replace(config, cache_age_s=parse_age(text))),
    Option("scrub", CACHE, "TIME",
           "check each cached file for rot in the background, so long after it was checked last, for example 30d; what "
           "is damaged is fetched again (default: never; regfs cache verify checks now)",
           lambda config, text: replace(config, scrub_age_s=parse_age(text))),
    Option("log-file", LOGGING, "FILE",
           "append the log to this file (default: syslog in the background, stderr with -f)",
           lambda config, text: replace(config, log_file=parse_path(text))),
)  # fmt: skip


def option_named(word: str) -> Option | None:
    """Return the option named *word*, in which `_` may replace `-`; None if there is none."""
    name = word.replace("_", "-")
    return next((option for option in OPTIONS if option.name == name), None)


def with_options(config: Config, options: Iterable[tuple[Option, str]]) -> Config:
    """Return *config* with the texts of *options* parsed into it, later ones winning. Raises InvalidOption."""
    for option, text in options:
        try:
            config = option.apply(config, text)
        except InvalidOption as error:
            raise InvalidOption(f"{option.name}: {error}") from None
    return config


def default_config(environment: Mapping[str, str]) -> Config:
    """Return the Config without any option.

    If root cannot write to /var (in a user namespace, on a read-only system), the cache is in its home directory.
    """
    is_root = is_root_of_machine() and may_write(SITE_CACHE)
    return Config(cache_dir=default_cache_dir(environment, home=home_directory(environment), is_root=is_root))


def default_cache_dir(environment: Mapping[str, str], *, home: str, is_root: bool) -> Path:
    """Return $XDG_CACHE_HOME/regfs or ~/.cache/regfs; /var/cache/regfs for root, and where *home* is empty."""
    configured = environment.get("XDG_CACHE_HOME", "")
    if configured.startswith("/"):
        return Path(configured) / "regfs"
    if is_root or not home:
        return SITE_CACHE
    return Path(home) / ".cache" / "regfs"


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?` for the known word most similar to *word*, or '' if none is similar."""
    from difflib import get_close_matches  # imported here: it takes 5 ms, and only mistyped words need it

    near = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
