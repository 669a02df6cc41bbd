"""What the project is for: a chain of real processes answers exactly as the whole model would."""

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionUserMessageParam

from intelnav.store.embedded import embedded_model
from tests.reference import PlainLlama
from tests.sandbox import PROMPTS, Sandbox, sandbox

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def whole() -> PlainLlama:
    return PlainLlama(embedded_model(), 1024)


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Four nodes, hidden states unrounded."""
    with sandbox(tmp_path_factory.mktemp("swarm")) as running:
        yield running


def until(condition: object, seconds: float = 30) -> None:
    """Wait for something that another process does."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_chain_gives_the_tokens_of_the_whole_model(swarm: Sandbox, whole: PlainLlama, prompt: str) -> None:
    assert swarm.complete(prompt, max_tokens=128).tokens == whole.greedy(prompt, 128)


@pytest.mark.parametrize(
    ("cuts", "head"),
    [("8,15,22", "entry"), ("1,2,29", "tail"), ("1,28", "entry"), ("17", "entry"), ("29", "tail")],
)
def test_cuts_and_the_place_of_the_head_change_no_token(
    tmp_path: Path, whole: PlainLlama, cuts: str, head: str
) -> None:
    with sandbox(tmp_path / "s", cuts, head=head) as other:
        for prompt in PROMPTS[:2]:
            assert other.complete(prompt, max_tokens=128).tokens == whole.greedy(prompt, 128)


def test_a_prompt_longer_than_a_batch_is_answered_alike(swarm: Sandbox, whole: PlainLlama) -> None:
    prompt = "The quick brown fox jumps over the lazy dog. " * 60
    assert swarm.complete(prompt, max_tokens=16).tokens == whole.greedy(prompt, 16)


def test_the_chain_is_reported_stage_by_stage(swarm: Sandbox) -> None:
    reply = swarm.complete(PROMPTS[0])
    assert [stage["layers"] for stage in reply.chain] == ["0..8", "8..15", "15..22", "22..30"]
    assert [stage["peer"] for stage in reply.chain] == [member.peer for member in swarm.swarm.members]
    assert all(stage["milliseconds"] > 0 for stage in reply.chain)


def test_activations_go_from_hop_to_hop_and_not_through_the_entry(swarm: Sandbox) -> None:
    entry, *hops = swarm.swarm.members
    swarm.complete(PROMPTS[0])
    for before, after in pairwise(hops):
        peers = {peer["id"]: peer for peer in swarm.status(before)["peers"]}
        assert peers[after.peer]["bytes_sent"] > 10 * 2304
    from_tail = {peer["id"]: peer for peer in swarm.status(hops[-1])["peers"]}[entry.peer]
    from_middle = {peer["id"]: peer for peer in swarm.status(hops[1])["peers"]}[entry.peer]
    assert from_tail["bytes_received"] < from_tail["bytes_sent"]
    assert from_middle["bytes_received"] + from_middle["bytes_sent"] < from_tail["bytes_sent"]


def test_eight_clients_at_once_each_get_what_they_get_alone(swarm: Sandbox) -> None:
    prompts = [f"{PROMPTS[n % 3]} {n}" for n in range(8)]
    alone = [swarm.complete(prompt, max_tokens=48).tokens for prompt in prompts]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda p: swarm.complete(p, max_tokens=48).tokens, prompts))
    assert together == alone


def test_the_official_client_streams_from_a_chain(swarm: Sandbox) -> None:
    with (
        swarm.client() as http,
        OpenAI(base_url="http://node/v1", api_key="unused", http_client=cast(Any, http)) as client,
    ):
        question: ChatCompletionUserMessageParam = {
            "role": "user",
            "content": "What is the capital of France?",
        }
        stream = client.chat.completions.create(
            model=client.models.list().data[0].id,
            messages=[{"role": "system", "content": "You are a helpful assistant."}, question],
            temperature=0,
            stream=True,
        )
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert "".join(pieces) == "The capital of France is Paris."
    assert len(pieces) > 5


def test_sampling_with_a_seed_repeats_and_another_seed_differs(swarm: Sandbox) -> None:
    options = {"temperature": 0.9, "top_p": 0.95, "top_k": 50, "repeat_penalty": 1.1}
    first = swarm.complete(PROMPTS[2], seed=7, **options).tokens
    assert swarm.complete(PROMPTS[2], seed=7, **options).tokens == first
    assert swarm.complete(PROMPTS[2], seed=8, **options).tokens != first


def test_clients_that_hang_up_leave_nothing_behind(swarm: Sandbox) -> None:
    def hang_up(number: int) -> None:
        events = swarm.events(f"{PROMPTS[number % 3]} {number}", max_tokens=512)
        assert len(list(islice(events, 1 + number % 3))) == 1 + number % 3
        events.close()

    def idle() -> bool:
        states = [swarm.status(member) for member in swarm.swarm.members]
        slices = [part for state in states for part in (*state["slices"], *state["entry"])]
        return all(state["sessions"] == state["answers"] == 0 for state in states) and all(
            part["sequences"] == 0 for part in slices
        )

    def memory() -> int:
        processes = [p for m in swarm.swarm.members for p in (psutil.Process(m.pid), *swarm.workers(m))]
        return sum(process.memory_full_info().uss for process in processes)

    for number in range(8):
        hang_up(number)
    until(idle)
    before = memory()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hang_up, range(200)))
    until(idle)
    assert memory() - before < 40 * 2**20


def test_a_killed_worker_ends_the_answer_with_an_error_and_the_next_one_works(swarm: Sandbox) -> None:
    before = swarm.complete(PROMPTS[0]).tokens
    victim = swarm.swarm.members[2]
    (worker,) = swarm.workers(victim)
    events = swarm.events(PROMPTS[2], max_tokens=512)
    next(events)
    worker.kill()
    *_, last = events
    assert last["error"]["code"] == "engine_failed"
    assert victim.peer[:8] in last["error"]["message"]
    until(lambda: swarm.status(victim)["slices"][0]["state"] == "ready")
    assert swarm.complete(PROMPTS[0]).tokens == before


def test_hostile_bytes_never_disturb_an_answer(swarm: Sandbox) -> None:
    alone = swarm.complete(PROMPTS[2], max_tokens=200).tokens
    victims = [member.listen for member in swarm.swarm.members[1:]]
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(swarm.complete, PROMPTS[2], max_tokens=200)
        loris = [_dial(listen) for listen in victims for _ in range(20)]
        for connection in loris:
            connection.sendall(b"\x00")
        for number in range(10_000):
            with contextlib.suppress(OSError), _dial(victims[number % 3]) as junk:
                junk.sendall(struct.pack(">H", number % 1500) + os.urandom(number % 97))
        assert answer.result().tokens == alone
    for connection in loris:
        connection.close()
    assert swarm.complete(PROMPTS[2], max_tokens=200).tokens == alone


def _dial(listen: str | None) -> socket.socket:
    assert listen is not None
    host, port = listen.split(":")
    return socket.create_connection((host, int(port)), timeout=10)
