#include "train/schedule.h"

#include <math.h>
#include <string.h>

static const char *const names[] = {"cosine", "linear", "constant", "wsd"};

double schedule_lr(const schedule *s, int64_t step) {
    if (step < s->warmup) return s->lr * (double)(step + 1) / (double)(s->warmup + 1);
    if (s->steps <= 0 || s->kind == TL_SCHEDULE_CONSTANT) return s->lr;
    double floor = s->min_lr, span = s->lr - s->min_lr;
    double x = s->steps > s->warmup ? (double)(step - s->warmup) / (double)(s->steps - s->warmup) : 1;
    if (x > 1) x = 1;
    if (s->kind == TL_SCHEDULE_LINEAR) return s->lr - span * x;
    if (s->kind == TL_SCHEDULE_COSINE) return floor + span * 0.5 * (1 + cos(3.14159265358979323846 * x));
    int64_t cool = s->steps * SCHEDULE_COOL_PERCENT / 100, begin = s->steps - cool;
    if (step < begin || cool == 0) return s->lr;
    double y = (double)(step - begin) / (double)cool;
    return floor + span * (1 - sqrt(y < 1 ? y : 1));
}

bool schedule_parse(const char *name, tl_schedule *out) {
    for (int i = 0; i < 4; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (tl_schedule)i;
            return true;
        }
    return false;
}

const char *schedule_name(tl_schedule kind) {
    return (unsigned)kind < 4 ? names[kind] : "?";
}
