"""First words that are not verbs but look like one: `regfs tar M` must not mount a registry named `tar` on M.

The name of a registry has a dot or a colon, or is `localhost`. Another word that is a verb of other tools, or nearly
one of regfs, is a mistake. Used by main.py. Only asks the disk whether a directory of that name exists.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence

from regfs.errors import InvalidOption

# fstab(5) needs a first field even if there is nothing to say.
FILLERS = frozenset({"none", "regfs", "registry", "-"})
_NEAR = 0.76  # "unmout" is near "umount"; "mnt", a name that many mount points have, is not near "mount"

_IN_A_MOUNT = "an image is a directory of a mount: {word} MOUNTPOINT/REPOSITORY/TAG/rootfs/…"
# What to type instead, and the words that other tools have for it.
_REMEDIES = {
    "did you mean regfs ls IMAGE, regfs status (the mounts), or regfs cache ls (the cached images)?": "list dir",
    "did you mean regfs status?": "ps top info mounts",
    "did you mean journalctl -t regfs? regfs status says where the log of a mount is": "logs log journal",
    "did you mean regfs cache ls?": "images image",
    "did you mean regfs du IMAGE, or regfs cache du (the cache)?": "df size",
    "did you mean regfs cache prune?": "prune gc clean clear",
    "did you mean regfs cache verify?": "verify check fsck",
    "did you mean regfs cache rm IMAGE, or regfs umount MOUNTPOINT?": "rm rmi remove delete evict",
    "did you mean regfs prefetch IMAGE, or regfs unpack IMAGE [DIR]?": "pull fetch download copy",
    "did you mean regfs unpack IMAGE [DIR]?": "extract untar",
    "did you mean regfs export IMAGE… > FILE?": "save",
    "did you mean regfs import FILE?": "load",
    "did you mean regfs refresh?": "reload sync update",
    "did you mean regfs umount MOUNTPOINT?": "stop kill eject fusermount fusermount3",
    "did you mean regfs MOUNTPOINT? It mounts and goes to the background; -f stays": "serve daemon up",
    "did you mean regfs run IMAGE [COMMAND…], or regfs shell IMAGE?": "exec enter start",
    "did you mean regfs setup?": "install uninstall",
    "did you mean regfs login REGISTRY?": "auth signin",
    "did you mean regfs diff IMAGE OTHER?": "compare changes",
    "did you mean regfs inspect IMAGE? cat MOUNTPOINT/REPOSITORY/TAG/manifest.json has the document": "manifest",
    "did you mean regfs which IMAGE PATH?": "whence where blame",
    "did you mean regfs tags REPOSITORY, or regfs repos REGISTRY?": "tag catalog search",
    "registries are shown, not written": "push build create commit",
    "see regfs --help, regfs config (what holds) and regfs doctor (what is missing)": "options settings",
    _IN_A_MOUNT: "stat tree tar head less grep",
}


def refuse_verb_like(paths: Sequence[str], verbs: Collection[str]) -> None:
    """Raise InvalidOption, which names the right command, where the first of *paths* is meant as a verb.

    *paths* are the words of `regfs [SOURCE] MOUNTPOINT`. A path such as `./tar` is never taken for a verb.
    """
    if not paths or paths[0] in FILLERS or paths[0] == "localhost" or set(paths[0]) & set(".:/"):
        return
    word = paths[0].lower()
    if word in verbs:
        raise InvalidOption(f"options come after the verb: regfs {word} [OPTIONS] …{_directory_hint(word)}")
    remedy = next((remedy for remedy, words in _REMEDIES.items() if word in words.split()), None)
    if remedy is not None:
        raise InvalidOption(f"{word} is not a verb of regfs; {remedy.format(word=word)}{_directory_hint(word)}")
    from difflib import get_close_matches  # 5 ms that only a mistyped word should pay

    near = get_close_matches(word, verbs, n=1, cutoff=_NEAR)
    if near and not (len(paths) == 1 and os.path.isdir(paths[0])):
        raise InvalidOption(f"{word} is not a verb of regfs; did you mean regfs {near[0]}?{_directory_hint(word)}")


def verb_like_words() -> Iterator[str]:
    """Yield every word of other tools that gets an answer."""
    for words in _REMEDIES.values():
        yield from words.split()


def _directory_hint(word: str) -> str:
    return f" (a mount point of that name: ./{word})" if os.path.isdir(word) else ""
