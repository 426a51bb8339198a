/* Every architecture against transformers: tiny random models with their logits (tools/vectors/hf_models.py), on
 * sequences that cross windows and position scalings, by steps, by prefill, and after both ways through files. */
#include "format/safetensors.h"
#include "infer/session.h"
#include "model/gguf.h"
#include "support/testing.h"
#include "tensor/quantize.h"

#include <math.h>
#include <stdlib.h>

enum { N = 40, V = 61 };
static const char *const names[] = {"gpt2",   "llama", "llama_bias", "mistral", "qwen2",          "qwen3",
                                    "gemma2", "phi3",  "qwen3_moe",  "mixtral", "qwen3_moe_mixed"};
enum { NAMES = sizeof names / sizeof *names };

static tl_engine *engine;

static int setup(void **state) {
    (void)state;
    return tl_engine_create(&(tl_engine_options){.threads = 2}, &engine, NULL) != TL_OK;
}

static int teardown(void **state) {
    (void)state;
    tl_engine_destroy(engine);
    return 0;
}

typedef struct wanted {
    safetensors file;
    int32_t ids[N], greedy[N];
    const float *logits, *short_logits; /* (N,V); up to the old context, NULL */
} wanted;

static const char *vector_dir(const char *name, char buf[300]) {
    snprintf(buf, 300, TILIA_SOURCE_DIR "/tests/vectors/hf/%s", name);
    return buf;
}

static void want_open(const char *name, wanted *w) {
    char path[400], dir[300];
    tl_error e;
    snprintf(path, sizeof path, "%s/want.safetensors", vector_dir(name, dir));
    assert_ok(safetensors_open(&mem_default, path, &w->file, &e), &e);
    const safetensors_entry *s = safetensors_find(&w->file, "short_logits");
    memcpy(w->ids, safetensors_find(&w->file, "ids")->data, sizeof w->ids);
    memcpy(w->greedy, safetensors_find(&w->file, "greedy")->data, sizeof w->greedy);
    w->logits = (const float *)(const void *)safetensors_find(&w->file, "logits")->data;
    w->short_logits = s ? (const float *)(const void *)s->data : NULL;
}

static tl_model *open_model(const char *path) {
    tl_model *m;
    tl_error e;
    assert_ok(model_open(engine, path, &m, &e), &e);
    return m;
}

static tl_model *open_mapped(const char *path, bool stays) {
    tl_model *m;
    tl_error e;
    assert_ok(model_open_mapped(engine, path, &m, &e), &e);
    assert_int_equal(m->flat == NULL, stays);
    return m;
}

static float worst; /* difference of a logit, for the curious */

static void assert_logits(const float *got, const float *want) {
    for (int v = 0; v < V; v++) {
        assert_near(got[v], want[v], 1e-4);
        worst = fmaxf(worst, fabsf(got[v] - want[v]));
    }
}

/* n tokens into a fresh cache in parts of `part`, every part's last logits compared */
static void run_in_parts(tl_model *m, const int32_t *ids, int n, int part, int64_t capacity, const float *want) {
    decoder d;
    tl_error e;
    int32_t pos[N], slot[N] = {0};
    for (int32_t i = 0; i < n; i++) pos[i] = i;
    assert_ok(decoder_init(&d, m, 1, capacity, TL_F32, TL_F32, &e), &e);
    for (int at = 0; at < n; at += part) {
        const float *z;
        int k = n - at < part ? n - at : part;
        assert_ok(decoder_run(&d, k, ids + at, pos + at, slot, 1, &(int32_t){k - 1}, &z, &e), &e);
        assert_logits(z, want + (at + k - 1) * V);
    }
    decoder_fini(&d);
}

static void assert_greedy(tl_model *m, const wanted *w) {
    tl_session *s;
    tl_error e;
    tl_piece p;
    assert_ok(session_create(m, &(tl_session_options){.context = 64, .ignore_eos = true}, &s, &e), &e);
    assert_ok(session_ids(s, w->greedy, 20, &e), &e);
    for (int i = 20; i < N; i++) {
        assert_ok(session_next(s, &p, &e), &e);
        assert_int_equal(p.id, w->greedy[i]);
    }
    session_destroy(s);
}

