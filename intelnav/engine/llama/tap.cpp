// What llama.cpp calls for every node of a graph that it computes, some 200 times for a slice and a token. It finds the
// few nodes that somebody waits for; only those are handed on to Python, which would take 90 µs for all of them.

#include <cstdint>
#include <cstring>

// As `_Watch` in tap.py has it.
struct watch {
    bool (*meet)(void *tensor, bool ask);
    uint64_t name_offset;
    uint64_t count;
    const uint64_t *prefixes;
};

// A `ggml_backend_sched_eval_callback`; `user_data` is a `watch`. A tensor's name has 64 bytes, of which eight tell enough.
extern "C" bool intelnav_visit(void *tensor, bool ask, void *user_data) {
    const watch *it = static_cast<const watch *>(user_data);
    uint64_t prefix;
    std::memcpy(&prefix, static_cast<const char *>(tensor) + it->name_offset, sizeof prefix);
    for (uint64_t index = 0; index < it->count; ++index) {
        if (it->prefixes[index] == prefix) {
            return it->meet(tensor, ask);
        }
    }
    return false;
}
