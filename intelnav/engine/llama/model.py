"""Loading the weights of a slice, and what the file says of itself."""

import ctypes
from collections import deque
from collections.abc import Sequence
from hashlib import blake2b

import llama_cpp.llama_cpp as llama
from llama_cpp import __version__ as LLAMA_VERSION

from intelnav.domain.errors import EngineError
from intelnav.domain.slice import LayerRange
from intelnav.engine.interface import SliceInfo, SliceSpec
from intelnav.engine.llama.vocabulary import Vocabulary
from intelnav.engine.probe import Gpu

_WARNING = 3  # GGML_LOG_LEVEL_WARN

_log: deque[str] = deque(maxlen=8)


def _keep_warnings(level: int, text: bytes, _user: None) -> None:
    if level >= _WARNING:
        _log.append(text.decode(errors="replace").strip())


_log_callback = llama.llama_log_callback(_keep_warnings)
llama.llama_log_set(_log_callback, None)


def last_words() -> str:
    """llama.cpp's latest warnings and errors, for a message that says what went wrong."""
    return " / ".join(line for line in _log if line) or "it gave no reason"


class Model:
    """The weights of a slice, loaded. `gpus` are those that may hold layers, none for a run on the CPU.

    Raises EngineError, with llama.cpp's own words, if the file cannot be loaded.
    """

    def __init__(self, spec: SliceSpec, gpus: Sequence[Gpu]) -> None:
        llama.llama_backend_init()
        params = llama.llama_model_default_params()
        # Repacked weights make a row's result depend on how many rows are decoded with it. Besides, the AMX kernels
        # among them crash when GCC 12 has compiled them.
        params.use_extra_bufts = False
        params.n_gpu_layers = spec.gpu_layers if gpus else 0
        devices = (ctypes.c_void_p * (len(gpus) + 1))(*(gpu.handle for gpu in gpus), None)
        params.devices = ctypes.addressof(devices)
        self.handle = llama.llama_model_load_from_file(str(spec.path).encode(), params)
        if not self.handle:
            raise EngineError(f"{spec.path}: llama.cpp could not load it: {last_words()}")
        self.vocabulary = Vocabulary(self.handle)
        self._backend = gpus[0].backend if gpus else "cpu"
        # What decides which kernels run, and so in which order sums are taken.
        offload = "+".join(gpu.description for gpu in gpus) + (f"/{spec.gpu_layers}" if gpus else "")
        machine = offload.encode() + llama.llama_print_system_info()
        self._kernels = blake2b(machine, digest_size=4).hexdigest()

    def describe(self, spec: SliceSpec, memory: int) -> SliceInfo:
        """What is loaded, `memory` being what it takes; EngineError if it is nothing that can be run in slices."""
        held = llama.llama_model_n_layer(self.handle)
        layers = LayerRange(
            int(self._metadata("intelnav.layer_start", "0")),
            int(self._metadata("intelnav.layer_end", str(held))),
        )
        architecture = self._metadata("general.architecture", "unknown")
        width = llama.llama_model_n_embd(self.handle)
        context = min(spec.context, llama.llama_model_n_ctx_train(self.handle))
        if len(layers) != held:
            raise EngineError(f"{spec.path}: {held} blocks do not make up layers {layers}")
        if (
            llama.llama_model_has_encoder(self.handle)
            or llama.llama_model_is_recurrent(self.handle)
            or llama.llama_model_is_hybrid(self.handle)
            or llama.llama_model_is_diffusion(self.handle)
            or llama.llama_model_n_embd_inp(self.handle) != width
        ):
            raise EngineError(
                f"{spec.path}: models of the architecture {architecture} cannot be run in slices"
            )
        return SliceInfo(
            layers=layers,
            blocks=int(self._metadata("intelnav.block_count", str(held))),
            architecture=architecture,
            width=width,
            vocabulary=self.vocabulary.size,
            context=context,
            sessions=spec.sessions,
            max_rows=min(spec.max_rows, context),
            end_tokens=self.vocabulary.end_tokens(),
            engine_class=f"llama.cpp-{LLAMA_VERSION}/{self._backend}/{self._kernels}",
            memory=memory,
        )

    def _metadata(self, key: str, default: str) -> str:
        buffer = ctypes.create_string_buffer(256)
        size = llama.llama_model_meta_val_str(self.handle, key.encode(), buffer, len(buffer))
        return buffer.value.decode(errors="replace") if size >= 0 else default
