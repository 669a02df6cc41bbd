"""Forwards of several sequences through a loaded slice, as one decode.

What native code would abort on, or silently get wrong, is refused here first.
"""

import ctypes
from collections.abc import Sequence
from math import isfinite
from time import perf_counter_ns
from typing import Any

import llama_cpp.llama_cpp as llama
import numpy as np

from intelnav.domain.errors import Code, EngineError, PeerError
from intelnav.domain.sampling import Sampling
from intelnav.engine import tensor
from intelnav.engine.interface import Forward, Output, SliceSpec
from intelnav.engine.llama.loop import Loop
from intelnav.engine.llama.model import Model, last_words
from intelnav.engine.llama.sampler import sample
from intelnav.engine.llama.tap import Tap
from intelnav.engine.probe import Gpu
from intelnav.engine.sequences import Kind, Sequences, SequenceState
from intelnav.engine.tensor import Rows
from intelnav.store.footprint import CELLS
from intelnav.store.gguf import padded

# The largest sum of squares in one forward's hidden states: far above what a real model computes, and short of where
# float32 overflows in a norm. A peer that sends more could leave infinities in a cache, to outlast its session.
MAX_ENERGY = 1e36

Result = Output | PeerError | EngineError


class LlamaSlice:
    """A loaded slice, with a cache stream for each session. Not for use by several threads.

    `gpus` are those that may hold layers, none for a run on the CPU; `memory` is what the slice is known to take.
    Raises EngineError if the file cannot be loaded, or not be run in slices.
    """

    def __init__(self, spec: SliceSpec, gpus: Sequence[Gpu], threads: int, memory: int = 0) -> None:
        self._model = Model(spec, gpus)
        self.info = self._model.describe(spec, memory)
        self.vocabulary = self._model.vocabulary
        self.max_batch = max(self.info.max_rows, self.info.sessions)
        self._sequences = Sequences(self.info)
        self._hidden = np.zeros((self.max_batch, self.info.width), np.float32)
        self._tap = Tap(self.info.width, self.max_batch, None if self.info.is_front else self._hidden)
        self._context = self._make_context(threads, bool(gpus))
        self._memory = llama.llama_get_memory(self._context)
        self._logits_type: Any = ctypes.c_float * self.info.vocabulary
        self._make_batch()
        self._survey()
        self._loop = Loop(
            self.info,
            self._context,
            self._batch,
            self._tap,
            self._sequences,
            self._pick,
            max_energy=MAX_ENERGY,
        )

    def open(self, sequence: int, sampling: Sampling | None) -> None:
        """Start an empty sequence; PeerError if it is open already, or if there is no head to sample with."""
        self._sequences.open(sequence, sampling)

    def close(self, sequence: int) -> None:
        """Drop a sequence and its cache."""
        if self._sequences.close(sequence):
            llama.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def serve(self, socket: int) -> bytes:
        """Answer requests for a forward of one row; see `Loop.serve`. What it returns may be such a request as well."""
        return self._loop.serve(socket)

    def forward(self, batch: Sequence[Forward]) -> list[Result]:
        """Run forwards of one shape and of distinct sequences as one decode; the results come in the same order.

        One that breaks a rule, or whose numbers are not finite, gets a PeerError and does not disturb the others.
        """
        results: dict[int, Result] = {}
        admitted: list[tuple[Forward, SequenceState]] = []
        end = 0
        # llama.cpp computes a batch sequence by sequence, in the order of their ids; sorted, rows stay where they are.
        for forward in sorted(batch, key=lambda forward: forward.sequence):
            try:
                state = self._sequences.check(forward)
                if forward.hidden is not None:
                    # A forward that is refused leaves its rows behind, and the next one overwrites them.
                    rows = self._hidden[end : end + forward.rows]
                    tensor.decode(forward.hidden, out=rows)
                    _energy(rows)
                if forward.truncate_to is not None:
                    self._truncate(forward.sequence, state, forward.truncate_to)
            except (PeerError, EngineError) as error:
                results[forward.sequence] = error
                continue
            admitted.append((forward, state))
            end += forward.rows
        if admitted:
            try:
                results |= self._run(admitted)
            except EngineError as error:
                for forward, state in admitted:
                    self._truncate(forward.sequence, state, forward.position)
                    results[forward.sequence] = error
        return [results[forward.sequence] for forward in batch]

    def _run(self, admitted: list[tuple[Forward, SequenceState]]) -> dict[int, Result]:
        """Decode what passed all checks, its hidden states being in place; EngineError if llama.cpp fails."""
        first = admitted[0][0]
        captures = first.reply is not None
        self._fill([forward for forward, _ in admitted], captures)
        total = first.rows * len(admitted)
        self._tap.watch(first.stop - 1 - self.info.layers.start if captures else None, total)
        started = perf_counter_ns()
        self._decode(total)
        micros = (perf_counter_ns() - started) // 1000
        rows = self._tap.take(total) if captures else None
        results: dict[int, Result] = {}
        for index, (forward, state) in enumerate(admitted):
            state.length, state.stop = forward.position + forward.rows, forward.stop
            start = index * forward.rows
            try:
                if rows is not None and forward.reply is not None:
                    own = rows[start : start + forward.rows]
                    hidden = tensor.encode(own, forward.reply, _energy(own))
                    results[forward.sequence] = Output(hidden=hidden, micros=micros)
                else:
                    results[forward.sequence] = Output(
                        tokens=self._sample_rows(forward, state, start), micros=micros
                    )
            except PeerError as error:
                results[forward.sequence] = error
        return results

    def _fill(self, forwards: list[Forward], captures: bool) -> None:
        """Write positions, sequences, output flags and tokens of all rows into the batch's arrays."""
        at = 0
        for forward in forwards:
            start, sampled = at, forward.rows if forward.sample_from is None else forward.sample_from
            for row in range(forward.rows):
                self._positions[at] = forward.position + row
                self._sequence_ids[at] = forward.sequence
                # Without its flag, a row would be dropped in the last layer.
                self._outputs[at] = captures or row >= sampled
                at += 1
            if forward.tokens:
                self._token_ids[start:at] = forward.tokens

    def _decode(self, rows: int) -> None:
        self._batch.n_tokens = rows
        # With a callback to ask, llama.cpp waits for whatever it computes.
        status = llama.llama_decode(self._context, self._batch)
        if status:
            raise EngineError(f"llama.cpp could not decode {rows} rows, status {status}: {last_words()}")

    def _sample_rows(self, forward: Forward, state: SequenceState, start: int) -> tuple[int, ...]:
        if forward.sample_from is None or state.sampling is None:
            return ()
        rows = range(forward.sample_from, forward.rows)
        return tuple(self._sample(start + row, state, state.sampling, forward.position + row) for row in rows)

    def _pick(self, sequence: int, position: int) -> int:
        """Sample from the last decode's only row, for the loop. PeerError if that is refused."""
        state = self._sequences.find(sequence)
        assert state is not None
        assert state.sampling is not None
        return self._sample(0, state, state.sampling, position)

    def _sample(self, row: int, state: SequenceState, sampling: Sampling, position: int) -> int:
        """The token for a row of the last decode, noted as part of the answer."""
        pointer = llama.llama_get_logits_ith(self._context, row)
        logits = np.frombuffer(self._logits_type.from_address(ctypes.addressof(pointer.contents)), np.float32)
        best = int(logits.argmax())
        # argmax takes a NaN for the largest.
        if not isfinite(logits[best]):
            raise PeerError(Code.BAD_REQUEST, "the hidden states lead to logits that are not finite")
        if state.kind == Kind.GREEDY:
            return best
        recent = state.answers.recent()
        token = sample(self._context, row, self.info.vocabulary, sampling, position, recent)
        state.answers.add(position, token)
        return token

    def _truncate(self, sequence: int, state: SequenceState, length: int) -> None:
        if not llama.llama_memory_seq_rm(self._memory, sequence, length, -1):
            raise EngineError(f"llama.cpp cannot cut the cache of this {self.info.architecture} model")
        state.truncate(length)

    def _make_context(self, threads: int, offload: bool) -> int:
        params = llama.llama_context_default_params()
        params.n_seq_max = self.info.sessions
        params.n_ctx = padded(self.info.context, CELLS) * self.info.sessions
        params.n_batch = params.n_ubatch = self.max_batch
        params.n_threads = params.n_threads_batch = threads
        # One stream of cells for each session: attention walks its own cells only.
        params.kv_unified = False
        # A cache of the sliding window alone could not be truncated.
        params.swa_full = True
        params.op_offload = params.offload_kqv = offload
        params.cb_eval = ctypes.cast(self._tap.callback, llama.ggml_backend_sched_eval_callback)
        params.cb_eval_user_data = self._tap.user_data
        context = llama.llama_init_from_model(self._model.handle, params)
        if not context:
            raise EngineError(f"llama.cpp could not make a context: {last_words()}")
        return int(context)

    def _make_batch(self) -> None:
        """A llama_batch over arrays of ours, of tokens in a front slice and of hidden states in any other.

        Arrays of ctypes, since numpy takes several times as long to set a single item.
        """
        rows = self.max_batch
        self._token_ids = (llama.llama_token * rows)()
        self._positions = (llama.llama_pos * rows)()
        self._sequence_ids = (llama.llama_seq_id * rows)()
        self._outputs = (ctypes.c_int8 * rows)()
        id_pointer = ctypes.POINTER(llama.llama_seq_id)
        addresses = range(
            ctypes.addressof(self._sequence_ids), ctypes.addressof(self._sequence_ids) + 4 * rows, 4
        )
        batch = self._batch = llama.llama_batch()
        if self.info.is_front:
            batch.token = self._token_ids
        else:
            batch.embd = self._hidden.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        batch.pos = self._positions
        batch.n_seq_id = (ctypes.c_int32 * rows)(*[1] * rows)
        batch.seq_id = (id_pointer * rows)(*(ctypes.cast(address, id_pointer) for address in addresses))
        batch.logits = self._outputs

    def _survey(self) -> None:
        """Decode a row of zeros: it shows whether each layer's output can be read, and warms the weights up."""
        self._outputs[0] = True
        self._tap.survey()
        self._decode(1)
        self._tap.check(len(self.info.layers))
        llama.llama_memory_clear(self._memory, True)


def _energy(rows: Rows) -> float:
    """The sum of the squares of `rows`; PeerError if it is too large, or no number."""
    energy = float(np.vdot(rows, rows))
    # Written so that a NaN fails it, too.
    if not energy <= MAX_ENERGY:
        raise PeerError(
            Code.BAD_REQUEST, "the hidden states hold values that are not finite, or absurdly large"
        )
    return energy
