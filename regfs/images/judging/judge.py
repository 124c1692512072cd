"""Judge: decides by the user's policy whether an image may be shown, by its digest, before anything of it is shown.

An accepted image stays accepted until this process ends, or another one takes the mount over: processes inside are not
disturbed if a signature is removed later. A refusal is remembered for seconds, or until `regfs refresh`. Used by
image.py, made by app/policy.py. Thread rule: any thread; blocks on the network.
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
    """The rules of a policy: containers/rules.py, notation/rules.py. Methods block on the network and raise its errors.

    They raise BadConfiguration if a file that the policy names, or a package, cannot be used.
    """

    @property
    def name(self) -> str:
        """The path of the policy."""

    def accepts_anything(self, repository: Repository, digest: Digest) -> bool:
        """Return whether no signature is needed. Makes no request."""

    def refusal(self, repository: Repository, digest: Digest) -> str:
        """Return the reason why the manifest *digest* may not be shown, "" if it may."""

    def verification(self, repository: Repository, digest: Digest, layer: Descriptor) -> str:
        """Return what verifies *layer* as a signature of the manifest *digest*: "by …", or "no: why"."""


class Judge:
    """Judges images by *rules*, and caches the results."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._lock = threading.Lock()
        self._accepted: LRUCache[object, bool] = LRUCache(_ACCEPTED_KEPT)
        self._refused: TTLCache[object, str] = TTLCache(_REFUSED_KEPT, _REFUSED_S)

    def judge(self, repository: Repository, digest: Digest) -> None:
        """Return if the manifest *digest* may be shown, else raise. Blocks on the network if a signature is needed.

        Raises AccessDenied with the reason, also if a key cannot be read, and the errors of the network.
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
        return "".join(c if c.isprintable() else "?" for c in reason)  # it has text from signatures, which is untrusted

    def verification(self, repository: Repository, digest: Digest, layer: Descriptor) -> str:
        """Return what verifies *layer* as a signature of the manifest *digest*: "by …", or "no: why".

        Blocks on the network for the blob, and raises its errors.
        """
        try:
            return self._rules.verification(repository, digest, layer)
        except BadConfiguration as error:
            return f"no: {error}"


def reasons_text(reasons: list[str], *, unread: int) -> str:
    """Return the first of *reasons*, why found signatures do not count, as one text.

    *unread* is the number of signatures that were not verified, because there are too many.
    """
    shown = "; ".join(reasons[:_MOST_REASONS]) or "there is none"
    if len(reasons) > _MOST_REASONS:
        shown += f"; and {len(reasons) - _MOST_REASONS} more"
    return f"{shown}; {unread} others were not looked at: there are too many" if unread else shown
