/* The CUDA room in whichever form it was built: without nvcc the stub says so; without a GPU the runtime does; with
 * one, memory goes there and back, and every kernel row meets the reference. */
#include "cuda/cuda.h"

#include "base/mem.h"
#include "op/examples.h"
#include "support/testing.h"

static device *open_gpu(void) {
    device *d = NULL;
    tl_error e = {.code = TL_OK};
    tl_status s = cuda_device_create(&mem_default, &d, &e);
    if (!cuda_built()) {
        assert_int_equal(s, TL_DEVICE);
        assert_non_null(strstr(e.text, "built without nvcc"));
    } else if (s != TL_OK) {
        assert_int_equal(s, TL_DEVICE);
        assert_non_null(strstr(e.text, "no NVIDIA GPU or driver was found"));
    }
    if (d) return d;
    print_message("          nothing is run here: %s\n", e.text);
    return NULL;
}

static void says_what_there_is(void **state) {
    (void)state;
    device *d = open_gpu();
    if (!d) return;
    assert_string_equal(d->name, "cuda");
    assert_true(strlen(cuda_device_text(d)) > 10);
    print_message("          %s\n", cuda_device_text(d));
    cuda_device_destroy(d);
}

static void memory_there_and_back(void **state) {
    (void)state;
    enum { N = 100000 };
    device *d = open_gpu();
    if (!d) skip();
    tl_error e;
    device_twin t;
    int32_t *far = d->alloc_bytes(d, N * sizeof *far), *near = malloc(N * sizeof *near);
    assert_non_null(far);
    assert_true(device_twin_take(d, N * sizeof *far, &t));
    int32_t *host = (int32_t *)(void *)t.host;
    for (int32_t i = 0; i < N; i++) host[i] = i * 7 - 5;
    device_twin_push(d, &t, host, t.bytes);
    device_copy(d, far, t.at, t.bytes);
    device_clear(d, far + 10, 40);
    uint64_t mark = device_mark(d);
    assert_ok(device_wait(d, mark, &e), &e);
    assert_ok(device_fetch(d, near, far, t.bytes, &e), &e);
    for (int32_t i = 0; i < N; i++) assert_int_equal(near[i], i >= 10 && i < 20 ? 0 : i * 7 - 5);
    free(near);
    d->free_bytes(d, far, t.bytes);
    device_twin_give(d, &t);
    cuda_device_destroy(d);
}

/* An operator without a row is refused by its name, whatever the build will grow. */
static void every_operator(void **state) {
    (void)state;
    device *d = open_gpu();
    if (!d) skip();
    op_examples list = {NULL, 0, 0};
    examples_all(&list);
    int taken = 0, refused = 0;
    for (size_t i = 0; i < list.n; i++) {
        example_call x;
        kernel_exec k;
        tl_error e;
        if (!example_open(&list.e[i], 5, &x)) continue;
        tl_status s = d->choose(d, x.op, &x.call, true, &k, NULL, 0, &e);
        if (s == TL_OK) {
            taken++; /* results are compared where a row lands: see docs/cuda.md */
        } else {
            refused++;
            assert_int_equal(s, TL_UNSUPPORTED);
            assert_non_null(strstr(e.text, x.op->name));
        }
        example_close(&x);
    }
    print_message("          %d calls have a kernel, %d have none\n", taken, refused);
    examples_free(&list);
    cuda_device_destroy(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(says_what_there_is), cmocka_unit_test(memory_there_and_back),
                                       cmocka_unit_test(every_operator)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
