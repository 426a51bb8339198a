/* The report of a study in markdown, in English and in Chinese: claims with their verdicts, tables, pictures, and how
 * to measure it again. */
#include "study/report.h"

#include "base/file.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PLOTS = 16, ORIGINS = 16 };

typedef struct page {
    const tl_allocator *alloc;
    const study *of;
    const study_results *r;
    const char *out;
    bool quick, zh;
    const bool *drawn;
    str text;
} page;

static const char *in(const page *p, study_text t) {
    return p->zh ? t.zh : t.en;
}

/* ---- numbers --------------------------------------------------------------------------------- */

report_number report_mean(const study *s, const study_results *r, bool quick, const char *where, const char *more,
                          const char *metric) {
    study_cell cell[STUDY_CELLS];
    char key[STUDY_KEY];
    double x[STUDY_SEEDS], sum = 0, square = 0;
    size_t cells = study_cells(s, quick, cell);
    report_number out = {(double)NAN, 0, 0};
    for (uint64_t seed = 1; seed <= STUDY_SEEDS; seed++) {
        double of_seed = 0;
        int n = 0;
        for (size_t i = 0; i < cells; i++) {
            if (!study_selects(where, &cell[i]) || !study_selects(more, &cell[i])) continue;
            study_cell_key(&cell[i], key);
            const json_t *line = study_results_find(r, key, seed);
            double v = line ? study_line_value(line, metric) : (double)NAN;
            if (!line || (isnan(v) && !json_object_get(json_object_get(line, "values"), metric))) continue;
            of_seed += v;
            n++;
        }
        if (n) x[out.n++] = of_seed / n;
    }
    for (int i = 0; i < out.n; i++) sum += x[i];
    if (out.n) out.mean = sum / out.n;
    for (int i = 0; i < out.n; i++) square += (x[i] - out.mean) * (x[i] - out.mean);
    if (out.n > 1) out.sd = sqrt(square / (out.n - 1));
    return out;
}

static void put_number(page *p, const study_metric *m, report_number v) {
    double scale = m ? m->scale : 1;
    int digits = m ? m->digits : 4;
    if (!v.n) {
        str_adds(&p->text, "");
    } else if (!isfinite(v.mean)) {
        str_adds(&p->text, p->zh ? "发散" : "diverged");
    } else if (v.n > 1 && !(m && m->exact)) {
        str_addf(&p->text, "%.*f ± %.*f", digits, v.mean * scale, digits, v.sd * scale);
    } else {
        str_addf(&p->text, "%.*f", digits, v.mean * scale);
    }
}

/* ---- tables ---------------------------------------------------------------------------------- */

static const study_factor *factor_of(const study *s, const char *name) {
    for (int f = 0; name && f < STUDY_FACTORS && s->factor[f].name; f++)
        if (strcmp(s->factor[f].name, name) == 0) return &s->factor[f];
    return NULL;
}

static void table_head(page *p, const study_table *t, const study_factor *row, const study_factor *col) {
    int n = 0;
    str_addf(&p->text, "\n**%s**\n\n| %s |", in(p, t->title), in(p, row->label));
    if (col) {
        for (; n < STUDY_LEVELS && col->level[n]; n++) str_addf(&p->text, " %s |", col->level[n]);
    } else {
        for (; n < STUDY_COLUMNS && t->metric[n]; n++) {
            const study_metric *m = study_metric_find(p->of, t->metric[n]);
            str_addf(&p->text, " %s |", m ? in(p, m->label) : t->metric[n]);
        }
    }
    str_adds(&p->text, "\n|---|");
    for (int i = 0; i < n; i++) str_adds(&p->text, "---:|");
    str_adds(&p->text, "\n");
}

