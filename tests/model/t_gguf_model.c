/* GGUF files that claim to be models: every key and tensor they need, and what is said when one is wrong. */
#include "model/gguf.h"
#include "support/testing.h"

#include <stdlib.h>

static tl_engine *engine;
static char dir[200], path[256];

static int setup(void **state) {
    (void)state;
    test_tempdir(dir, sizeof dir);
    snprintf(path, sizeof path, "%s/m.gguf", dir);
    return tl_engine_create(&(tl_engine_options){.threads = 1}, &engine, NULL) != TL_OK;
}

static int teardown(void **state) {
    (void)state;
    tl_engine_destroy(engine);
    test_tempdir_remove(dir);
    return 0;
}

/* A llama of one layer, width 8, 2 heads, mlp 12, 5 tokens, with one thing changed. */
typedef struct change {
    const char *skip_key, *skip_tensor; /* left out */
    const char *int_key;                /* given another number */
    uint32_t value;
    const char *text_key, *text; /* given another text, or a text at all */
    const char *tensor;          /* given other dimensions or another type */
    int64_t ne[2];
    uint32_t type;
    const char *extra; /* one more tensor */
    int64_t extra_n;
} change;

static tl_status fill(void *user, size_t i, void *buf, tl_error *e) {
    const gguf_writer *w = user;
    (void)e;
    for (size_t k = 0; k < w->tensor[i].bytes / 4; k++) ((float *)buf)[k] = 0.1f * (float)((k * 7 + i) % 5);
    return TL_OK;
}

static void put_int(gguf_writer *w, const change *c, const char *key, uint32_t v) {
    if (c->skip_key && strcmp(c->skip_key, key) == 0) return;
    if (c->text_key && strcmp(c->text_key, key) == 0)
        gguf_put_str(w, key, c->text, strlen(c->text));
    else
        gguf_put_u32(w, key, c->int_key && strcmp(c->int_key, key) == 0 ? c->value : v);
}

static void put_tensor(gguf_writer *w, const change *c, const char *name, int64_t n0, int64_t n1) {
    int64_t ne[2] = {n0, n1};
    uint32_t type = GGUF_T_F32;
    if (c->skip_tensor && strcmp(c->skip_tensor, name) == 0) return;
    if (c->tensor && strcmp(c->tensor, name) == 0) {
        if (c->ne[0]) memcpy(ne, c->ne, sizeof ne);
        if (c->type) type = c->type;
    }
    gguf_put_tensor(w, name, ne[1] ? 2 : 1, ne, type);
}

static void write_model(const change *c) {
    static const struct {
        const char *key;
        uint32_t value;
    } keys[] = {{"llama.block_count", 1},          {"llama.context_length", 16},
                {"llama.embedding_length", 8},     {"llama.feed_forward_length", 12},
                {"llama.attention.head_count", 2}, {"llama.attention.head_count_kv", 1}};
    static const struct {
        const char *name;
        int64_t n0, n1;
    } tensors[] = {
        {"token_embd.weight", 8, 5},        {"output_norm.weight", 8, 0},    {"blk.0.attn_norm.weight", 8, 0},
        {"blk.0.attn_q.weight", 8, 8},      {"blk.0.attn_k.weight", 8, 4},   {"blk.0.attn_v.weight", 8, 4},
        {"blk.0.attn_output.weight", 8, 8}, {"blk.0.ffn_norm.weight", 8, 0}, {"blk.0.ffn_gate.weight", 8, 12},
        {"blk.0.ffn_up.weight", 8, 12},     {"blk.0.ffn_down.weight", 12, 8}};
    gguf_writer w;
    tl_error e;
    gguf_writer_init(&w, &mem_default);
    const char *arch = c->text_key && strcmp(c->text_key, "general.architecture") == 0 ? c->text : "llama";
    if (!c->skip_key || strcmp(c->skip_key, "general.architecture") != 0)
        gguf_put_str(&w, "general.architecture", arch, strlen(arch));
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) put_int(&w, c, keys[i].key, keys[i].value);
    if (c->text_key && strstr(c->text_key, "scaling")) gguf_put_str(&w, c->text_key, c->text, strlen(c->text));
    if (c->int_key && (strstr(c->int_key, "rope") || strstr(c->int_key, "length") || strstr(c->int_key, "sliding")) &&
        !strstr(c->int_key, "context_l") && !strstr(c->int_key, "embedding_l") && !strstr(c->int_key, "forward_l"))
        gguf_put_u32(&w, c->int_key, c->value);
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        put_tensor(&w, c, tensors[i].name, tensors[i].n0, tensors[i].n1);
    if (c->extra) gguf_put_tensor(&w, c->extra, 1, (int64_t[]){c->extra_n}, GGUF_T_F32);
    assert_ok(gguf_write(&w, path, fill, &w, &e), &e);
    gguf_writer_fini(&w);
}

