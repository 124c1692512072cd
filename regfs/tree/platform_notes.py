"""The notes in an image's directory that explain a missing or another platform.

    PLATFORM-MISSING.txt    an index has no image for the platform: why there is no rootfs/, and what there is
    PLATFORM-DIFFERS.txt    a tag names one image only, for another platform: why its programs do not run here

Used by image.py. Any thread.
"""

from __future__ import annotations

from regfs.errors import NotFound, PlatformMissing, RegfsError
from regfs.images.image import Image
from regfs.images.pinned_images import PinnedImage
from regfs.model.platform import Platform, is_image_entry, runs
from regfs.process.waiting.deadline import NON_BLOCKING, under

MISSING = "PLATFORM-MISSING.txt"
DIFFERS = "PLATFORM-DIFFERS.txt"


def listed_note(pinned: PinnedImage) -> str | None:
    """Return the name of the note to list, if any. Does not fetch the config, which a single image's note needs."""
    if missing_text(pinned.image) is not None:
        return MISSING
    try:
        with under(NON_BLOCKING):
            return None if differs_text(pinned) is None else DIFFERS
    except RegfsError:
        return None


def text_of(name: str, pinned: PinnedImage) -> str:
    """Return the text of the note *name*. Raises NotFound if it does not apply. Blocks on the network for documents."""
    text = missing_text(pinned.image) if name == MISSING else differs_text(pinned)
    if text is None:
        raise NotFound(f"{pinned.image} has no {name}: there is nothing to tell")
    return text


def missing_text(image: Image) -> str | None:
    """Return the note that the index *image* has no image for the mount's platform; None if it does not apply."""
    if not image.is_readable or image.index is None:
        return None
    try:
        image.manifest_descriptor  # noqa: B018 (raises PlatformMissing)
    except PlatformMissing:
        pass
    except RegfsError:
        return None  # another failure, which a look-up of the parts reports
    else:
        return None
    there = {
        name: entry.platform
        for name, entry in image.entries.items()
        if entry.platform is not None and is_image_entry(entry)
    }
    if not there:
        return None
    # The others are in the order of the index; Windows' have no files to show.
    first, platform = min(there.items(), key=lambda each: each[1].has_windows_layers)
    place = "layers" if platform.has_windows_layers else "rootfs"
    return (
        f"This image is not built for {image.wanted}, the platform of this mount.\n"
        f"It is there for: {', '.join(sorted(set(map(_plain, there.values()))))}.\n"
        f"\n"
        f"One of these is in manifests/{first}/{place}.\n"
        f"A mount shows it in the tag itself with: regfs --platform {_plain(platform)} MOUNTPOINT\n"
    )


def differs_text(pinned: PinnedImage) -> str | None:
    """Return the note that the programs of a single image do not run on the mount's platform; None if they do.

    Also None if the user chose the image from an index by its platform.
    """
    image = pinned.image
    if pinned.announced or not image.is_readable or image.index is not None or not image.manifest.is_image:
        return None
    there = image.platform
    if runs(image.wanted, there):
        return None
    what_is_there = (
        f"This image is built for {_plain(there)}; the platform of this mount is {image.wanted}.\n"
        f"There is no other image under this name."
    )
    if there.has_windows_layers:
        return f"{what_is_there} Windows alone can merge its layers; layers/N/blob is the tar of each.\n"
    what_is_there = f"{what_is_there} Its files can be read; its programs"
    if there.normal().os != image.wanted.normal().os:
        return f"{what_is_there} do not run on {image.wanted}.\n"
    return (
        f"{what_is_there} end with\n"
        f'"Exec format error" on {image.wanted}, unless the kernel runs them through an emulator (qemu-user-static).\n'
    )


def _plain(platform: Platform) -> str:
    """Return *platform* with safe characters only: it is printed on terminals, and a config may have any text there."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(platform)[:100])
