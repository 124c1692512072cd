"""Shows files with other owners than those in the image: `--owner me`, `--subuid`, `regfs run`.

Used by daemon/session.py. Thread rule: functions; any thread.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING

from regfs.errors import MountFailure
from regfs.process.subordinate_ids import SUBGID, SUBUID, outside_id, ranges_here
from regfs.tree.owner import MappedOwner, OwnedTree, Owner

if TYPE_CHECKING:
    from regfs.app.config import Config
    from regfs.tree.one_image import OneImage
    from regfs.tree.tree import Tree

ROOT = Owner(0, 0)
_NOBODY = 65534
_MOST_IDS = 4096


def owner_asked_for(config: Config) -> Owner | MappedOwner | None:
    """Return the owner for all files; None to keep the image's owners.

    Raises MountFailure if --subuid finds no range of ids for this user.
    """
    uid, gid = os.geteuid(), os.getegid()
    if config.owner == "me":
        return Owner(uid, gid)
    if config.owner == "image":
        return None
    uids, gids = ranges_here(SUBUID), ranges_here(SUBGID)
    if not uids or not gids:
        raise MountFailure(
            f"--subuid: {SUBUID} and {SUBGID} have no range for this user; as root: "
            "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER"
        )
    return MappedOwner(
        lru_cache(_MOST_IDS)(lambda inside: outside_id(inside, own=uid, ranges=uids, missing=_NOBODY)),
        lru_cache(_MOST_IDS)(lambda inside: outside_id(inside, own=gid, ranges=gids, missing=_NOBODY)),
    )


def with_owner(shown: Tree | OneImage, owner: Owner | MappedOwner | None) -> Tree | OneImage | OwnedTree:
    """Return *shown* with *owner* as the owner of all files; *shown* itself if *owner* is None."""
    return shown if owner is None else OwnedTree(shown, owner)
