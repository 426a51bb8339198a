/* The index over run directories: the one file that knows SQLite. */
#include "runlog/runs.h"
#include "base/file.h"

#include <inttypes.h>
#include <math.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define RUNS_VERSION 2 /* of the tables; another one is thrown away and rebuilt */
#define TEXT_OF_(x)  #x
#define TEXT_OF(x)   TEXT_OF_(x)

static const char runs_tables[] =
    "CREATE TABLE run(id INTEGER PRIMARY KEY, name TEXT UNIQUE, path TEXT, stamp TEXT, changed INTEGER, steps INTEGER,"
    " problem TEXT);"
    "CREATE TABLE metric(run INTEGER, name TEXT, last REAL, low REAL, sum REAL, low_step INTEGER, count INTEGER);"
    "CREATE TABLE option(run INTEGER, key TEXT, value TEXT);"
    "CREATE INDEX metric_run ON metric(run); CREATE INDEX option_run ON option(run);"
    "PRAGMA user_version=" TEXT_OF(RUNS_VERSION) ";";

typedef struct runs_db {
    sqlite3 *db;
    runs *out;
    const char *root;
} runs_db;

static tl_status runs_fail(const runs_db *d, tl_error *e) {
    int code = sqlite3_errcode(d->db);
    tl_status s = code == SQLITE_NOMEM ? TL_NOMEM : code == SQLITE_FULL ? TL_NOSPACE : TL_IO;
    return error_set(e, s, "run index: %s", sqlite3_errmsg(d->db));
}

static tl_status runs_do(const runs_db *d, const char *sql, tl_error *e) {
    return sqlite3_exec(d->db, sql, NULL, NULL, NULL) ? runs_fail(d, e) : TL_OK;
}

/* ---- open, or rebuild ------------------------------------------------------------------------ */

static int runs_user_version(const runs_db *d) {
    sqlite3_stmt *q = NULL;
    int v = -1;
    if (!sqlite3_prepare_v2(d->db, "PRAGMA user_version", -1, &q, NULL) && sqlite3_step(q) == SQLITE_ROW)
        v = sqlite3_column_int(q, 0);
    sqlite3_finalize(q);
    return v;
}

/* Reads every page: damage shows here and not in the middle of a list. */
static bool runs_whole(const runs_db *d) {
    sqlite3_stmt *q = NULL;
    bool ok = !sqlite3_prepare_v2(d->db, "PRAGMA quick_check(1)", -1, &q, NULL) && sqlite3_step(q) == SQLITE_ROW &&
              !strcmp((const char *)sqlite3_column_text(q, 0), "ok");
    sqlite3_finalize(q);
    return ok;
}

/* Opens and makes the tables where they are missing; false if this file cannot serve. */
static bool runs_try(runs_db *d, const char *path) {
    d->db = NULL;
    if (!sqlite3_open_v2(path, &d->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL)) {
        sqlite3_busy_timeout(d->db, 5000);
        int v = runs_user_version(d);
        if (v == 0 && !runs_do(d, "BEGIN IMMEDIATE", NULL)) {
            v = runs_user_version(d); /* another process may have been quicker */
            bool ok = v != 0 || !runs_do(d, runs_tables, NULL);
            if (ok && !runs_do(d, "COMMIT", NULL)) v = runs_user_version(d);
        }
        if (v == RUNS_VERSION && runs_whole(d) && !runs_do(d, "SELECT count(*) FROM run, metric, option WHERE 0", NULL))
            return true;
    }
    sqlite3_close(d->db);
    d->db = NULL;
    return false;
}

static tl_status runs_open_db(runs_db *d, const char *index, tl_error *e) {
    d->out->stored = true;
    if (index && runs_try(d, index)) return TL_OK;
    if (index && file_exists(index) && !file_sys.unlink(index) && runs_try(d, index)) return TL_OK;
    d->out->stored = false; /* a folder we may not write: the index lives in memory this once */
    return runs_try(d, ":memory:") ? TL_OK : error_set(e, TL_NOMEM, "no memory for a run index");
}

/* ---- refresh --------------------------------------------------------------------------------- */

