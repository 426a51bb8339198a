/* The tables of studies and claims; cells of a grid and the selectors that name them. */
#include "study/study.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STUDY(name) extern const study study_##name;
#include "study/studies.def"
#undef STUDY

static const study *const studies[] = {
#define STUDY(name) &study_##name,
#include "study/studies.def"
#undef STUDY
};

static const claim claims[] = {
#define CLAIM(id, study, metric, a, b, test, bound, en, zh, source)                                                    \
    {#id, #study, metric, a, b, test, bound, {en, zh}, source},
#include "study/claims.def"
#undef CLAIM
};

const study *study_at(size_t i) {
    return i < sizeof studies / sizeof *studies ? studies[i] : NULL;
}

const study *study_find(const char *name) {
    for (size_t i = 0; study_at(i); i++)
        if (strcmp(studies[i]->name, name) == 0) return studies[i];
    return NULL;
}

const claim *claim_at(size_t i) {
    return i < sizeof claims / sizeof *claims ? &claims[i] : NULL;
}

const claim *claim_find(const char *id) {
    for (size_t i = 0; claim_at(i); i++)
        if (strcmp(claims[i].id, id) == 0) return &claims[i];
    return NULL;
}

/* ---- cells ----------------------------------------------------------------------------------- */

const char *study_level(const study_cell *c, const char *factor) {
    for (int f = 0; f < STUDY_FACTORS && c->of->factor[f].name; f++)
        if (strcmp(c->of->factor[f].name, factor) == 0) return c->level[f];
    return "";
}

bool study_level_is(const study_cell *c, const char *factor, const char *level) {
    return strcmp(study_level(c, factor), level) == 0;
}

int64_t study_level_int(const study_cell *c, const char *factor) {
    return strtoll(study_level(c, factor), NULL, 10);
}

tl_status study_row(const study_cell *c, const char *factor, const void *rows, size_t n, size_t size, size_t *at,
                    tl_error *e) {
    const char *level = study_level(c, factor);
    for (*at = 0; *at < n; ++*at) {
        const char *name;
        memcpy(&name, (const char *)rows + *at * size, sizeof name);
        if (strcmp(name, level) == 0) return TL_OK;
    }
    return error_set(e, TL_UNSUPPORTED, "no %s \"%s\"", factor, level);
}

void study_steps(study_setup *s, const study_cell *c, int64_t context, int64_t rows, double lr, int64_t warm,
                 int64_t steps) {
    s->train.context = context;
    s->train.rows = rows;
    s->train.schedule = (schedule){TL_SCHEDULE_COSINE, lr, lr / 10, c->quick && warm ? 2 : warm, c->quick ? 20 : steps};
}

void study_lengths(study_setup *s, const study_cell *c, const int64_t *lengths) {
    for (size_t k = 0; lengths[k]; k++) s->transfer[k] = c->quick && lengths[k] > 512 ? 0 : lengths[k];
}

void study_cell_key(const study_cell *c, char key[STUDY_KEY]) {
    size_t n = 0;
    key[0] = 0;
    for (int f = 0; f < STUDY_FACTORS && c->of->factor[f].name && n < STUDY_KEY; f++)
        n += (size_t)snprintf(key + n, STUDY_KEY - n, "%s%s=%s", f ? " " : "", c->of->factor[f].name, c->level[f]);
}

static size_t levels(const study_factor *f) {
    size_t n = 0;
    while (n < STUDY_LEVELS && f->level[n]) n++;
    return n;
}

size_t study_cells(const study *s, bool quick, study_cell cell[STUDY_CELLS]) {
    size_t total = 1, factors = 0;
    for (; factors < STUDY_FACTORS && s->factor[factors].name; factors++) total *= levels(&s->factor[factors]);
    if (total > STUDY_CELLS) total = STUDY_CELLS;
    for (size_t i = 0; i < total; i++) {
        size_t rest = i;
        cell[i] = (study_cell){.of = s, .quick = quick};
        for (size_t f = factors; f-- > 0;) {
            size_t n = levels(&s->factor[f]);
            cell[i].level[f] = s->factor[f].level[rest % n];
            rest /= n;
        }
    }
    return total;
}

/* ---- selectors ------------------------------------------------------------------------------- */

/* The next "factor=level|level" of a selector. */
static bool next_part(const char **at, char *factor, char *list, size_t size) {
    while (**at == ' ') ++*at;
    if (!**at) return false;
    size_t n = strcspn(*at, " ");
    const char *eq = memchr(*at, '=', n);
    size_t name = eq ? (size_t)(eq - *at) : n, rest = eq ? n - name - 1 : 0;
    snprintf(factor, size, "%.*s", (int)name, *at);
    snprintf(list, size, "%.*s", (int)rest, eq ? eq + 1 : "");
    *at += n;
    return true;
}

static bool in_list(const char *list, const char *level) {
    size_t n = strlen(level);
    for (const char *p = list;; p++) {
        size_t k = strcspn(p, "|");
        if (k == n && memcmp(p, level, n) == 0) return true;
        p += k;
        if (!*p) return false;
    }
}

bool study_selects(const char *selector, const study_cell *c) {
    char factor[STUDY_KEY], list[STUDY_KEY];
    for (const char *at = selector ? selector : ""; next_part(&at, factor, list, sizeof list);)
        if (!in_list(list, study_level(c, factor))) return false;
    return true;
}

static const study_factor *find_factor(const study *s, const char *name) {
    for (int f = 0; f < STUDY_FACTORS && s->factor[f].name; f++)
        if (strcmp(s->factor[f].name, name) == 0) return &s->factor[f];
    return NULL;
}

static bool has_level(const study_factor *f, const char *p, size_t n) {
    for (size_t i = 0; i < levels(f); i++)
        if (strlen(f->level[i]) == n && memcmp(f->level[i], p, n) == 0) return true;
    return false;
}

tl_status study_selector_check(const study *s, const char *selector, tl_error *e) {
    char factor[STUDY_KEY], list[STUDY_KEY];
    for (const char *at = selector ? selector : ""; next_part(&at, factor, list, sizeof list);) {
        const study_factor *f = find_factor(s, factor);
        if (!f) return error_set(e, TL_ARG, "the study \"%s\" has no factor \"%s\"", s->name, factor);
        for (const char *p = list;; p++) {
            size_t k = strcspn(p, "|");
            if (!has_level(f, p, k))
                return error_set(e, TL_ARG, "\"%s\" of the study \"%s\" has no level \"%.*s\"", factor, s->name, (int)k,
                                 p);
            p += k;
            if (!*p) break;
        }
    }
    return TL_OK;
}

/* ---- metrics --------------------------------------------------------------------------------- */

/* What every training cell has: train_cell.c. */
static const study_metric common[] = {
    {"val_loss", {"held-out loss, nats a token", "留出损失（奈特/词元）"}, 1, 4, false},
    {"bits_per_byte", {"bits per byte", "每字节比特数"}, 1, 4, false},
    {"above_floor", {"nats above the floor", "高出下限（奈特）"}, 1, 4, false},
    {"train_loss", {"training loss at the end", "训练末段损失"}, 1, 4, false},
    {"train_eval", {"loss on the trained-on text", "训练文本上的损失"}, 1, 4, false},
    {"gap", {"held-out minus trained-on loss", "留出损失减训练文本损失"}, 1, 4, false},
    {"cpu_us", {"processor time, us a token", "处理器时间（微秒/词元）"}, 1, 1, false},
    {"params", {"parameters, thousands", "参数（千）"}, 1e-3, 0, true},
    {"tokens", {"tokens trained on, thousands", "训练词元（千）"}, 1e-3, 0, true},
    {"mflop", {"MFLOP a token, forward and backward", "每词元 MFLOP（前向与反向）"}, 1, 2, true},
    {"train_mb", {"memory of training, MB", "训练内存（MB）"}, 1, 1, true},
    {"state_kb", {"decoding state at the context's end, kB", "解码状态（上下文末，kB）"}, 1, 1, true},
    {"diverged", {"diverged (1: yes)", "发散（1 为是）"}, 1, 0, false},
    {"norm_max", {"largest gradient norm", "最大梯度范数"}, 1, 2, false},
};

const study_metric *study_metric_find(const study *s, const char *name) {
    for (const study_metric *m = s->metric; m && m->name; m++)
        if (strcmp(m->name, name) == 0) return m;
    for (size_t i = 0; i < sizeof common / sizeof *common; i++)
        if (strcmp(common[i].name, name) == 0) return &common[i];
    return NULL;
}