/* One row; false and nothing written if none of its cells is measured. */
static bool table_row(page *p, const study_table *t, const study_factor *row, const char *level,
                      const study_factor *col) {
    size_t begin = p->text.len;
    bool any = false;
    str_addf(&p->text, "| %s |", level);
    for (int i = 0; i < (col ? (int)STUDY_LEVELS : (int)STUDY_COLUMNS); i++) {
        char more[2 * STUDY_KEY];
        const char *metric = t->metric[col ? 0 : i];
        if (col ? !col->level[i] : !metric) break;
        int n = snprintf(more, sizeof more, "%s=%s", row->name, level);
        if (col) snprintf(more + n, sizeof more - (size_t)n, " %s=%s", col->name, col->level[i]);
        report_number v = report_mean(p->of, p->r, p->quick, t->where, more, metric);
        any |= v.n > 0;
        str_adds(&p->text, " ");
        put_number(p, study_metric_find(p->of, metric), v);
        str_adds(&p->text, " |");
    }
    str_adds(&p->text, "\n");
    if (!any && !p->text.failed) p->text.len = begin;
    return any;
}

static void tables(page *p) {
    for (const study_table *t = p->of->table; t && t->title.en; t++) {
        const study_factor *row = factor_of(p->of, t->row), *col = factor_of(p->of, t->col);
        size_t begin = p->text.len;
        bool any = false;
        if (!row) continue;
        table_head(p, t, row, col);
        for (int i = 0; i < STUDY_LEVELS && row->level[i]; i++) any |= table_row(p, t, row, row->level[i], col);
        if (!any && !p->text.failed) p->text.len = begin;
    }
    if (p->text.data && !p->text.failed) p->text.data[p->text.len] = 0;
}

/* ---- claims ---------------------------------------------------------------------------------- */

static void bound(page *p, const claim *c, bool difference) {
    static const char *const sign[] = {"<", ">", "<", "<", ">"};
    const char *what = difference ? (c->test == DIFF_WITHIN ? "\\|a - b\\|" : "a - b") : "a / b";
    if (!*c->b) what = c->test == DIFF_WITHIN ? "\\|a\\|" : "a";
    str_addf(&p->text, "%s %s %g", what, sign[c->test], c->bound);
}

static void claim_row(page *p, const claim *c) {
    claim_result v;
    bool difference = c->test <= DIFF_WITHIN;
    claim_judge(c, p->of, p->r, p->quick, &v);
    str_addf(&p->text, "| `%s` | %s (%s) | ", c->id, in(p, c->says), c->source);
    bound(p, c, difference);
    str_addf(&p->text, " | **%s**", claim_verdict_name(v.verdict, p->zh));
    if (v.verdict != CLAIM_OPEN && isfinite(v.effect))
        str_addf(&p->text, " | %.4g ± %.2g | %d |\n", v.effect, v.half, v.seeds);
    else
        str_adds(&p->text, " | | |\n");
}

static const char *claims_head(bool zh) {
    return zh ? "| 编号 | 断言（出处） | 判据 | 结论 | 效应 ± 95 % 区间的一半 | 种子数 |\n|---|---|---|---|---|---|\n"
              : "| claim | what it says (who says it) | test | verdict | effect ± half of its 95 % interval | seeds |\n"
                "|---|---|---|---|---|---|\n";
}

static bool claims_of(page *p) {
    bool any = false;
    for (size_t i = 0; claim_at(i); i++) {
        const claim *c = claim_at(i);
        if (strcmp(c->study, p->of->name) != 0) continue;
        if (!any) str_adds(&p->text, claims_head(p->zh));
        any = true;
        claim_row(p, c);
    }
    return any;
}

static void where_of(page *p) {
    str_adds(&p->text, p->zh ? "\na 与 b：\n\n" : "\nWhat is compared:\n\n");
    for (size_t i = 0; claim_at(i); i++) {
        const claim *c = claim_at(i);
        if (strcmp(c->study, p->of->name) != 0) continue;
        str_addf(&p->text, "- `%s`: %s, a = `%s`", c->id, c->metric, c->a);
        if (*c->b) str_addf(&p->text, ", b = `%s`", c->b);
        str_adds(&p->text, "\n");
    }
}

/* ---- how it was made ------------------------------------------------------------------------- */