static void runs_stamp_file(const char *path, char *buf, size_t size) {
    struct stat st;
    size_t n = strlen(buf);
    if (stat(path, &st))
        snprintf(buf + n, size - n, "-;");
    else
        snprintf(buf + n, size - n, "%" PRId64 ":%" PRId64 ".%09ld:%" PRIu64 ";", (int64_t)st.st_size,
                 (int64_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (uint64_t)st.st_ino);
}

/* Size, time and inode of both files: changes whenever they do. False: no run directory. */
static bool runs_stamp(const char *path, char buf[200]) {
    char file[1200];
    buf[0] = 0;
    snprintf(file, sizeof file, "%s/run.json", path);
    bool any = file_exists(file);
    runs_stamp_file(file, buf, 200);
    snprintf(file, sizeof file, "%s/metrics.jsonl", path);
    any |= file_exists(file);
    runs_stamp_file(file, buf, 200);
    return any;
}

static bool runs_fresh(const runs_db *d, const char *name, const char *stamp) {
    sqlite3_stmt *q = NULL;
    bool same = false;
    if (!sqlite3_prepare_v2(d->db, "SELECT 1 FROM run WHERE name=?1 AND stamp=?2", -1, &q, NULL)) {
        sqlite3_bind_text(q, 1, name, -1, SQLITE_STATIC);
        sqlite3_bind_text(q, 2, stamp, -1, SQLITE_STATIC);
        same = sqlite3_step(q) == SQLITE_ROW;
    }
    sqlite3_finalize(q);
    return same;
}

static void runs_bind_real(sqlite3_stmt *q, int i, double v) {
    if (isnan(v))
        sqlite3_bind_null(q, i);
    else
        sqlite3_bind_double(q, i, v);
}

static tl_status runs_forget(const runs_db *d, const char *name, tl_error *e) {
    static const char *const sql[] = {"DELETE FROM metric WHERE run IN (SELECT id FROM run WHERE name=?1)",
                                      "DELETE FROM option WHERE run IN (SELECT id FROM run WHERE name=?1)",
                                      "DELETE FROM run WHERE name=?1"};
    for (size_t i = 0; i < 3; i++) {
        sqlite3_stmt *q = NULL;
        bool ok = !sqlite3_prepare_v2(d->db, sql[i], -1, &q, NULL);
        if (ok) sqlite3_bind_text(q, 1, name, -1, SQLITE_STATIC);
        ok = ok && sqlite3_step(q) == SQLITE_DONE;
        sqlite3_finalize(q);
        if (!ok) return runs_fail(d, e);
    }
    return TL_OK;
}

static tl_status runs_store_parts(const runs_db *d, const run_row *r, int64_t id, tl_error *e) {
    sqlite3_stmt *q = NULL;
    bool ok = !sqlite3_prepare_v2(d->db, "INSERT INTO metric VALUES(?1,?2,?3,?4,?5,?6,?7)", -1, &q, NULL);
    for (size_t i = 0; i < r->metrics && ok; i++) {
        const run_metric *m = &r->metric[i];
        sqlite3_bind_int64(q, 1, id);
        sqlite3_bind_text(q, 2, m->name, -1, SQLITE_STATIC);
        runs_bind_real(q, 3, m->last);
        runs_bind_real(q, 4, m->min);
        runs_bind_real(q, 5, m->sum);
        sqlite3_bind_int64(q, 6, m->min_step);
        sqlite3_bind_int64(q, 7, m->count);
        ok = sqlite3_step(q) == SQLITE_DONE && !sqlite3_reset(q);
    }
    sqlite3_finalize(q);
    q = NULL;
    ok = ok && !sqlite3_prepare_v2(d->db, "INSERT INTO option VALUES(?1,?2,?3)", -1, &q, NULL);
    for (size_t i = 0; i < r->options && ok; i++) {
        sqlite3_bind_int64(q, 1, id);
        sqlite3_bind_text(q, 2, r->option[i].key, -1, SQLITE_STATIC);
        sqlite3_bind_text(q, 3, r->option[i].value, -1, SQLITE_STATIC);
        ok = sqlite3_step(q) == SQLITE_DONE && !sqlite3_reset(q);
    }
    sqlite3_finalize(q);
    return ok ? TL_OK : runs_fail(d, e);
}

static tl_status runs_store(const runs_db *d, const run_row *r, const char *name, const char *stamp, tl_error *e) {
    TRY(runs_forget(d, name, e));
    sqlite3_stmt *q = NULL;
    bool ok = !sqlite3_prepare_v2(d->db, "INSERT INTO run VALUES(NULL,?1,?2,?3,?4,?5,?6)", -1, &q, NULL);
    if (ok) {
        sqlite3_bind_text(q, 1, name, -1, SQLITE_STATIC);
        sqlite3_bind_text(q, 2, r->path, -1, SQLITE_STATIC);
        sqlite3_bind_text(q, 3, stamp, -1, SQLITE_STATIC);
        sqlite3_bind_int64(q, 4, r->changed);
        sqlite3_bind_int64(q, 5, r->steps);
        sqlite3_bind_text(q, 6, r->problem, -1, SQLITE_STATIC);
        ok = sqlite3_step(q) == SQLITE_DONE;
    }
    sqlite3_finalize(q);
    return ok ? runs_store_parts(d, r, sqlite3_last_insert_rowid(d->db), e) : runs_fail(d, e);
}

static tl_status runs_refresh_one(const runs_db *d, const char *name, const char *path, const char *stamp,
                                  tl_error *e) {
    arena mem;
    run_row r;
    tl_error why;
    char text[800];
    arena_init(&mem, d->out->mem.alloc);
    error_clear(&why);
    tl_status s = run_read(&mem, path, &r, &why);
    d->out->read++;
    if (s == TL_NOMEM) {
        if (e) *e = why;
    } else {
        if (s) r.problem = tl_error_text(&why, text, sizeof text); /* one broken run does not hide the others */
        r.path = path;
        s = runs_store(d, &r, name, stamp, e);
    }
    arena_fini(&mem);
    return s;
}

static bool runs_is_link(const char *path) {
    struct stat st;
    return lstat(path, &st) || S_ISLNK(st.st_mode);
}

/* Every run under root whose files changed is read again; runs that are gone are forgotten. */
static tl_status runs_refresh(const runs_db *d, char **name, size_t n, tl_error *e) {
    TRY(runs_do(d, "CREATE TEMP TABLE seen(name TEXT PRIMARY KEY)", e));
    for (size_t i = 0; i < n; i++) {
        char path[1024], stamp[200];
        if (snprintf(path, sizeof path, "%s/%s", d->root, name[i]) >= (int)sizeof path) continue;
        if (name[i][0] == '.' || runs_is_link(path) || !file_is_dir(path) || !runs_stamp(path, stamp)) continue;
        if (!runs_fresh(d, name[i], stamp)) TRY(runs_refresh_one(d, name[i], path, stamp, e));
        sqlite3_stmt *q = NULL;
        bool ok = !sqlite3_prepare_v2(d->db, "INSERT OR IGNORE INTO seen VALUES(?1)", -1, &q, NULL);
        if (ok) sqlite3_bind_text(q, 1, name[i], -1, SQLITE_STATIC);
        ok = ok && sqlite3_step(q) == SQLITE_DONE;
        sqlite3_finalize(q);
        if (!ok) return runs_fail(d, e);
    }
    TRY(runs_do(d,
                "DELETE FROM metric WHERE run IN (SELECT id FROM run WHERE name NOT IN seen);"
                "DELETE FROM option WHERE run IN (SELECT id FROM run WHERE name NOT IN seen);"
                "DELETE FROM run WHERE name NOT IN seen",
                e));
    return TL_OK;
}

/* ---- load ------------------------------------------------------------------------------------ */

static const char *runs_text(arena *a, sqlite3_stmt *q, int i) {
    const char *t = (const char *)sqlite3_column_text(q, i);
    return t ? arena_strdup(a, t) : NULL;
}

static double runs_real(sqlite3_stmt *q, int i) {
    return sqlite3_column_type(q, i) == SQLITE_NULL ? (double)NAN : sqlite3_column_double(q, i);
}

static sqlite3_stmt *runs_ask(const runs_db *d, const char *sql, int64_t id) {
    sqlite3_stmt *q = NULL;
    if (sqlite3_prepare_v2(d->db, sql, -1, &q, NULL)) return NULL;
    sqlite3_bind_int64(q, 1, id);
    return q;
}

static size_t runs_count(const runs_db *d, const char *sql, int64_t id) {
    sqlite3_stmt *q = runs_ask(d, sql, id);
    size_t n = q && sqlite3_step(q) == SQLITE_ROW ? (size_t)sqlite3_column_int64(q, 0) : 0;
    sqlite3_finalize(q);
    return n;
}

static bool runs_load_parts(const runs_db *d, run_row *r, int64_t id) {
    arena *a = &d->out->mem;
    size_t n = runs_count(d, "SELECT count(*) FROM metric WHERE run=?1", id);
    run_metric *m = arena_new(a, n, sizeof *m);
    sqlite3_stmt *q =
        runs_ask(d, "SELECT name,last,low,sum,low_step,count FROM metric WHERE run=?1 ORDER BY rowid", id);
    bool ok = m && q;
    for (; ok && r->metrics < n && sqlite3_step(q) == SQLITE_ROW; r->metrics++) {
        m[r->metrics] =
            (run_metric){runs_text(a, q, 0),         runs_real(q, 1),           runs_real(q, 2), runs_real(q, 3),
                         sqlite3_column_int64(q, 4), sqlite3_column_int64(q, 5)};
        ok = m[r->metrics].name != NULL;
    }
    sqlite3_finalize(q);
    r->metric = m;
    n = runs_count(d, "SELECT count(*) FROM option WHERE run=?1", id);
    run_option *o = arena_new(a, n, sizeof *o);
    q = ok && o ? runs_ask(d, "SELECT key,value FROM option WHERE run=?1 ORDER BY rowid", id) : NULL;
    ok = ok && q;
    for (; ok && r->options < n && sqlite3_step(q) == SQLITE_ROW; r->options++) {
        o[r->options] = (run_option){runs_text(a, q, 0), runs_text(a, q, 1)};
        ok = o[r->options].key && o[r->options].value;
    }
    sqlite3_finalize(q);
    r->option = o;
    return ok;
}

static tl_status runs_load(const runs_db *d, tl_error *e) {
    runs *out = d->out;
    size_t n = runs_count(d, "SELECT count(*) FROM run", 0);
    out->row = arena_new(&out->mem, n, sizeof *out->row);
    sqlite3_stmt *q = NULL;
    bool ok = out->row && !sqlite3_prepare_v2(d->db,
                                              "SELECT id,name,path,changed,steps,problem FROM run"
                                              " ORDER BY changed DESC, name",
                                              -1, &q, NULL);
    for (; ok && out->n < n && sqlite3_step(q) == SQLITE_ROW; out->n++) {
        run_row *r = &out->row[out->n];
        *r = (run_row){.name = runs_text(&out->mem, q, 1),
                       .changed = sqlite3_column_int64(q, 3),
                       .steps = sqlite3_column_int64(q, 4),
                       .problem = runs_text(&out->mem, q, 5)};
        if (r->name) r->path = arena_printf(&out->mem, "%s/%s", d->root, r->name);
        ok = r->path && runs_load_parts(d, r, sqlite3_column_int64(q, 0));
    }
    sqlite3_finalize(q);
    return ok ? TL_OK : error_set(e, TL_NOMEM, "no memory for the list of runs");
}

/* The whole refresh is one transaction: another process sees the old index or the new one. */
static tl_status runs_update(const runs_db *d, char **name, size_t n, tl_error *e) {
    TRY(runs_do(d, "BEGIN IMMEDIATE", e));
    tl_status s = runs_refresh(d, name, n, e);
    if (!s) s = runs_load(d, e);
    if (s) {
        runs_do(d, "ROLLBACK", NULL);
        return s;
    }
    return runs_do(d, "COMMIT", e);
}

tl_status runs_open(const tl_allocator *a, const char *root, const char *index, runs *out, tl_error *e) {
    *out = (runs){0};
    arena_init(&out->mem, a);
    runs_db d = {.out = out, .root = root};
    char **name;
    size_t n;
    TRY(file_list(a, root, &name, &n, e));
    tl_status s = runs_open_db(&d, index, e);
    if (!s) s = runs_update(&d, name, n, e);
    sqlite3_close(d.db);
    file_list_free(a, name);
    if (s) runs_close(out);
    return s;
}

void runs_close(runs *r) {
    arena_fini(&r->mem);
    r->row = NULL;
    r->n = 0;
}