static void logits_are_those_of_transformers(void **state) {
    (void)state;
    for (int k = 0; k < NAMES; k++) {
        char dir[300];
        wanted w;
        worst = 0;
        tl_model *m = open_model(vector_dir(names[k], dir));
        want_open(names[k], &w);
        static const int parts[] = {1, 5, 16, N};
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) run_in_parts(m, w.ids, N, parts[i], 64, w.logits);
        if (w.short_logits) run_in_parts(m, w.ids, 16, 1, 16, w.short_logits);
        assert_greedy(m, &w);
        print_message("          %s: logits off by %.2g at most\n", names[k], (double)worst);
        safetensors_close(&w.file);
        model_close(m);
    }
}

static void forms_keep_the_model(void **state) {
    (void)state;
    char tmp[200];
    test_tempdir(tmp, sizeof tmp);
    for (int k = 0; k < NAMES; k++) {
        char dir[300], hf[300], gg[300];
        wanted w;
        tl_error e;
        tl_model *m = open_model(vector_dir(names[k], dir));
        want_open(names[k], &w);
        print_message("          %s\n", names[k]);
        snprintf(hf, sizeof hf, "%s/%s", tmp, names[k]);
        snprintf(gg, sizeof gg, "%s/%s.gguf", tmp, names[k]);
        assert_ok(model_save(m, hf, &e), &e);
        tl_model *again = open_model(hf);
        assert_memory_equal(&m->config, &again->config, sizeof m->config);
        assert_memory_equal(m->flat, again->flat, (size_t)m->params.total * sizeof *m->flat);
        if (config_expert_layers(&m->config) < (m->config.experts ? m->config.layers : 0)) {
            assert_fails(TL_UNSUPPORTED, model_write_gguf(again, gg, NULL, &e), &e);
            model_close(again);
            model_close(m);
            safetensors_close(&w.file);
            continue;
        }
        assert_ok(model_write_gguf(again, gg, NULL, &e), &e);
        model_close(again);
        again = open_model(gg);
        run_in_parts(again, w.ids, N, N, 64, w.logits);
        assert_greedy(again, &w);
        model_config c = again->config;
        c.init_std = m->config.init_std; /* what a file of weights does not know */
        memcpy(c.type, m->config.type, sizeof c.type);
        assert_near(c.rope_theta, m->config.rope_theta, 1e-6 * m->config.rope_theta);
        c.norm_eps = m->config.norm_eps; /* GGUF keeps it in f32 */
        assert_string_equal(again->config.type, m->config.type);
        assert_int_equal(c.window, m->config.window);
        assert_memory_equal(c.full, m->config.full, sizeof c.full);
        assert_int_equal(c.scaling, m->config.scaling);
        assert_near(c.scaling_factor, m->config.scaling_factor, 1e-4);
        model_close(again);
        /* where the files have them: f32 in the GGUF, bf16 in the directory; gpt2's stand there transposed */
        again = open_mapped(gg, true);
        for (int part = 1; part <= N; part += 13) run_in_parts(again, w.ids, N, part, 64, w.logits);
        assert_greedy(again, &w);
        snprintf(hf, sizeof hf, "%s/%s.none", tmp, names[k]);
        assert_fails(TL_STATE, model_save(again, hf, &e), &e);
        model_close(again);
        again = open_mapped(dir, strcmp(names[k], "gpt2") != 0);
        for (int part = 1; part <= N; part += 13) run_in_parts(again, w.ids, N, part, 64, w.logits);
        model_close(again);
        model_close(m);
        safetensors_close(&w.file);
    }
    if (!getenv("TILIA_KEEP"))
        test_tempdir_remove(tmp);
    else
        print_message("          kept in %s\n", tmp);
}

