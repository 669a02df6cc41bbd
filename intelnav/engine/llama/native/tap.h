// What a slice reads out of a graph that llama.cpp computes, and what it puts into it. As `native.TapStruct` has it.

#pragma once

#include <cstdint>

struct tap {
    // Where a tensor has its name, in bytes from its start, and three functions of ggml.
    uint64_t name_offset;
    uint64_t (*bytes_of)(const void *tensor);
    void (*get)(const void *tensor, void *data, uint64_t offset, uint64_t size);
    void (*set)(void *tensor, const void *data, uint64_t offset, uint64_t size);
    // If set, it is called with every name, and nothing else happens.
    void (*survey)(const char *name);
    // The output that is captured, and after which the computation ends; empty for none.
    char wanted[64];
    uint8_t *captured;
    uint64_t captured_size, captured_capacity;
    // An input that is replaced by what was fed; empty for none.
    char replaced[64];
    const uint8_t *fed;
    uint64_t fed_size, fed_capacity;
};
