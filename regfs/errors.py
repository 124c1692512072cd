"""The errors of regfs: one tree, raised by every package, turned into errnos by mount/errnos.py alone.

RegfsError
├── InvalidName             a name that no grammar allows; it cannot exist
│   └── NameTooLong         a component over 255 bytes
├── NotFound                a definite answer of the registry, the archive or the tree: there is no such thing
│   ├── RepositoryUnknown   the registry says in the specification's words that it has no such repository
│   ├── DigestUnresolved    a short digest that is not the beginning of exactly one known digest
│   ├── PlatformMissing     an index has no image for the platform that is wanted
│   └── ManifestMissing     an index names a manifest that the registry does not have
├── AccessDenied            401 or 403 after a right attempt; or the policy of signatures allows no image like this
├── RateLimited             429, and waiting would outlast the caller's deadline
├── RegistryTimeout         the deadline passed before the registry answered
├── RegistryUnavailable     no connection: DNS, refused, no route, 5xx after the retries
│   └── Offline             regfs was told not to ask (--offline)
├── BadContent              bytes or protocol are wrong
│   ├── DigestMismatch      bytes that are not what their digest or size says
│   ├── ProtocolViolation   an answer that the protocol does not allow, or a certificate that is not trusted
│   │   └── RangesRefused   a server that gives whole blobs only, where a part was asked for
│   ├── BadManifest         a manifest, index or config that is none
│   └── BadLayer            a layer that is no archive, or that no unpacker would accept
├── TooLarge                over a limit that regfs sets to stay bounded
├── Unsupported             schema 1, an unknown digest algorithm or layer type
├── Interrupted             the caller gave up (a signal, FUSE_INTERRUPT)
├── OutOfThreads            the system lets regfs start no further thread or process
├── ReadOnly                an attempt to write
├── InUse                   what is to be evicted is open, mounted by the kernel, or pinned
├── WorkStalled             local work (a worker process, a disk) made no progress within its deadline, and was ended
├── NotADirectory · IsADirectory · NotASymlink · NoSuchXattr · BadHandle
├── LinkLoop                symbolic links that lead nowhere, where regfs follows them itself
├── StaleNode               a node that is no longer known; its name must be looked up again
├── CacheFailure            the cache directory cannot be used; this costs speed, never answers
│   ├── CacheDamaged        a cached file failed the check of its content; it is removed and made again
│   ├── WorkerKilled        a signal ended a worker process: the kernel's OOM killer, most often
│   └── CacheFull           there is no room for what has to be there as a file before it can be read
├── MountFailure            the mount could not be made; the message names the remedy
├── BadConfiguration        a broken file about how to ask registries (hosts.toml, registries.conf, a certificate)
├── InvalidOption           an option or argument that regfs does not understand
└── WouldBlock              internal: the answer is not in memory or on disk, and the caller may not wait

Messages name the object, the reason and, where there is one, the remedy; they never hold a secret.
"""

from __future__ import annotations


class RegfsError(Exception):
    """The root of all errors that regfs raises on purpose."""


class InvalidName(RegfsError):
    """A name that no grammar allows: it cannot exist."""


class NameTooLong(InvalidName):
    """A path component of more than 255 bytes."""


class NotFound(RegfsError):
    """The registry, the archive or the tree definitely has no such thing."""


class RepositoryUnknown(NotFound):
    """The registry says that it has no such repository, by an error document and not just by a status.

    A 404 alone comes from proxies, static file servers and registries without that part of the API as well.
    """


class DigestUnresolved(NotFound):
    """A short digest that is not the beginning of exactly one known digest."""


class PlatformMissing(NotFound):
    """An index has no image for the platform that is wanted; the message names both sides."""


class ManifestMissing(NotFound):
    """An index of the registry names a manifest that the registry does not have."""


class AccessDenied(RegfsError):
    """The registry refuses (401 or 403) after authentication was tried as it asks; or the user's policy does."""


class RateLimited(RegfsError):
    """The registry asks to come back later than the caller can wait (429)."""


class RegistryTimeout(RegfsError):
    """The deadline passed before the registry had answered."""


class RegistryUnavailable(RegfsError):
    """The registry cannot be reached, or fails with 5xx after all retries."""


class Offline(RegistryUnavailable):
    """The network would be needed, and regfs runs with --offline."""


class BadContent(RegfsError):
    """Bytes or an answer that are wrong; nothing of them is kept."""


class DigestMismatch(BadContent):
    """Bytes that are not what their digest or size says."""


class ProtocolViolation(BadContent):
    """An answer that the protocol does not allow, or a certificate that is not trusted."""


class RangesRefused(ProtocolViolation):
    """A server that gives whole blobs only, where a part was asked for."""


class BadManifest(BadContent):
    """A manifest, index or config document that cannot be read as one."""


class BadLayer(BadContent):
    """A layer that is no archive, or that no unpacker would accept."""


class TooLarge(RegfsError):
    """Over a limit that regfs sets so that memory and disk stay bounded."""


class Unsupported(RegfsError):
    """Something that is well-formed but that regfs does not read (schema 1, a digest algorithm, a layer type)."""


class Interrupted(RegfsError):
    """The caller has given up: a signal, or FUSE_INTERRUPT."""


class OutOfThreads(RegfsError):
    """The system lets this process start no further thread or process; a later attempt may succeed."""


class ReadOnly(RegfsError):
    """Registries are shown, not written."""


class InUse(RegfsError):
    """What is to be evicted from the cache is open, mounted by the kernel, or pinned; the message says which."""


class WorkStalled(RegfsError):
    """Local work, in a worker process or on the cache's disk, made no progress within its deadline."""


class NotADirectory(RegfsError):
    """A directory was needed."""


class IsADirectory(RegfsError):
    """Something other than a directory was needed."""


class NotASymlink(RegfsError):
    """A symbolic link was needed."""


class LinkLoop(RegfsError):
    """More symbolic links than can be followed, on a path that regfs walks itself."""


class NoSuchXattr(RegfsError):
    """The entry has no extended attribute of that name."""


class BadHandle(RegfsError):
    """A file handle that was never given out, or is closed."""


class StaleNode(RegfsError):
    """A node that is no longer known: the kernel has forgotten it."""


class CacheFailure(RegfsError):
    """The cache directory cannot be used as asked; the caller goes on without it."""


class CacheDamaged(CacheFailure):
    """A cached file with wrong content; it is removed and made again."""


class WorkerKilled(CacheFailure):
    """A signal ended a worker process before it was done; the kernel sends one where memory runs out."""


class CacheFull(CacheFailure):
    """The cache has no room, on its disk or within its limit, for what cannot be read without it."""


class MountFailure(RegfsError):
    """The mount could not be made or removed."""


class BadConfiguration(RegfsError):
    """A file about how to ask a registry cannot be understood; the message names file and line."""


class InvalidOption(RegfsError):
    """A command line, -o word or setting that regfs does not understand."""


class WouldBlock(RegfsError):
    """The answer is neither in memory nor on disk, and the caller's deadline forbids waiting."""
