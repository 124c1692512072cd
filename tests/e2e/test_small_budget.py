"""More is read, in random order, than the cache may hold: the limit holds, and every byte is right.

`python -m tests.bench --only budget` does the same with 1.2 GB and a limit of 200 MB.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.lazy_layers import estargz
from tests.support.mounted import Mounted
from tests.support.small_budget import many_images, read_at_random

MIB = 1 << 20
IMAGES, SIZE, LIMIT, READERS = 12, 2 * MIB, 9 * MIB, 2


def test_a_limit_holds_while_more_than_it_is_read_at_random(tmp_path: Path, needs_fuse: None) -> None:
    with many_images(IMAGES, size=SIZE) as images:
        options = ["--default-registry", images.address, "--cache-size", f"{LIMIT // MIB}M"]
        with Mounted(tmp_path, options=options) as mount:
            watched = read_at_random(images, mount, reads=40, readers=READERS)
            assert watched.wrong == []
            assert LIMIT // 2 < watched.most_bytes <= LIMIT + READERS * SIZE
            assert mount.stats()["layers.ingests"] > IMAGES


@pytest.mark.parametrize("driver", ["kernel", "fusepy"])
def test_a_limit_holds_while_one_lazy_image_five_times_as_large_is_read(
    tmp_path: Path, needs_fuse: None, driver: str
) -> None:
    """A lazy layer was evicted as a whole only, and never while it was in use: 817 MiB of 200."""
    limit, readers = 8 * MIB, 2
    with many_images(1, size=40 * MIB, files=40, builders=[estargz]) as images:
        options = ["--driver", driver, "--default-registry", images.address, "--cache-size", f"{limit // MIB}M"]
        with Mounted(tmp_path, options=options) as mount:
            watched = read_at_random(images, mount, reads=100, readers=readers)
            assert watched.wrong == []
            # Each reader has a file and what is read ahead of it in flight.
            assert limit // 2 < watched.most_bytes <= limit + readers * 2 * MIB
            assert mount.stats()["chunks.kept"] > images.files
            assert mount.stats()["chunks.whole_layers"] == 0