static void the_model_itself_opens(void **state) {
    (void)state;
    tl_error e;
    tl_model *m;
    write_model(&(change){0});
    assert_ok(model_open(engine, path, &m, &e), &e);
    assert_string_equal(m->config.type, "llama");
    assert_int_equal(m->config.head_dim, 4);
    assert_true(m->config.tied);
    assert_null(m->tokenizer);
    model_close(m);
    write_model(&(change){.int_key = "llama.attention.sliding_window", .value = 4});
    assert_ok(model_open(engine, path, &m, &e), &e);
    assert_string_equal(m->config.type, "mistral");
    assert_int_equal(config_window(&m->config, 0), 4);
    model_close(m);
}

static void mistakes_are_named(void **state) {
    (void)state;
    static const struct {
        change c;
        tl_status code;
        const char *says;
    } rows[] = {
        {{.skip_key = "general.architecture"}, TL_CONFIG, "general.architecture"},
        {{.text_key = "general.architecture", .text = "nonsense"}, TL_UNSUPPORTED, "llama, qwen2"},
        {{.skip_key = "llama.block_count"}, TL_CONFIG, "llama.block_count"},
        {{.skip_key = "llama.context_length"}, TL_CONFIG, "llama.context_length"},
        {{.skip_key = "llama.embedding_length"}, TL_CONFIG, "llama.embedding_length"},
        {{.skip_key = "llama.feed_forward_length"}, TL_CONFIG, "llama.feed_forward_length"},
        {{.skip_key = "llama.attention.head_count"}, TL_CONFIG, "llama.attention.head_count"},
        {{.int_key = "llama.block_count", .value = 0}, TL_CONFIG, "llama.block_count"},
        {{.int_key = "llama.block_count", .value = 4000000000u}, TL_CONFIG, "llama.block_count"},
        {{.int_key = "llama.block_count", .value = 2}, TL_NOTFOUND, "blk.1."},
        {{.int_key = "llama.block_count", .value = 1000}, TL_FORMAT, "parameters"},
        {{.int_key = "llama.embedding_length", .value = 1 << 20}, TL_FORMAT, "parameters"},
        {{.int_key = "llama.attention.head_count", .value = 3}, TL_SHAPE, "blk.0.attn_q.weight"},
        {{.int_key = "llama.attention.head_count_kv", .value = 2}, TL_SHAPE, "blk.0.attn_k.weight"},
        {{.int_key = "llama.attention.value_length", .value = 8}, TL_UNSUPPORTED, "values of 8"},
        {{.int_key = "llama.rope.dimension_count", .value = 6}, TL_CONFIG, "rope.dimension_count"},
        {{.int_key = "llama.rope.dimension_count", .value = 3}, TL_CONFIG, "pairs"},
        {{.int_key = "llama.rope.freq_base", .value = 0}, TL_CONFIG, "rope_theta"},
        {{.text_key = "llama.rope.scaling.type", .text = "odd"}, TL_UNSUPPORTED, "linear and yarn"},
        {{.text_key = "llama.context_length", .text = "16"}, TL_CONFIG, "not an integer"},
        {{.skip_tensor = "token_embd.weight"}, TL_NOTFOUND, "token_embd.weight"},
        {{.skip_tensor = "blk.0.ffn_up.weight"}, TL_NOTFOUND, "blk.0.ffn_up.weight"},
        {{.skip_tensor = "output_norm.weight"}, TL_NOTFOUND, "output_norm.weight"},
        {{.tensor = "blk.0.ffn_up.weight", .ne = {12, 8}}, TL_SHAPE, "(12, 8"},
        {{.tensor = "blk.0.attn_norm.weight", .ne = {9, 0}}, TL_SHAPE, "blk.0.attn_norm.weight"},
        {{.tensor = "blk.0.ffn_up.weight", .type = 26}, TL_UNSUPPORTED, "i32"},
        {{.extra = "blk.0.more.weight", .extra_n = 3}, TL_FORMAT, "no such tensor"},
        {{.extra = "blk.1.attn_norm.weight", .extra_n = 8}, TL_FORMAT, "no such tensor"},
        {{.extra = "rope_freqs.weight", .extra_n = 7}, TL_CONFIG, "longrope"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        tl_error e;
        tl_model *m;
        char text[800];
        write_model(&rows[i].c);
        for (int mapped = 0; mapped < 2; mapped++) {
            tl_status s = mapped ? model_open_mapped(engine, path, &m, &e) : model_open(engine, path, &m, &e);
            tl_error_text(&e, text, sizeof text);
            if (s != rows[i].code || !strstr(text, rows[i].says))
                fail_msg("mistake %zu: status %d, \"%s\" instead of %d, \"%s\"", i, s, text, rows[i].code,
                         rows[i].says);
            assert_null(m);
            assert_non_null(strstr(text, path));
        }
    }
}

/* Parts of a split file: all of them or none. */
static void splits_belong_together(void **state) {
    (void)state;
    char a[300], b[300];
    tl_error e;
    tl_model *m;
    snprintf(a, sizeof a, "%s/s-00001-of-00002.gguf", dir);
    snprintf(b, sizeof b, "%s/s-00002-of-00002.gguf", dir);
    for (int what = 0; what < 4; what++) { /* right; the second missing; wrong number; wrong total */
        gguf_writer w;
        remove(b);
        gguf_writer_init(&w, &mem_default);
        gguf_put_str(&w, "general.architecture", "llama", 5);
        gguf_put_u32(&w, "llama.block_count", 1);
        gguf_put_u32(&w, "llama.context_length", 16);
        gguf_put_u32(&w, "llama.embedding_length", 8);
        gguf_put_u32(&w, "llama.feed_forward_length", 12);
        gguf_put_u32(&w, "llama.attention.head_count", 2);
        gguf_put_u32(&w, "split.no", 0);
        gguf_put_u32(&w, "split.count", 2);
        gguf_put_u32(&w, "split.tensors.count", what == 3 ? 12 : 11);
        put_tensor(&w, &(change){0}, "token_embd.weight", 8, 5);
        put_tensor(&w, &(change){0}, "output_norm.weight", 8, 0);
        put_tensor(&w, &(change){0}, "blk.0.attn_norm.weight", 8, 0);
        put_tensor(&w, &(change){0}, "blk.0.attn_q.weight", 8, 8);
        assert_ok(gguf_write(&w, a, fill, &w, &e), &e);
        gguf_writer_fini(&w);
        gguf_writer_init(&w, &mem_default);
        gguf_put_u32(&w, "split.no", what == 2 ? 0 : 1);
        gguf_put_u32(&w, "split.count", 2);
        put_tensor(&w, &(change){0}, "blk.0.attn_k.weight", 8, 8);
        put_tensor(&w, &(change){0}, "blk.0.attn_v.weight", 8, 8);
        put_tensor(&w, &(change){0}, "blk.0.attn_output.weight", 8, 8);
        put_tensor(&w, &(change){0}, "blk.0.ffn_norm.weight", 8, 0);
        put_tensor(&w, &(change){0}, "blk.0.ffn_gate.weight", 8, 12);
        put_tensor(&w, &(change){0}, "blk.0.ffn_up.weight", 8, 12);
        put_tensor(&w, &(change){0}, "blk.0.ffn_down.weight", 12, 8);
        if (what != 1) assert_ok(gguf_write(&w, b, fill, &w, &e), &e);
        gguf_writer_fini(&w);
        if (what) {
            assert_fails(what == 1 ? TL_NOTFOUND : TL_FORMAT, model_open(engine, a, &m, &e), &e);
            continue;
        }
        assert_ok(model_open(engine, a, &m, &e), &e);
        model_close(m);
        assert_ok(model_open_mapped(engine, b, &m, &e), &e); /* by any of its parts */
        model_close(m);
        char other[300];
        snprintf(other, sizeof other, "%s/alone.gguf", dir);
        assert_int_equal(rename(b, other), 0);
        assert_fails(TL_FORMAT, model_open(engine, other, &m, &e), &e);
    }
}

static tl_status open_both(const tl_allocator *a, void *user) {
    tl_engine *x;
    tl_model *m;
    TRY(tl_engine_create(&(tl_engine_options){.threads = 1, .allocator = a}, &x, NULL));
    tl_status s = model_open(x, user, &m, NULL);
    if (s == TL_OK) model_close(m);
    if (s == TL_OK) s = model_open_mapped(x, user, &m, NULL);
    if (s == TL_OK) model_close(m);
    tl_engine_destroy(x);
    return s;
}

static void allocations_may_fail(void **state) {
    (void)state;
    write_model(&(change){0});
    assert_true(test_alloc_sweep(open_both, path) > 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_model_itself_opens), cmocka_unit_test(mistakes_are_named),
                                       cmocka_unit_test(splits_belong_together),
                                       cmocka_unit_test(allocations_may_fail)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
