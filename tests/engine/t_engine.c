/* The engine: options and environment, instruction-set caps, the pool, what kernels are listed. */
#include "base/mem.h"
#include "cpu/cpu.h"
#include "cpu/pool.h"
#include "engine/engine.h"
#include "engine/typical.h"
#include "support/testing.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

/* ---- creation ------------------------------------------------------------------------------------------ */

static void environment_and_options(void **state) {
    (void)state;
    tl_engine *e;
    tl_error err;
    setenv("TILIA_THREADS", "3", 1);
    setenv("TILIA_ISA", "ref", 1);
    assert_ok(tl_engine_create(NULL, &e, &err), &err);
    assert_int_equal(tl_engine_threads(e), 3);
    assert_string_equal(tl_engine_isa(e), "ref");
    tl_engine_destroy(e);
    tl_engine_options o = {.threads = 2, .isa = "avx2", .device = "cpu"}; /* options win */
    assert_ok(tl_engine_create(&o, &e, &err), &err);
    assert_int_equal(tl_engine_threads(e), 2);
    assert_string_equal(tl_engine_isa(e), isa_probe() & ISA_AVX2 ? "avx2" : "ref");
    tl_engine_destroy(e);
    setenv("TILIA_THREADS", "many", 1);
    assert_fails(TL_ARG, tl_engine_create(NULL, &e, &err), &err);
    assert_non_null(strstr(err.text, "many"));
    assert_null(e);
    unsetenv("TILIA_THREADS");
    setenv("TILIA_ISA", "mmx", 1);
    assert_fails(TL_ARG, tl_engine_create(NULL, &e, &err), &err);
    assert_non_null(strstr(err.text, "mmx"));
    unsetenv("TILIA_ISA");
    o = (tl_engine_options){.threads = -1};
    assert_fails(TL_ARG, tl_engine_create(&o, &e, &err), &err);
    o = (tl_engine_options){.device = "abacus"};
    assert_fails(TL_DEVICE, tl_engine_create(&o, &e, &err), &err);
    assert_ok(tl_engine_create(NULL, &e, &err), &err);
    assert_int_equal(tl_engine_threads(e), pool_cores());
    tl_engine_destroy(e);
    tl_engine_destroy(NULL);
}

static tl_status create_once(const tl_allocator *a, void *user) {
    (void)user;
    tl_engine *e;
    tl_engine_options o = {.allocator = a, .threads = 2};
    tl_status s = tl_engine_create(&o, &e, NULL);
    if (s == TL_OK) tl_engine_destroy(e);
    return s;
}

static void failing_allocations(void **state) {
    (void)state;
    assert_true(test_alloc_sweep(create_once, NULL) >= 3);
}

static void caps(void **state) {
    (void)state;
    uint32_t mask, before = 0;
    static const char *const names[] = {"ref", "avx2", "avx512", "avx512vnni", "avx512bf16", "avx512fp16"};
    for (size_t i = 0; i < 6; i++) { /* each cap allows all that the one before allows, and more */
        assert_true(isa_cap(names[i], &mask));
        assert_int_equal(mask & before, before);
        assert_true(i == 0 || mask != before);
        assert_string_equal(isa_name(mask), names[i]);
        before = mask;
    }
    assert_false(isa_cap("sse9", &mask));
    assert_false(isa_cap(NULL, &mask));
    if (isa_probe() & ISA_AVX512BF16) assert_true(isa_probe() & ISA_AVX512);
    if (isa_probe() & ISA_AVX512) assert_true(isa_probe() & ISA_AVX2);
}

/* ---- the pool -------------------------------------------------------------------------------------------- */

enum { TILES = 97, PHASES = 3 };
typedef struct counted {
    atomic_int done[PHASES][TILES];
    atomic_int late; /* a tile ran before the phase in front of it was over */
    int repeats;
    int workers;
    atomic_int seen_worker[64];
} counted;

