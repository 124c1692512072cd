"""IMAGE on the command line: a reference, or the path of an image in a mount. Used by the verbs. Any thread."""

from __future__ import annotations

import re
from collections.abc import Sequence

from regfs.errors import InvalidOption
from regfs.model.dates import moment
from regfs.model.names import OFFICIAL, Reference, is_tag, parse_reference, registry_named
from regfs.mount import mountpoint as mountpoints
from regfs.tree.namespace import ESCAPE

_DIGEST_RE = re.compile(r"[a-z0-9]+:[0-9a-f]{32,}")


def read_reference(text: str, default_registry: str, mounts: Sequence[mountpoints.Mounted]) -> Reference:
    """Return the image that *text* names: a reference, or a path in a mount (`/mnt/reg/library/debian/12/rootfs`).

    A relative path that leads through a mount point counts as a path, since the shell completes it so. In a mount, a
    text that ends with a slash is a path too: no reference does. Raises InvalidName, InvalidOption.
    """
    points = {mounted.mountpoint: mounted for mounted in mounts if mounted.is_regfs and not mounted.image}
    inside = mountpoints.inside(text, points)
    if text not in (".", "..") and not text.startswith(("/", "./", "../")) and not text.endswith("/"):
        here = mountpoints.inside(".", points)
        if inside is None or (here is not None and here.mountpoint == inside.mountpoint):
            return parse_reference(text, default_registry=default_registry)
    if inside is None:
        hint = f"; the image's name is {text.rstrip('/')}" if text.endswith("/") else ""
        raise InvalidOption(f"{text} is neither an image nor in a mount of regfs{hint if text[0] not in './' else ''}")
    shown = points[inside.mountpoint].root.strip("/")  # of a bind mount: where in the mount it leads
    names = "/".join(filter(None, [shown, inside.path])).removesuffix("/rootfs").split("/")
    *repository, last = [name for name in names if name != ESCAPE]
    is_pasted = (":" in last or "@" in last[1:]) and not _DIGEST_RE.fullmatch(last)
    if not repository and not is_pasted:
        raise InvalidOption(f"{text} is not an image: a repository and a tag are needed")
    source = points[inside.mountpoint].source
    if _is_tag_at_a_time(repository, last):
        return parse_reference(f"{'/'.join(repository)}:{last}", default_registry=source)
    if is_pasted:  # it names its own tag or digest
        return parse_reference("/".join([*repository, last]), default_registry=source)
    separator = "" if last.startswith("@") else "@" if _DIGEST_RE.fullmatch(last) else ":"
    return parse_reference(f"{'/'.join(repository)}{separator}{last}", default_registry=source)


def _is_tag_at_a_time(directory: Sequence[str], name: str) -> bool:
    """Tell whether *name* in *directory*, the names from the root of a mount on, is one of a repository's tags.

    `debian/12@2026-11-01` is; in a registry and in Docker Hub's `library`, where no tags are, `debian@2026-11-01` is
    what the repository's latest was then.
    """
    tag, _, text = name.partition("@")
    has_tags = (
        bool(directory) and directory[-1] != OFFICIAL and (len(directory) > 1 or not registry_named(directory[0]))
    )
    return has_tags and is_tag(tag) and moment(text) is not None
