"""Random faults: each answer is right or a RegfsError, and every slot and connection is given back."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from regfs.errors import RegfsError
from regfs.process.waiting.deadline import Deadline, under
from regfs.registry.http.retry_policy import RetryPolicy
from tests.support.client_rig import PACE, Rig, repository_of
from tests.support.fault_server import Action, Connection, Response, close, reply, reset
from tests.support.memory_registry import MemoryRegistry

USER = ("user", "s3cret-word")


def fault(dice: random.Random) -> Action:
    """Return one of the things that may happen to an answer."""

    def bend(connection: Connection) -> bool:
        right = connection.right()
        body = bytearray(right.body)
        kind = dice.randrange(6)
        if kind == 0 and body:
            body[dice.randrange(len(body))] ^= 1 << dice.randrange(8)
        elif kind == 1:
            del body[dice.randrange(len(body) + 1) :]
        elif kind == 2:
            body += dice.randbytes(10)
        elif kind == 3:
            right = right.with_header(dice.choice(["Content-Type", "Docker-Content-Digest", "Content-Range"]), None)
        elif kind == 4:
            right = right.with_header("Content-Encoding", "gzip")
        else:
            right = Response(dice.choice([200, 204, 206, 301, 401, 416, 600]), right.headers, right.body)
        return connection.answer(Response(right.status, right.headers, bytes(body)))

    def cut_somewhere(connection: Connection) -> bool:
        response = connection.right()
        whole = response.head() + response.body
        connection.send(whole[: dice.randrange(len(whole) + 1)])
        return False

    statuses = [400, 401, 403, 404, 408, 429, 500, 502, 503]
    return dice.choice([bend, bend, cut_somewhere, cut_somewhere, close, reset(), reply(dice.choice(statuses), "oops")])


@pytest.mark.parametrize("seed", range(6))
def test_every_answer_is_right_or_an_error(rig: Rig, seed: int) -> None:
    dice = random.Random(seed)
    application = MemoryRegistry(users=dict([USER]), tokens=True, page_size=2)
    digests = [application.add_image("demo/app", f"v{number}", dice.randbytes(5000)) for number in range(6)]
    content = dice.randbytes(300_000)
    blob = application.add_blob("demo/app", content)
    documents = application.repository("demo/app").manifests
    server = rig.server(application)

    def sometimes(connection: Connection) -> bool:
        if dice.random() < 0.3:
            return fault(dice)(connection)
        return connection.answer(connection.right())

    server.on("*", ".", sometimes)
    retry = RetryPolicy(attempts=4, base_s=0.001, cap_s=0.002, breaker_s=0.001, throttle_s=0.1)
    client = rig.client(server, login=USER, pace=PACE, retry=retry, denial_s=0.0)
    repository = repository_of(server)

    def ask(number: int) -> str:
        start = (number * 997) % 200_000
        try:
            with under(Deadline(100)):
                match number % 5:
                    case 0:
                        # A list has no digest: a flipped bit in a name cannot be noticed.
                        client.listing.tags(repository)
                    case 1:
                        digest = digests[number % 6]
                        assert client.manifests.fetch(repository, digest).content == documents[str(digest)][0]
                    case 2:
                        chunks = b"".join(client.blobs.stream(repository, blob))
                        assert len(chunks) == blob.size
                    case 3:
                        assert len(client.blobs.range(repository, blob, start, start + 1000)) == 1000
                    case _:
                        client.manifests.resolve(repository, f"v{number % 6}")
        except RegfsError as error:
            return type(error).__name__
        return "right"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(ask, range(200)))
    assert outcomes.count("right") > 50
    server.heal()
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(80))) == ["right"] * 80, "slots, tokens or hosts were not given back"
