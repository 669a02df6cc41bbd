// A worker's loop for what nearly every token is: one forward of one row.
//
// A worker meets each token with caches full of weights, where the same in Python takes a tenth of the token's time
// (docs/adr/0010). What is not of that kind, or breaks a rule, or comes to no good end, is left to Python as it came: this
// loop refuses nothing.

#include "tap.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstring>
#include <sys/socket.h>

// llama.cpp's `llama_batch`.
struct batch {
    int32_t count;
    int32_t *tokens;
    float *hidden;
    int32_t *positions, *sequence_counts;
    int32_t **sequences;
    int8_t *outputs;
};

// As `sequences.SequenceState` has it.
struct sequence {
    int64_t length, stop, kind;
};
enum : int64_t { CLOSED, SILENT, GREEDY, SAMPLING };

// As `native.SliceStruct` has it; the functions are llama.cpp's and ggml's.
struct slice {
    tap *watch;
    void *context, *memory;
    batch *input;
    int32_t (*decode)(void *context, batch input);
    const float *(*logits)(void *context, int32_t row);
    bool (*cut)(void *memory, int32_t sequence, int32_t from, int32_t to);
    void (*to_halves)(const float *values, uint16_t *halves, int64_t count);
    void (*from_halves)(const uint16_t *halves, float *values, int64_t count);
    sequence *sequences;
    int64_t sequence_count, context_length, layer_start, layer_end, blocks, width, vocabulary;
    double max_energy;
    // Samples from the logits of the last decode, in Python; ABSENT if it cannot.
    int64_t (*pick)(int64_t sequence, int64_t position);
};

// Frames, as `link.py` packs them.
struct frame_head {
    uint32_t fields, payload;
    uint64_t number;
    uint8_t packed;
};
struct forward {
    int64_t sequence, position, stop, truncate_to, sample_from;
    uint32_t rows, width;
    uint8_t dtype, reply;
};
struct result {
    int64_t micros;
    uint32_t rows, width;
    uint8_t dtype;
};
enum : uint8_t { NONE, F32, F16 };

struct request {
    frame_head head;
    forward job;

    const uint8_t *payload() const { return reinterpret_cast<const uint8_t *>(this + 1); }
};
struct answer {
    frame_head head;
    result output;

    uint8_t *payload() { return reinterpret_cast<uint8_t *>(this + 1); }
};

