import ctypes

from intelnav.engine.llama.ggml import InitParams, base, gpus, name_offset


def test_a_name_lies_where_ggml_reads_it() -> None:
    context = base.ggml_init(InitParams(1 << 12, None, True))
    tensor = base.ggml_new_tensor_1d(context, 0, 4)
    ctypes.memmove(tensor + name_offset(), b"l_out-7\0", 8)
    assert ctypes.string_at(base.ggml_get_name(tensor)) == b"l_out-7"
    base.ggml_free(context)


def test_every_gpu_has_a_backend_and_memory() -> None:
    for gpu in gpus():
        assert gpu.backend in ("cuda", "rocm", "vulkan", "metal")
        assert gpu.description
        assert gpu.free > 0
        assert gpu.handle