static void count_tiles(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    counted *c = t->scratch;
    atomic_fetch_add(&c->seen_worker[worker], 1);
    for (int64_t i = lo; i < hi; i++) {
        int before = phase ? phase - 1 : PHASES - 1, want = (int)t->repeat + (phase ? 1 : 0);
        for (int64_t k = 0; k < t->exec->tiles[before]; k++)
            if (atomic_load(&c->done[before][k]) < want) atomic_fetch_add(&c->late, 1);
        atomic_fetch_add(&c->done[phase][i], 1);
    }
}

static void run_counted(pool *p, counted *c, const int64_t tiles[PHASES], int repeats) {
    memset(c, 0, sizeof *c);
    kernel_exec x = {.name = "count", .run = count_tiles, .phases = PHASES, .repeats = repeats};
    memcpy(x.tiles, tiles, sizeof(int64_t) * PHASES);
    kernel_task t = {.exec = &x, .scratch = c};
    pool_run(p, &t);
    assert_int_equal(atomic_load(&c->late), 0);
    for (int i = 0; i < PHASES; i++)
        for (int64_t k = 0; k < TILES; k++)
            assert_int_equal(atomic_load(&c->done[i][k]), k < tiles[i] ? (repeats ? repeats : 1) : 0);
}

static void tiles_and_barriers(void **state) {
    (void)state;
    static const int threads[] = {1, 2, 3, 8};
    static const int64_t shapes[][PHASES] = {{97, 1, 5}, {1, 1, 1}, {2, 97, 3}, {0, 4, 1}, {8, 8, 8}};
    counted *c = malloc(sizeof *c);
    for (size_t i = 0; i < 4; i++) {
        pool *p;
        tl_error err;
        assert_ok(pool_create(&mem_default, threads[i], &p, &err), &err);
        for (int n = 0; n < 200; n++) run_counted(p, c, shapes[n % 5], n % 4);
        run_counted(p, c, shapes[1], 1); /* single tiles wake nobody */
        for (int w = 1; w < threads[i]; w++) assert_int_equal(atomic_load(&c->seen_worker[w]), 0);
        run_counted(p, c, shapes[0], 1);
        for (int w = 0; w < threads[i]; w++) assert_true(atomic_load(&c->seen_worker[w]) > 0);
        pool_destroy(p);
    }
    free(c);
}

static void *second_caller(void *arg) {
    counted *c = malloc(sizeof *c);
    for (int n = 0; n < 300; n++) run_counted(arg, c, (int64_t[]){20, 3, 9}, 2);
    free(c);
    return NULL;
}

static void two_callers(void **state) {
    (void)state;
    pool *p;
    tl_error err;
    assert_ok(pool_create(&mem_default, 2, &p, &err), &err);
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, second_caller, p), 0);
    second_caller(p);
    pthread_join(t, NULL);
    pool_destroy(p);
}

/* ---- the list ---------------------------------------------------------------------------------------------- */

typedef struct listed {
    int chosen, refs, all;
} listed;

static void count_listed(void *user, const engine_kernel *k) {
    listed *l = user;
    l->all++;
    l->chosen += k->chosen;
    l->refs += !strcmp(k->kernel, "reference");
    assert_true(k->chosen == !k->why[0]);
}

static void kernels_are_listed(void **state) {
    (void)state;
    tl_engine *e;
    tl_error err;
    int views = 0;
    for (int i = 0; i < OP_COUNT; i++) views += (op_table[i].flags & TL_OP_VIEW) != 0;
    for (int pass = 0; pass < 2; pass++) {
        tl_engine_options o = {.threads = 1, .isa = pass ? NULL : "ref"};
        assert_ok(tl_engine_create(&o, &e, &err), &err);
        listed l = {0};
        assert_ok(engine_list_kernels(e, count_listed, &l, &err), &err);
        assert_int_equal(l.chosen, 2 * (OP_COUNT - views)); /* one per operator and dtype */
        assert_int_equal(l.refs, l.chosen);
        assert_int_equal(l.all, l.refs + 2 * (int)kernel_count);
        tl_engine_destroy(e);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(environment_and_options),
        cmocka_unit_test(failing_allocations),
        cmocka_unit_test(caps),
        cmocka_unit_test(tiles_and_barriers),
        cmocka_unit_test(two_callers),
        cmocka_unit_test(kernels_are_listed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