static void origins(page *p) {
    char seen[ORIGINS][256];
    size_t n = 0;
    double seconds = 0;
    for (size_t i = 0; i < p->r->n; i++) {
        const json_t *o = p->r->line[i];
        const char *machine = json_string_value(json_object_get(o, "machine"));
        const char *date = json_string_value(json_object_get(o, "date"));
        char line[256];
        bool old = false;
        seconds += json_number_value(json_object_get(o, "seconds"));
        snprintf(line, sizeof line, "%s, %s", date ? date : "?", machine ? machine : "?");
        for (size_t k = 0; k < n; k++) old |= strcmp(seen[k], line) == 0;
        if (!old && n < ORIGINS) memcpy(seen[n++], line, sizeof line);
    }
    str_addf(&p->text,
             p->zh ? "\n已测 %zu 个单元（格点 × 种子），共 %.0f 分钟：\n\n"
                   : "\n%zu cells (points of the grid, times seeds), %.0f minutes in all:\n\n",
             p->r->n, seconds / 60);
    for (size_t k = 0; k < n; k++) str_addf(&p->text, "- %s\n", seen[k]);
    if (p->r->broken)
        str_addf(&p->text,
                 p->zh ? "\n%zu 行结果无法读取，已略过。\n"
                       : "\n%zu lines of results cannot be read and were passed over.\n",
                 p->r->broken);
}

/* Cells of the grid that no seed has: not run yet, or not there (a part that does not exist, or does not go together).
 */
static void missing(page *p) {
    study_cell cell[STUDY_CELLS];
    char key[STUDY_KEY];
    size_t cells = study_cells(p->of, p->quick, cell), n = 0;
    for (size_t i = 0; i < cells; i++) {
        bool there = false;
        study_cell_key(&cell[i], key);
        for (uint64_t seed = 1; seed <= STUDY_SEEDS && !there; seed++)
            there = study_results_find(p->r, key, seed) != NULL;
        if (there) continue;
        str_addf(&p->text, "%s`%s`", n++ ? ", " : p->zh ? "\n尚无结果：" : "\nWithout results: ", key);
    }
    if (n) str_adds(&p->text, p->zh ? "。\n" : ".\n");
}

static void how(page *p) {
    const char *quick = p->quick ? " --scale quick" : "", *text = p->of->corpus == CORPUS_CHARS ? " --text FILE" : "";
    int most = 0;
    for (size_t i = 0; i < p->r->n; i++) {
        int seed = (int)json_integer_value(json_object_get(p->r->line[i], "seed"));
        if (seed > most) most = seed;
    }
    str_adds(&p->text, p->zh ? "\n## 如何重做\n\n```\n" : "\n## How to measure it again\n\n```\n");
    str_addf(&p->text, "tilia study run %s --seeds %d%s%s --threads 1 --out DIR\ntilia study report --out DIR\n```\n",
             p->of->name, most ? most : p->of->seeds, quick, text);
    origins(p);
    missing(p);
    str_adds(
        &p->text,
        p->zh ? "\n± 为各种子间的标准差。判据用同种子配对之差（或比）的 95 % 学生 t "
                "区间：区间全部满足判据为“支持”，全部不满足"
                "为“不支持”，否则“未定”。\n"
              : "\n± is the standard deviation over seeds. A claim is judged by the 95 % interval (Student's t) of the "
                "differences, or ratios, between equal seeds: supported if all of the interval passes the test, "
                "contradicted if none of it does, else undecided.\n");
}

/* ---- pages ----------------------------------------------------------------------------------- */

static void pictures(page *p) {
    for (size_t i = 0; p->of->plot && p->of->plot[i].file; i++)
        if (p->drawn[i])
            str_addf(&p->text, "\n![%s](%s%s-%s.svg)\n", p->of->plot[i].title, p->of->name, p->quick ? "-quick" : "",
                     p->of->plot[i].file);
}

static tl_status finish(page *p, const char *path, tl_error *e) {
    tl_status s = p->text.failed ? error_set(e, TL_NOMEM, "no memory for a report")
                                 : file_write(p->alloc, path, p->text.data, p->text.len, e);
    str_fini(&p->text);
    return s;
}

