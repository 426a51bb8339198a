/* tilia bench predict: what tilia devices --measure lets one expect of whole models, beside what they do. */
#include "cli/bench_cli.h"
#include "cli/profile_cli.h"

#include <math.h>

/* The larger models at a batch and context that take a second or two. */
static const struct {
    const char *preset;
    int64_t batch, context;
} models[] = {{"char", 4, 256},       {"stories", 4, 256},       {"gpt2", 1, 256},
              {"flash-char", 4, 256}, {"flash-stories", 4, 256}, {"flash-gpt2", 1, 256}};
enum { MODELS = sizeof models / sizeof *models };

static tl_status predict_one(bench_options *o, size_t i, profile_what what, double *worst, tl_error *e) {
    static const char *const names[] = {"training step", "prompt", "token"};
    profile_options p = {.common = o->common,
                         .preset = o->preset ? o->preset : models[i].preset,
                         .what = what,
                         .batch = o->batch ? o->batch : models[i].batch,
                         .context = o->context ? o->context : models[i].context,
                         .steps = o->steps ? o->steps : 3,
                         .dtype = o->dtype ? o->dtype : TL_F32};
    profile_run r;
    TRY(profile_do(&p, o->engine, &r, e));
    double predicted = 0;
    for (size_t k = 0; k < r.n; k++) predicted += r.row[k].predicted;
    tl_status s =
        r.measured ? TL_OK : error_set(e, TL_NOTFOUND, "nothing to predict from: run tilia devices --measure");
    if (s == TL_OK && o->common.json) {
        bench_json_row(o);
        printf("{\"preset\": \"%s\", \"what\": \"%s\", \"dtype\": \"%s\", \"least\": %.9g, \"median\": %.9g, "
               "\"predicted\": %.9g}",
               p.preset, names[what], tl_dtype_name(p.dtype), r.least, r.whole, predicted);
    } else if (s == TL_OK)
        printf("%-16s %-14s %12.3f %12.3f %12.3f %8.2f\n", p.preset, names[what], 1e3 * predicted, 1e3 * r.least,
               1e3 * r.whole, predicted / r.least);
    if (s == TL_OK) *worst = fmax(*worst, fabs(log(predicted / r.least)));
    fflush(stdout);
    profile_close(&r);
    return s;
}

tl_status bench_predict(bench_options *o, tl_error *e) {
    double worst = 0;
    if (!o->common.json)
        printf("%-16s %-14s %12s %12s %12s %8s\n", "model", "", "predicted", "ms at best", "in the middle", "ratio");
    for (size_t i = 0; i < (o->preset ? 1 : MODELS); i++)
        for (int what = PROFILE_TRAIN; what <= PROFILE_DECODE; what++)
            TRY(predict_one(o, i, (profile_what)what, &worst, e));
    if (!o->common.json) printf("farthest off: a factor of %.2f\n", exp(worst));
    return TL_OK;
}
