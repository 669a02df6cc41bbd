"""What the project is for: a chain of real processes answers exactly as the whole model would."""

import os
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from typing import Any, TypeVar, cast

import cbor2
import psutil
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionUserMessageParam

from intelnav.domain.advert import Address
from intelnav.domain.errors import Code
from intelnav.domain.hidden import Dtype, HiddenState
from intelnav.domain.identity import PeerId
from intelnav.domain.sampling import Sampling
from intelnav.domain.slice import LayerRange
from intelnav.store.embedded import embedded_model
from intelnav.wire.codec import encode
from intelnav.wire.messages import (
    AbortSession,
    ForwardHidden,
    Hidden,
    NextHop,
    SessionAck,
    SessionClose,
    SessionInit,
    Token,
)
from tests.reference import PlainLlama
from tests.sandbox import PROMPTS, Sandbox, sandbox
from tests.stranger import Stranger, dial
from tests.waiting import until

pytestmark = pytest.mark.timeout(240)

T = TypeVar("T")
LONG = "The quick brown fox jumps over the lazy dog. " * 60


@pytest.fixture(scope="module")
def whole() -> PlainLlama:
    return PlainLlama(embedded_model(), 1024)


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Four nodes, hidden states unrounded."""
    with sandbox(tmp_path_factory.mktemp("swarm")) as running:
        yield running


def expected(whole: PlainLlama, prompt: str) -> list[int]:
    """128 tokens: the longest answer that is compared here."""
    tokens = whole.greedy(prompt, 128)
    assert len(tokens) == 128
    return tokens


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_chain_gives_the_tokens_of_the_whole_model(swarm: Sandbox, whole: PlainLlama, prompt: str) -> None:
    assert swarm.complete(prompt, max_tokens=128).tokens == expected(whole, prompt)


@pytest.mark.parametrize(
    ("cuts", "head", "prompts"),
    [
        ("8,15,22", "entry", PROMPTS[:2]),
        ("1,2,29", "tail", PROMPTS[:2]),
        ("1,28", "entry", PROMPTS[1:2]),
        ("17", "entry", PROMPTS[2:]),
        ("29", "tail", PROMPTS[:1]),
    ],
)
def test_cuts_and_the_place_of_the_head_change_no_token(
    tmp_path: Path, whole: PlainLlama, cuts: str, head: str, prompts: tuple[str, ...]
) -> None:
    with sandbox(tmp_path / "s", cuts, head=head) as other:
        for prompt in prompts:
            assert other.complete(prompt, max_tokens=128).tokens == expected(whole, prompt)
        assert other.complete(LONG, max_tokens=4).tokens == whole.greedy(LONG, 4)


def test_a_prompt_longer_than_a_batch_is_answered_alike(swarm: Sandbox, whole: PlainLlama) -> None:
    assert swarm.complete(LONG, max_tokens=16).tokens == whole.greedy(LONG, 16)


@pytest.mark.parametrize(
    ("prompt", "code"),
    [("", "bad_request"), (LONG * 20, "context_length_exceeded")],
    ids=["empty", "too long"],
)
def test_the_askers_own_fault_is_a_400(swarm: Sandbox, prompt: str, code: str) -> None:
    with swarm.client() as client:
        response = client.post("/v1/completions", json=swarm.body(prompt))
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["code"]) == (400, "invalid_request_error", code)


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
        if number % 3 == 0:
            body = swarm.body(f"{number} {LONG}", stream=True)
            with swarm.client() as client, client.stream("POST", "/v1/completions", json=body) as response:
                # The headers are sent when the chain is open; the prompt is on its way through it now.
                assert response.status_code == 200
        else:
            events = swarm.events(f"{PROMPTS[number % 3]} {number}", max_tokens=512)
            assert len(list(islice(events, number % 3))) == number % 3
            events.close()

    def idle() -> bool:
        states = [swarm.status(member) for member in swarm.swarm.members]
        slices = [part for state in states for part in (*state["slices"], *state["entry"])]
        return all(state["sessions"] == state["answers"] == 0 for state in states) and all(
            part["sequences"] == 0 for part in slices
        )

    def processes() -> list[psutil.Process]:
        return [p for m in swarm.swarm.members for p in (psutil.Process(m.pid), *swarm.workers(m))]

    def handles() -> list[tuple[int, int]]:
        return [(process.num_fds(), process.num_threads()) for process in processes()]

    def memory() -> int:
        return sum(process.memory_full_info().uss for process in processes())

    for number in range(9):
        hang_up(number)
    until(idle)
    memory_before, handles_before = memory(), handles()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hang_up, range(200)))
    until(idle)
    assert memory() - memory_before < 40 * 2**20
    # A client's socket is closed a moment after its answer.
    until(lambda: handles() == handles_before)


@pytest.mark.parametrize("place", [0, 2, 3], ids=["entry", "middle", "tail"])
def test_a_killed_worker_ends_the_answer_with_an_error_and_the_next_one_works(
    swarm: Sandbox, place: int
) -> None:
    before = swarm.complete(PROMPTS[0]).tokens
    victim = swarm.swarm.members[place]
    (worker,) = swarm.workers(victim)
    events = swarm.events(PROMPTS[2], max_tokens=512)
    next(events)
    worker.kill()
    *_, last = events
    assert last["error"]["code"] == "engine_failed"
    if place:
        assert victim.peer[:8] in last["error"]["message"]

    def replaced() -> bool:
        status = swarm.status(victim)
        (part,) = status["slices"] or status["entry"]
        # For a moment a node may not know yet that its worker is gone.
        return part["state"] == "ready" and swarm.workers(victim) not in ([], [worker])

    until(replaced)
    assert swarm.complete(PROMPTS[0]).tokens == before


def test_a_killed_node_ends_the_answer_with_an_error_that_names_it(tmp_path: Path) -> None:
    with sandbox(tmp_path / "s", "10,20") as other:
        victim = other.swarm.members[1]
        events = other.events(PROMPTS[2], max_tokens=512)
        next(events)
        psutil.Process(victim.pid).kill()
        *_, last = events
        assert victim.peer[:8] in last["error"]["message"]
        assert last["error"]["type"] == "server_error"


def undisturbed(swarm: Sandbox, hostile: Callable[[], T]) -> T:
    """What `hostile` returns, during which every answer is what it is without it."""
    alone = swarm.complete(PROMPTS[2], max_tokens=200).tokens
    with ThreadPoolExecutor(1) as pool:
        doing = pool.submit(hostile)
        answers = [swarm.complete(PROMPTS[2], max_tokens=200).tokens]
        while not doing.done():
            answers.append(swarm.complete(PROMPTS[2], max_tokens=200).tokens)
        found = doing.result()
    assert all(answer == alone for answer in answers)
    return found


def test_hostile_bytes_never_disturb_an_answer(swarm: Sandbox) -> None:
    victims = [member.listen or "" for member in swarm.swarm.members[1:]]
    random = Random(20)

    def frames(count: int) -> int:
        """Send frames of random content, each as long as it says, on connections of their own."""
        sent = 0
        for number in range(count):
            with dial(victims[number % 3]) as junk:
                content = random.randbytes(random.randrange(1500))
                junk.sendall(struct.pack(">H", len(content)) + content)
                sent += 1
        return sent

    alone = swarm.complete(PROMPTS[2], max_tokens=200).tokens
    with ExitStack() as held, ThreadPoolExecutor(1) as pool:
        for victim in victims:
            for _ in range(20):
                held.enter_context(dial(victim)).sendall(b"\x00")
            # A valid first part of a handshake each, which would now have to be gone on with.
            for _ in range(40):
                held.enter_context(dial(victim)).sendall(struct.pack(">H", 32) + random.randbytes(32))
        hostile = pool.submit(frames, 10_000)
        answers = [swarm.complete(PROMPTS[2], max_tokens=200).tokens]
        while not hostile.done():
            answers.append(swarm.complete(PROMPTS[2], max_tokens=200).tokens)
        assert hostile.result() == 10_000
    assert all(answer == alone for answer in answers)
    assert swarm.complete(PROMPTS[2], max_tokens=200).tokens == alone


def test_a_hostile_peer_with_a_key_never_disturbs_an_answer(swarm: Sandbox) -> None:
    random = Random(21)
    genuine = b"".join(encode(SessionClose(bytes(16))))
    rubbish = [
        *(random.randbytes(random.randrange(1, 3000)) for _ in range(20)),
        *(genuine[:end] for end in range(len(genuine))),
        *map(cbor2.dumps, ([], 2**64, "forward_hidden", {"kind": "forward_hidden"}, {0: {}}, [[[[]]]] * 9)),
        b"\x9f" * 5000,
        b"\xbb" + b"\xff" * 8,
        # More than anybody may send who has no session.
        bytes(70_000),
    ]

    def talk() -> int:
        """Say each to each node, on a connection of its own; returns how often the node hung up."""
        dropped = 0
        for member in swarm.swarm.members[1:]:
            for body in rubbish:
                with Stranger(member.listen or "", member.peer) as stranger:
                    stranger.say(body)
                    dropped += stranger.is_dropped()
        return dropped

    assert undisturbed(swarm, talk) == 3 * len(rubbish)


def test_a_peer_that_breaks_the_rules_of_a_session_never_disturbs_an_answer(swarm: Sandbox) -> None:
    tail = swarm.swarm.members[-1]
    (part,) = swarm.status(tail)["slices"]
    layers = LayerRange.parse(part["layers"])
    nobody = NextHop(PeerId(b"\x42" * 32), (Address("127.0.0.1", 9),))
    row = HiddenState(Dtype.F32, 1, 576, bytes(4 * 576))

    def init(stranger: Stranger, number: int) -> SessionInit:
        session = number.to_bytes(16, "big")
        return SessionInit(
            session, part["cid"], layers, Dtype.F32, 64, stranger.own, None, sampling=Sampling()
        )

    def forward(session: bytes, **changes: Any) -> ForwardHidden:
        return replace(ForwardHidden(session, 0, 0, row), **changes)

    refused: dict[str, Callable[[SessionInit], SessionInit]] = {
        Code.NOT_HOSTING: lambda each: replace(each, model="b3-" + "a" * 52),
        Code.TOO_LONG: lambda each: replace(each, context=2**31),
        Code.BAD_REQUEST: lambda each: replace(each, next=nobody),
        Code.CLOSED: lambda each: replace(
            each, layers=LayerRange(layers.start, layers.end - 1), next=nobody, sampling=None
        ),
    }
    broken: list[Callable[[bytes], ForwardHidden]] = [
        lambda session: forward(session, seq=7),
        lambda session: forward(session, position=9),
        lambda session: forward(session, kv_truncate_to=3),
        lambda session: forward(session, sample_from=1),
        lambda session: forward(session, state=HiddenState(Dtype.F32, 1, 4, bytes(16))),
        lambda session: forward(session, state=HiddenState(Dtype.F16, 1, 576, bytes(1152))),
        lambda session: forward(session, spent=(1,) * 64),
    ]

    def talk() -> None:
        """Open sessions that cannot be, and break every rule of those that can."""
        with Stranger(tail.listen or "", tail.peer) as stranger:
            for number, (code, change) in enumerate(refused.items()):
                stranger.send(change(init(stranger, number)))
                assert stranger.answers(AbortSession).code == code
            for number, wrong in enumerate(broken, 100):
                wanted = init(stranger, number)
                stranger.send(wanted)
                stranger.answers(SessionAck)
                # Of somebody else's session, or of none.
                stranger.send(SessionClose(os.urandom(16)))
                stranger.send(forward(os.urandom(16)))
                assert stranger.answers(AbortSession).code == Code.CLOSED
                stranger.send(wrong(wanted.session))
                assert stranger.answers(AbortSession).code == Code.BAD_REQUEST, number
            for stray in (
                SessionAck(bytes(16), "x", 1, 1, 1),
                Token(bytes(16), 0, 0, (1,)),
                Hidden(bytes(16), 0, 0, row),
                AbortSession(bytes(16), Code.BUSY, "x"),
            ):
                stranger.send(stray)
            # It is still heard.
            stranger.send(forward(bytes(16)))
            assert stranger.answers(AbortSession).code == Code.CLOSED

    undisturbed(swarm, talk)
    until(lambda: swarm.status(tail)["sessions"] == 0)
