/* JSON of strangers: parses, or fails with a text; and what the getters answer is what they promise. */
#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    json_t *v;
    tl_error e;
    if (json_parse((const char *)data, size, "input", &v, &e)) {
        if (v || e.code == TL_OK || !e.text[0]) __builtin_trap();
        return 0;
    }
    const char *key;
    json_t *member;
    json_object_foreach(v, key, member) {
        int64_t n = 5;
        if (json_get_int(v, key, 0, 10, &n, &e) == TL_OK && (n < 0 || n > 10)) __builtin_trap();
    }
    json_decref(v);
    return 0;
}
