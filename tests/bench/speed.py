"""Tokens per second: the encrypted four-node chain, the whole model in one process, and llama.cpp over RPC."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from intelnav.store.embedded import embedded_model
from intelnav.store.model_file import describe
from tests.bench.baseline import Run, one_process, over_rpc
from tests.bench.results import show
from tests.sandbox import Sandbox, sandbox

CUTS = "8,15,22"
ENTRY_LAYERS = 8
THREADS = 1
ROUNDS = 5
# Of one process, in decoding.
GOAL = 0.80
AIM = 0.95
DECODED = 128
WARM_UP = 8
STORY = "Once upon a time, in a village by the sea, there lived"
LONG = "The quick brown fox jumps over the lazy dog, and the lazy dog sleeps on. " * 30

System = Callable[[str, int], Run]


@contextmanager
def chain(dtype: str = "f16", head: str = "tail") -> Iterator[Sandbox]:
    """Four nodes on loopback, one thread each."""
    with (
        TemporaryDirectory(prefix="intelnav-bench-") as root,
        sandbox(Path(root), CUTS, dtype=dtype, head=head) as it,
    ):
        yield it


def asked(running: Sandbox) -> System:
    """The chain as a baseline looks: the clock is the entry's own, as it reports it."""

    def run(prompt: str, count: int) -> Run:
        with running.client() as client:
            response = client.post("/v1/completions", json=running.body(prompt, max_tokens=count))
        data = response.json()
        if response.status_code != 200:
            raise SystemExit(f"the chain did not answer: {data['error']['message']}")
        timing, tokens = data["intelnav"]["timing"], data["intelnav"]["tokens"]
        decode = (len(tokens) - 1) / timing["tokens_per_second"] if len(tokens) > 1 else 0.0
        return Run(data["usage"]["prompt_tokens"], timing["first_token"] - timing["open"], decode, tokens)

    return run


def measure() -> dict[str, Any]:
    """Run the three in turn, so that what else happens on the machine hits all alike; medians of the rounds."""
    model = embedded_model()
    remote_layers = describe(model).blocks + 1 - ENTRY_LAYERS
    with ExitStack() as stack:
        systems: dict[str, System] = {
            "one process": stack.enter_context(one_process(model, THREADS)).run,
            "llama.cpp RPC": stack.enter_context(over_rpc(model, THREADS, remote_layers)).run,
            "chain": asked(stack.enter_context(chain())),
        }
        decode = _rates(systems, lambda run: run(STORY, DECODED).decode_rate)
        prefill = _rates(systems, lambda run: run(LONG, 1).prefill_rate)
        given = systems["one process"](LONG, 1).given
    figures = {
        name: {
            "decode_tokens_per_second": median(decode[name]),
            "prefill_tokens_per_second": median(prefill[name]),
            "chain_to_this_decode": _ratio(decode["chain"], decode[name]),
            "chain_to_this_prefill": _ratio(prefill["chain"], prefill[name]),
        }
        for name in systems
    }
    rows = [[name, *values.values()] for name, values in figures.items()]
    title = (
        f"Speed ({DECODED} greedy tokens, prompt of {given} tokens, {THREADS} thread a stage; "
        "the chain's prefill leaves out opening its sessions)"
    )
    show(title, ["", "decode tok/s", "prefill tok/s", "chain ÷ this, decode", "prefill"], rows)
    reached = figures["one process"]["chain_to_this_decode"]
    print(f"Decode: {reached:.2f} of one process; the goal is {GOAL:.2f} and the aim {AIM:.2f}.")
    return {
        "rounds": ROUNDS,
        "decoded": DECODED,
        "prompt": given,
        "threads": THREADS,
        "systems": figures,
        "decode": {"reached": reached, "goal": GOAL, "aim": AIM},
    }


def _rates(systems: dict[str, System], rate: Callable[[System], float]) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(ROUNDS):
        for name, run in systems.items():
            # Memory that the kernel took back while the others ran is not what is compared.
            run(STORY, WARM_UP)
            rates[name].append(rate(run))
    return rates


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return median(a / b for a, b in zip(ours, theirs, strict=True))
