/* A tiny model, its engine and a text of ids, for the tests of training. */
#ifndef TRAIN_FIXTURE_H
#define TRAIN_FIXTURE_H

#include "support/testing.h"

#include "train/checkpoint.h"

#include <stdlib.h>

/* One layer of each family, small enough that the reference kernels train it at once. */
static const char fixture_llama[] =
    "{\"model_type\":\"llama\",\"vocab_size\":257,\"hidden_size\":16,\"intermediate_size\":24,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"max_position_embeddings\":32,\"tie_word_embeddings\":false}";
static const char fixture_gpt2[] =
    "{\"model_type\":\"gpt2\",\"vocab_size\":257,\"n_embd\":16,\"n_layer\":2,\"n_head\":2,\"n_positions\":32,"
    "\"embd_pdrop\":0.1,\"resid_pdrop\":0.1,\"attn_pdrop\":0.2}";

typedef struct fixture {
    tl_engine *engine;
    tl_tokenizer *tokenizer;
    tl_model *model;
    token_store text;
    loader *loader;
} fixture;

static inline tl_status fixture_text(fixture *f, const tl_allocator *a, int64_t n, tl_error *e) {
    token_store_init(&f->text, a, 257, 256);
    uint32_t x = 12345;
    for (int64_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        int32_t id = (int32_t)('a' + (int32_t)((uint32_t)i % 7u) * (int32_t)((x >> 28) & 1u));
        TRY(token_store_add(&f->text, &id, 1, e));
        if (i % 50 == 49) TRY(token_store_end(&f->text, e));
    }
    return token_store_end(&f->text, e);
}

static inline tl_status fixture_open(fixture *f, const tl_allocator *a, int threads, const char *config, int64_t B,
                                     int64_t T, bool packed, tl_error *e) {
    model_config c;
    char unknown[100];
    memset(f, 0, sizeof *f);
    tl_engine_options o = {.allocator = a, .threads = threads};
    TRY(tl_engine_create(&o, &f->engine, e));
    const tl_allocator *own = tl_engine_allocator(f->engine);
    TRY(tokenizer_from_bytes(own, &f->tokenizer, e));
    TRY(config_parse(config, &c, unknown, sizeof unknown, e));
    TRY(model_create(f->engine, &c, f->tokenizer, 7, &f->model, e));
    TRY(fixture_text(f, own, 700, e));
    loader_options lo = {
        .mode = packed ? LOADER_PACKED : LOADER_WINDOWS, .B = B, .T = T, .seed = 11, .across = !packed};
    return loader_open(own, &f->text.view, &lo, &f->loader, e);
}

static inline void fixture_close(fixture *f) {
    loader_close(f->loader);
    if (f->text.alloc) token_store_fini(&f->text);
    model_close(f->model);
    tokenizer_close(f->tokenizer);
    tl_engine_destroy(f->engine);
}

static inline trainer_settings fixture_settings(int64_t rows, int64_t micro, int64_t context, tl_dtype dtype) {
    return (trainer_settings){.schedule = {TL_SCHEDULE_COSINE, 1e-2, 1e-3, 3, 40},
                              .rows = rows,
                              .micro = micro,
                              .context = context,
                              .dtype = dtype,
                              .beta1 = 0.9,
                              .beta2 = 0.95,
                              .eps = 1e-8,
                              .decay = 0.1,
                              .clip = 1,
                              .seed = 3};
}

#endif
