"""Judges images by the user's policy, on the digest that a name means, before anything of them is shown.

What was accepted stays so until this process ends, or another one takes the mount over: a signature that is gone later
disturbs no process inside. A refusal is remembered for seconds, or until `regfs refresh`. Used by image.py, made by
app/policy.py. Thread rule: any thread; blocks on the network.
"""

from __future__ import annotations

import threading
from typing import Protocol

from cachetools import LRUCache, TTLCache

from regfs.errors import AccessDenied, BadConfiguration
from regfs.images.repository import Repository
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor

_ACCEPTED_KEPT = 4096
_REFUSED_KEPT = 256
_REFUSED_S = 10.0
_MOST_REASONS = 3


class Rules(Protocol):
    """What a policy wants: containers/rules.py, notation/rules.py. Methods block on the network, and raise its errors.

    BadConfiguration is raised where a file that the policy names, or a package, cannot be used.
    """

    @property
    def name(self) -> str:
        """The path of the policy."""

    def accepts_anything(self, repository: Repository, digest: Digest) -> bool:
        """Return whether no signature is looked for. Asks nothing."""

    def refusal(self, repository: Repository, digest: Digest) -> str:
        """Return why the manifest *digest* may not be shown, "" where it may."""

    def verification(self, repository: Repository, digest: Digest, layer: Descriptor) -> str:
        """Return what verifies *layer* as a signature of the manifest *digest*: "by …", or "no: why"."""


class Judge:
    """Judges by *rules*."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._lock = threading.Lock()
        self._accepted: LRUCache[object, bool] = LRUCache(_ACCEPTED_KEPT)
        self._refused: TTLCache[object, str] = TTLCache(_REFUSED_KEPT, _REFUSED_S)

    def judge(self, repository: Repository, digest: Digest) -> None:
        """Return where the manifest *digest* may be shown. Blocks on the network where a signature is needed.

        Raises AccessDenied with the reason, also where a key cannot be read, and what a network brings.
        """
        if self._rules.accepts_anything(repository, digest):
            return
        key = (repository.name, digest, repository.tags.refreshes)
        with self._lock:
            if key[:2] in self._accepted:
                return
            reason = self._refused.get(key)
        if reason is None:
            reason = self._reason(repository, digest)
            with self._lock:
                if reason:
                    self._refused[key] = reason
                else:
                    self._accepted[key[:2]] = True
        if reason:
            raise AccessDenied(f"{repository.name}@{digest}: the policy {self._rules.name} does not allow it: {reason}")

    def _reason(self, repository: Repository, digest: Digest) -> str:
        try:
            reason = self._rules.refusal(repository, digest)
        except BadConfiguration as error:
            reason = str(error)
        return "".join(c if c.isprintable() else "?" for c in reason)  # it has words of signatures, so of strangers

    def verification(self, repository: Repository, digest: Digest, layer: Descriptor) -> str:
        """Return what verifies *layer* as a signature of the manifest *digest*: "by …", or "no: why".

        Blocks on the network for the blob. Raises what a network brings.
        """
        try:
            return self._rules.verification(repository, digest, layer)
        except BadConfiguration as error:
            return f"no: {error}"


def reasons_text(reasons: list[str], *, unread: int) -> str:
    """Return the first of *reasons*, each of which says why a signature that was found does not count.

    *unread* is the number of signatures that were not looked at, because there are too many.
    """
    shown = "; ".join(reasons[:_MOST_REASONS]) or "there is none"
    if len(reasons) > _MOST_REASONS:
        shown += f"; and {len(reasons) - _MOST_REASONS} more"
    return f"{shown}; {unread} others were not looked at: there are too many" if unread else shown
