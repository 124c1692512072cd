"""Numbers of images for st_ino: one for each image, the same in every process that shares the cache."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from regfs.store.images.image_numbers import MOST, NUMBER_BITS, ImageNumbers

Open = Callable[..., ImageNumbers]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Return a function that opens the same numbers once more, as another mount does."""
    made: list[ImageNumbers] = []

    def make(**options: int) -> ImageNumbers:
        made.append(ImageNumbers(tmp_path / "cache" / "numbers.sqlite", **options))
        return made[-1]

    yield make
    for numbers in made:
        numbers.close()


def test_images_have_numbers_of_their_own_which_every_mount_of_the_cache_knows(opened: Open) -> None:
    first, second = opened(), opened()
    here = {name: first.number(name) for name in ("a", "b", "c")}
    assert len(set(here.values())) == 3
    assert all(1 <= number <= MOST for number in here.values())
    there = {name: second.number(name) for name in ("c", "d", "b", "a")}
    assert there["d"] not in here.values()
    assert {name: there[name] for name in here} == here


def test_processes_that_ask_at_once_agree_and_share_no_number(opened: Open, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from regfs.store.images.image_numbers import ImageNumbers\n"
        "numbers = ImageNumbers(Path(sys.argv[1]))\n"
        "print(*(numbers.number(str(image)) for image in range(100)))"
    )
    path = tmp_path / "cache" / "numbers.sqlite"

    def run(_: int) -> list[str]:
        done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
        return done.stdout.split()

    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(run, range(3)))
    assert answers[0] == answers[1] == answers[2]
    assert len(set(answers[0])) == 100
    assert all(int(number) <= MOST for number in answers[0])


def test_when_all_numbers_are_handed_out_the_one_unused_for_the_longest_goes_to_the_next_image(opened: Open) -> None:
    numbers = opened(most=3)
    first = {name: numbers.number(name) for name in ("a", "b", "c")}
    numbers._database.execute("UPDATE image_numbers SET used = used - 1000000 * (4 - number)")
    later = opened(most=3)
    assert later.number("a") == first["a"]  # asked for again: now b is the oldest
    assert later.number("d") == first["b"]
    assert sorted({later.number(name) for name in ("a", "c", "d")}) == [1, 2, 3]


def test_without_room_for_another_number_it_is_one_of_this_process_and_stays(opened: Open) -> None:
    numbers = opened()
    known = numbers.number("known")
    numbers._database.execute("PRAGMA query_only=ON")
    lost = {name: numbers.number(name) for name in ("a", "b")}
    assert all(MOST < number < 1 << NUMBER_BITS for number in lost.values())
    assert lost["a"] != lost["b"]
    numbers._database.execute("PRAGMA query_only=OFF")
    assert {name: numbers.number(name) for name in lost} == lost
    assert (numbers.number("known"), opened().number("known")) == (known, known)


def test_a_known_number_is_right_where_nothing_can_be_written(opened: Open) -> None:
    number = opened().number("a")
    numbers = opened()
    numbers._database.execute("UPDATE image_numbers SET used = 0")
    numbers._database.execute("PRAGMA query_only=ON")
    assert numbers.number("a") == number


def test_a_file_that_cannot_be_opened_leaves_numbers_of_this_mount(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    numbers = ImageNumbers(tmp_path / "file" / "numbers.sqlite")
    assert numbers.number("a") == numbers.number("a") != numbers.number("b")
    numbers.close()


def test_a_damaged_file_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "numbers.sqlite"
    path.write_bytes(b"damaged" * 1000)
    numbers, other = ImageNumbers(path), ImageNumbers(path)
    assert numbers.number("a") == other.number("a")
    numbers.close()
    other.close()
