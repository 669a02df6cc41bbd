// What llama.cpp calls for every node of a graph, some 200 times for a slice and a token.

#include "tap.h"

#include <cstring>

// A `ggml_backend_sched_eval_callback`: called with `ask` to learn if the node is wanted, then without once it is
// computed; then the answer says whether to go on. A decode comes to a node once for each of its micro-batches.
extern "C" bool intelnav_visit(void *tensor, bool ask, void *user_data) {
    tap *it = static_cast<tap *>(user_data);
    const char *name = static_cast<const char *>(tensor) + it->name_offset;
    if (it->survey) {
        if (ask) {
            it->survey(name);
        }
        return false;
    }
    if (it->wanted[0] && !std::strcmp(name, it->wanted)) {
        if (!ask) {
            const uint64_t size = it->bytes_of(tensor);
            if (it->captured_size + size <= it->captured_capacity) {
                it->get(tensor, it->captured + it->captured_size, 0, size);
            }
            // Counted in any case: who takes the rows learns that there were too many.
            it->captured_size += size;
        }
        return ask;
    }
    if (it->replaced[0] && !std::strcmp(name, it->replaced)) {
        if (!ask) {
            const uint64_t size = it->bytes_of(tensor);
            if (it->fed_size + size <= it->fed_capacity) {
                it->set(tensor, it->fed + it->fed_size, 0, size);
            }
            it->fed_size += size;
        }
        return true;
    }
    return false;
}