namespace {

constexpr int64_t ABSENT = -1;
constexpr float MAX_HALF = 65504;

int64_t bytes_of_row(const slice &it, uint8_t dtype) {
    return dtype == F32 ? 4 * it.width : dtype == F16 ? 2 * it.width : 0;
}

// Whether these bytes are one request of our kind, and complete.
bool is_ours(const request &asked, int64_t size) {
    return size >= int64_t(sizeof(request)) && asked.head.packed && asked.head.fields == sizeof(forward) &&
           size == int64_t(sizeof(request)) + asked.head.payload;
}

// Whether it may run, and gives what we can give; see `Sequences.check`.
bool may_run(const slice &it, const forward &job) {
    if (job.sequence < 0 || job.sequence >= it.sequence_count || job.truncate_to != ABSENT) {
        return false;
    }
    const sequence &state = it.sequences[job.sequence];
    if (state.kind == CLOSED || job.position != state.length || state.length >= it.context_length) {
        return false;
    }
    if (job.stop <= it.layer_start || job.stop > it.layer_end || (state.length && job.stop != state.stop)) {
        return false;
    }
    if (job.stop == it.blocks) {
        return state.kind != SILENT && job.sample_from == 0 && job.reply == NONE;
    }
    return job.sample_from == ABSENT && bytes_of_row(it, job.reply);
}

// Whether finite values of a sane size are all there is; see `MAX_ENERGY`.
bool is_sound(const slice &it, const float *row) {
    double energy = 0;
    for (int64_t index = 0; index < it.width; ++index) {
        energy += double(row[index]) * row[index];
    }
    return energy <= it.max_energy;
}

// Put the request's row into the batch; false if it is none.
bool feed(const slice &it, const request &asked) {
    const forward &job = asked.job;
    if (it.layer_start == 0) {
        int64_t token;
        if (job.dtype != NONE || asked.head.payload != sizeof token) {
            return false;
        }
        std::memcpy(&token, asked.payload(), sizeof token);
        it.input->tokens[0] = int32_t(token);
        return token >= 0 && token < it.vocabulary;
    }
    const int64_t size = bytes_of_row(it, job.dtype);
    // With the width, the size of the payload tells that it is one row.
    if (!size || job.width != it.width || asked.head.payload != size) {
        return false;
    }
    if (job.dtype == F32) {
        std::memcpy(it.input->hidden, asked.payload(), size_t(size));
    } else {
        it.from_halves(reinterpret_cast<const uint16_t *>(asked.payload()), it.input->hidden, it.width);
    }
    return is_sound(it, it.input->hidden);
}

// Decode the row that is in the batch, up to its stop; the result lies in the tap or in the logits.
bool compute(const slice &it, const forward &job) {
    tap &watch = *it.watch;
    watch.captured_size = watch.fed_size = 0;
    watch.fed_capacity = uint64_t(4 * it.width);
    watch.wanted[0] = 0;
    if (job.stop != it.blocks) {
        constexpr char prefix[] = "l_out-";
        char *digits = watch.wanted + sizeof prefix - 1;
        std::memcpy(watch.wanted, prefix, sizeof prefix);
        *std::to_chars(digits, watch.wanted + sizeof watch.wanted - 1, job.stop - 1 - it.layer_start).ptr = 0;
    }
    it.input->count = 1;
    it.input->positions[0] = int32_t(job.position);
    it.input->sequences[0][0] = int32_t(job.sequence);
    it.input->outputs[0] = 1;
    return it.decode(it.context, *it.input) == 0;
}

// The first of the largest logits; ABSENT if that is infinite, or if one is no number.
int64_t likeliest(const float *logits, int64_t count) {
    // Several at a time, which a compiler turns into vectors.
    constexpr int64_t LANES = 16;
    float best[LANES];
    int32_t odd[LANES] = {};
    std::fill(best, best + LANES, -INFINITY);
    const int64_t whole = count - count % LANES;
    for (int64_t start = 0; start < whole; start += LANES) {
        for (int64_t lane = 0; lane < LANES; ++lane) {
            const float value = logits[start + lane];
            best[lane] = value > best[lane] ? value : best[lane];
            odd[lane] |= value != value;
        }
    }
    for (int64_t index = whole; index < count; ++index) {
        best[0] = std::max(best[0], logits[index]);
        odd[0] |= logits[index] != logits[index];
    }
    const float top = *std::max_element(best, best + LANES);
    if (!std::isfinite(top) || *std::max_element(odd, odd + LANES)) {
        return ABSENT;
    }
    return std::find(logits, logits + count, top) - logits;
}

// Write the result into the reply; false if it is none that may be given.
bool take(const slice &it, const forward &job, answer &reply) {
    if (job.stop == it.blocks) {
        const int64_t token = it.sequences[job.sequence].kind == GREEDY
                                  ? likeliest(it.logits(it.context, 0), it.vocabulary)
                                  : it.pick(job.sequence, job.position);
        std::memcpy(reply.payload(), &token, sizeof token);
        reply.head.payload = sizeof token;
        reply.output.rows = reply.output.width = reply.output.dtype = 0;
        return token >= 0 && token < it.vocabulary;
    }
    float *row = reinterpret_cast<float *>(it.watch->captured);
    if (it.watch->captured_size != uint64_t(4 * it.width) || !is_sound(it, row)) {
        return false;
    }
    reply.head.payload = uint32_t(bytes_of_row(it, job.reply));
    reply.output.rows = 1;
    reply.output.width = uint32_t(it.width);
    reply.output.dtype = job.reply;
    if (job.reply == F32) {
        std::memcpy(reply.payload(), row, reply.head.payload);
    } else {
        std::transform(row, row + it.width, row, [](float value) { return std::clamp(value, -MAX_HALF, MAX_HALF); });
        it.to_halves(row, reinterpret_cast<uint16_t *>(reply.payload()), it.width);
    }
    return true;
}

bool send_all(int socket, const void *data, size_t size) {
    for (const char *at = static_cast<const char *>(data); size;) {
        const ssize_t sent = send(socket, at, size, 0);
        if (sent < 0 && errno != EINTR) {
            return false;
        }
        at += std::max<ssize_t>(sent, 0);
        size -= size_t(std::max<ssize_t>(sent, 0));
    }
    return true;
}

}  // namespace

// Of what Python has, too, for it to compare.
extern "C" const uint64_t intelnav_sizes[] = {sizeof(batch), sizeof(tap), sizeof(slice), sizeof(sequence)};

static_assert(sizeof(request) == 80 && sizeof(answer) == 48, "frames are as link.py packs them");

// Answer requests that come on `socket` until there is one for Python, which then lies in `asked`, or a part or several.
// Returns how many bytes those are, at most `capacity`; 0 once the other side has hung up, or -errno. `reply` has room for
// any reply.
extern "C" int64_t intelnav_serve(const slice *it, int socket, request *asked, int64_t capacity, answer *reply) {
    for (;;) {
        const ssize_t size = recv(socket, asked, size_t(capacity), 0);
        if (size < 0 && errno == EINTR) {
            continue;
        }
        if (size < 0) {
            return -errno;
        }
        const forward &job = asked->job;
        if (!is_ours(*asked, size) || !may_run(*it, job) || !feed(*it, *asked)) {
            return size;
        }
        const auto started = std::chrono::steady_clock::now();
        const bool computed = compute(*it, job);
        const auto spent = std::chrono::steady_clock::now() - started;
        if (!computed || !take(*it, job, *reply)) {
            it->cut(it->memory, int32_t(job.sequence), int32_t(job.position), -1);
            return size;
        }
        reply->head.fields = sizeof(result);
        reply->head.number = asked->head.number;
        reply->head.packed = true;
        reply->output.micros = std::chrono::duration_cast<std::chrono::microseconds>(spent).count();
        if (!send_all(socket, reply, sizeof *reply + reply->head.payload)) {
            return -errno;
        }
        sequence &state = it->sequences[job.sequence];
        state.length = job.position + 1;
        state.stop = job.stop;
    }
}