static tl_status write_page(page *p, tl_error *e) {
    char path[1024];
    str_init(&p->text, p->alloc);
    str_addf(&p->text, "# %s\n\n%s\n\n", in(p, p->of->title), in(p, p->of->about));
    if (p->quick)
        str_adds(&p->text, p->zh ? "**快速规模：只说明能运行。**\n\n"
                                 : "**Quick scale: it shows that things run, not more.**\n\n");
    bool any = claims_of(p);
    tables(p);
    pictures(p);
    if (any) where_of(p);
    how(p);
    TRY(study_path(p->out, p->of, p->quick, p->zh ? ".zh-CN.md" : ".md", path, sizeof path, e));
    return finish(p, path, e);
}

static tl_status results_of(const tl_allocator *a, const study *s, const char *out, bool quick, study_results *r,
                            tl_error *e) {
    char path[1024];
    TRY(study_path(out, s, quick, ".jsonl", path, sizeof path, e));
    return study_results_read(a, path, r, e);
}

tl_status study_report(const tl_allocator *a, const study *s, const char *out, bool quick, tl_error *e) {
    study_results r;
    bool drawn[PLOTS] = {false};
    TRY(results_of(a, s, out, quick, &r, e));
    tl_status st = r.n ? report_plots(a, s, &r, out, quick, drawn, e)
                       : error_set(e, TL_NOTFOUND, "there are no results of the study \"%s\" in %s", s->name, out);
    for (int zh = 0; zh < 2 && st == TL_OK; zh++) {
        page p = {.alloc = a, .of = s, .r = &r, .out = out, .quick = quick, .zh = zh == 1, .drawn = drawn};
        st = write_page(&p, e);
    }
    study_results_free(&r);
    return st;
}

/* ---- the index ------------------------------------------------------------------------------- */

static tl_status index_study(page *p, const study *s, tl_error *e) {
    study_results r;
    TRY(results_of(p->alloc, s, p->out, p->quick, &r, e));
    p->of = s;
    p->r = &r;
    if (r.n)
        str_addf(&p->text, "\n## [%s](%s%s%s)\n\n", in(p, s->title), s->name, p->quick ? "-quick" : "",
                 p->zh ? ".zh-CN.md" : ".md");
    else
        str_addf(&p->text, "\n## %s\n\n%s\n\n", in(p, s->title), p->zh ? "尚未测量。" : "Not measured yet.");
    claims_of(p);
    study_results_free(&r);
    return TL_OK;
}

static const char *intro(bool zh) {
    return zh ? "# "
                "断言与测量\n\n关于注意力、位置编码、归一化的文章里有许多没有出处的断言。这里每条断言是一行，由一个可重"
                "复的实验检验；"
                "结论由效应与各种子间的波动比较得出，“未定”就是“未定”。模型很小（十万级参数，数十万词元）：结论只对此规"
                "模成立。\n\n"
                "`tilia study list` 列出断言，`tilia study run 名称` 测量（可随时中断再继续），`tilia study report` "
                "写出本页。\n"
              : "# Claims, measured\n\nArticles about attention, positions and norms are full of claims without a "
                "source. Here a "
                "claim is a row, tested by an experiment that anyone can repeat; its verdict weighs the effect against "
                "the "
                "spread over seeds, and undecided means undecided. The models are small (some 100,000 parameters, some "
                "100,000 tokens): what is said holds at that size.\n\n`tilia study list` shows the claims, `tilia "
                "study run "
                "NAME` measures (interrupt it whenever you like), `tilia study report` writes these pages.\n";
}

tl_status study_index(const tl_allocator *a, const char *out, bool quick, tl_error *e) {
    TRY(file_mkdirs(out, e));
    for (int zh = 0; zh < 2; zh++) {
        page p = {.alloc = a, .out = out, .quick = quick, .zh = zh == 1};
        char path[1024];
        str_init(&p.text, a);
        str_adds(&p.text, intro(p.zh));
        tl_status s = TL_OK;
        for (size_t i = 0; study_at(i) && s == TL_OK; i++) s = index_study(&p, study_at(i), e);
        if (s == TL_OK) s = file_join(path, sizeof path, out, zh ? "README.zh-CN.md" : "README.md", e);
        if (s != TL_OK) {
            str_fini(&p.text);
            return s;
        }
        TRY(finish(&p, path, e));
    }
    return TL_OK;
}