/* Ids that end a text, from either file, and what is said about sampling, survive saving; any of them ends a text. */
static void several_tokens_end_a_text(void **state) {
    (void)state;
    char tmp[200], dir[300], out[300], path[400];
    tl_error e;
    tl_session *s;
    tl_piece p;
    wanted w;
    test_tempdir(tmp, sizeof tmp);
    tl_model *m = open_model(vector_dir("llama", dir));
    want_open("llama", &w);
    int32_t end = w.greedy[23];
    snprintf(out, sizeof out, "%s/saved", tmp);
    assert_ok(model_save(m, out, &e), &e);
    model_close(m);
    snprintf(path, sizeof path, "%s/generation_config.json", out);
    FILE *f = fopen(path, "w");
    fprintf(f, "{\"eos_token_id\": [2, %d, 60], \"temperature\": 0.25, \"top_k\": 7, \"max_new_tokens\": 99}", end);
    fclose(f);
    m = open_model(out);
    assert_int_equal(m->config.eos, 2);
    assert_int_equal(m->config.n_ends, 2);
    tl_session_options so;
    memset(&so, 0, sizeof so);
    generation_unset(&so);
    so.top_k = 3; /* the user's choice stays */
    generation_fill(&m->generation, &so);
    assert_true(so.temperature == 0.25f && so.top_k == 3 && so.top_p == 0.95f && so.max_tokens == 99);
    assert_ok(session_create(m, &(tl_session_options){.context = 64}, &s, &e), &e);
    assert_ok(session_ids(s, w.greedy, 20, &e), &e);
    int n = 0;
    for (p.done = false; !p.done && n < 20; n++) assert_ok(session_next(s, &p, &e), &e);
    assert_int_equal(p.finish, TL_FINISH_EOS);
    assert_true(n <= 4);
    for (int i = 0; i < n; i++) assert_int_equal(config_is_end(&m->config, w.greedy[20 + i]), i + 1 == n);
    session_destroy(s);
    snprintf(path, sizeof path, "%s/again", tmp);
    assert_ok(model_save(m, path, &e), &e);
    tl_model *again = open_model(path);
    assert_memory_equal(&again->generation, &m->generation, sizeof m->generation);
    assert_memory_equal(&again->config, &m->config, sizeof m->config);
    model_close(again);
    model_close(m);
    safetensors_close(&w.file);
    test_tempdir_remove(tmp);
}

/* Directories with fewer bits a number: every matrix is the nearest of its type, and the file opens as any other. */
static void directories_in_fewer_bits(void **state) {
    (void)state;
    static const tl_dtype types[] = {TL_BF16, TL_F16, TL_F8_E4M3, TL_F8_E5M2};
    char tmp[200], dir[300], out[300];
    tl_error e;
    test_tempdir(tmp, sizeof tmp);
    tl_model *m = open_model(vector_dir("qwen3_moe", dir));
    for (int t = 0; t < 4; t++) {
        snprintf(out, sizeof out, "%s/%d", tmp, t);
        assert_ok(model_save_as(m, out, types[t], &e), &e);
        tl_model *again = open_model(out);
        for (size_t i = 0; i < m->params.n; i++) {
            const model_param *q = &m->params.list[i];
            const float *a = m->flat + q->offset, *b = again->flat + q->offset;
            for (int64_t k = 0; k < (q->rows ? q->rows * q->cols : q->cols); k++) {
                float want = a[k];
                uint8_t bytes[4];
                if (q->rows) quantize_encode(types[t], &a[k], 1, bytes), quantize_decode(types[t], bytes, 1, &want);
                assert_true(b[k] == want && fabsf(want - a[k]) <= 0.126f * fabsf(a[k]) + 0.001f);
            }
        }
        model_close(again);
    }
    model_close(m);
    test_tempdir_remove(tmp);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_are_those_of_transformers),
        cmocka_unit_test(forms_keep_the_model),
        cmocka_unit_test(several_tokens_end_a_text),
        cmocka_unit_test(directories_in_fewer_bits),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
