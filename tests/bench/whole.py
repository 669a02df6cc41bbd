"""The baselines: the whole model in one llama.cpp process, alone or with its last layers spread over RPC servers.

Run as `python -m tests.bench.whole MODEL THREADS REMOTE_LAYERS [ENDPOINT ...]`; the module path decides which build
of llama.cpp that is. For each line `{"prompt": TEXT, "count": N}` on standard input it prints one: the number of
tokens in the prompt, the seconds for it and its first token, the seconds for the rest, and the greedy tokens.
"""

import ctypes
import json
import sys
import time
from typing import Any

import llama_cpp

from tests.bench.rpc import library

CONTEXT = 4096


def rpc_devices(endpoints: list[str]) -> Any:
    """The devices of the servers, as the null-ended array that llama.cpp wants."""
    base, rpc = library("base"), library("rpc")
    rpc.ggml_backend_rpc_add_server.restype = ctypes.c_void_p
    base.ggml_backend_reg_dev_get.restype = ctypes.c_void_p
    base.ggml_backend_reg_dev_get.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    devices = (ctypes.c_void_p * (len(endpoints) + 1))()
    for index, endpoint in enumerate(endpoints):
        server = rpc.ggml_backend_rpc_add_server(endpoint.encode())
        if not server:
            raise SystemExit(f"no RPC server at {endpoint}")
        devices[index] = base.ggml_backend_reg_dev_get(server, 0)
    return devices


class Whole:
    """One model and one context with one sequence."""

    def __init__(self, path: str, threads: int, remote_layers: int, endpoints: list[str]) -> None:
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = remote_layers
        # As in our engine: weights stay as they are in the file.
        params.use_extra_bufts = False
        if endpoints:
            self._devices = rpc_devices(endpoints)
            params.devices = ctypes.addressof(self._devices)
        model = llama_cpp.llama_model_load_from_file(path.encode(), params)
        if not model:
            raise SystemExit(f"cannot load {path}")
        context = llama_cpp.llama_context_default_params()
        context.n_ctx = CONTEXT
        context.n_threads = context.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(model, context)
        self._vocabulary = llama_cpp.llama_model_get_vocab(model)
        self._sampler = llama_cpp.llama_sampler_init_greedy()

    def _tokenize(self, text: str) -> list[int]:
        data = text.encode()
        found = (llama_cpp.llama_token * (len(data) + 2))()
        count = llama_cpp.llama_tokenize(self._vocabulary, data, len(data), found, len(found), True, True)
        return list(found[:count])

    def _next(self, tokens: list[int]) -> int:
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        if llama_cpp.llama_decode(self._context, llama_cpp.llama_batch_get_one(array, len(tokens))) != 0:
            raise SystemExit("llama_decode failed")
        return int(llama_cpp.llama_sampler_sample(self._sampler, self._context, -1))

    def run(self, prompt: str, count: int) -> dict[str, Any]:
        """Answer one job; an end-of-generation token ends the answer and is not part of it."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        given = self._tokenize(prompt)
        start = time.perf_counter()
        tokens = [self._next(given)]
        prefilled = time.perf_counter()
        decoded = prefilled
        while len(tokens) < count:
            token = self._next(tokens[-1:])
            if llama_cpp.llama_vocab_is_eog(self._vocabulary, token):
                break
            tokens.append(token)
            decoded = time.perf_counter()
        return {
            "given": len(given),
            "prefill": prefilled - start,
            "decode": decoded - prefilled,
            "tokens": tokens,
        }


def main() -> None:
    """Answer lines until standard input ends."""
    model, threads, remote_layers, *endpoints = sys.argv[1:]
    whole = Whole(model, int(threads), int(remote_layers), endpoints)
    for line in sys.stdin:
        print(json.dumps(whole.run(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
