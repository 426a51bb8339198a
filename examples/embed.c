/* A program that learns while it runs: it trains a small model on a text, writes with it, saves it, opens it again.
 *
 *     embed TEXTFILE [PROMPT]
 *
 * Everything through <tilia.h>; link with -ltilia. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tilia.h>

static int fail(const tl_error *e) {
    char text[1024];
    fprintf(stderr, "embed: %s\n", tl_error_text(e, text, sizeof text));
    return 1;
}

static bool progress(void *user, const tl_metrics *m) {
    (void)user;
    if (m->step % 20 == 0) fprintf(stderr, "step %lld  loss %.3f\n", (long long)m->step, m->loss);
    return true; /* false would stop the training */
}

static int write_text(tl_model *m, const char *prompt, tl_error *e) {
    tl_session *s;
    tl_piece p = {0};
    tl_session_options o = {.max_tokens = 200, .temperature = 0.8f, .top_p = 0.95f, .seed = 1};
    if (tl_session_create(m, &o, &s, e) != TL_OK) return fail(e);
    int code = tl_session_text(s, prompt, strlen(prompt), e) == TL_OK ? 0 : fail(e);
    fputs(prompt, stdout);
    while (!code && !p.done) {
        if (tl_session_next(s, &p, e) != TL_OK)
            code = fail(e);
        else
            fwrite(p.text, 1, p.size, stdout);
    }
    putchar('\n');
    tl_session_destroy(s);
    return code;
}

int main(int argc, char **argv) {
    static char text[1 << 20];
    FILE *f = argc > 1 ? fopen(argv[1], "rb") : NULL;
    if (!f) return fprintf(stderr, "usage: embed TEXTFILE [PROMPT]\n"), 2;
    size_t n = fread(text, 1, sizeof text, f);
    fclose(f);

    tl_error e = {0};
    tl_engine *engine;
    tl_tokenizer *bytes = NULL;
    tl_model *model = NULL;
    tl_trainer *trainer = NULL;
    tl_trainer_options o = {.steps = 100, .batch_rows = 8, .lr = 3e-3f, .warmup = 10, .seed = 1, .progress = progress};
    if (tl_engine_create(NULL, &engine, &e) != TL_OK) return fail(&e);
    int code = 0;
    if (tl_tokenizer_bytes(engine, &bytes, &e) != TL_OK ||
        tl_model_create(engine, "preset:tiny", bytes, 1, &model, &e) != TL_OK ||
        tl_trainer_create(model, &o, &trainer, &e) != TL_OK || tl_trainer_add_text(trainer, text, n, &e) != TL_OK)
        code = fail(&e);
    else
        fprintf(stderr, "training holds %.1f MB, planned before it was taken\n",
                1e-6 * (double)tl_trainer_bytes(trainer));
    if (!code && tl_trainer_run(trainer, &e) != TL_OK) code = fail(&e);
    if (!code) code = write_text(model, argc > 2 ? argv[2] : "The ", &e);
    if (!code && tl_model_save(model, "embed-model", &e) != TL_OK) code = fail(&e);
    tl_trainer_destroy(trainer);
    tl_model_close(model);
    tl_tokenizer_close(bytes);
    tl_engine_destroy(engine);
    return code;
}
