/* safetensors: the header's rules, then every byte a tensor promises. */
#include "format/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    char path[64];
    safetensors s;
    tl_error e;
    int fd = memfd_create("fuzz", 0);
    if (fd < 0 || write(fd, data, n) != (ssize_t)n) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (safetensors_open(&mem_default, path, &s, &e) == TL_OK) {
        volatile uint8_t sum = 0;
        for (size_t i = 0; i < s.n; i++) {
            if (safetensors_find(&s, s.list[i].name) != &s.list[i]) abort();
            for (size_t k = 0; k < s.list[i].bytes; k++) sum = (uint8_t)(sum + s.list[i].data[k]);
            float *x = s.list[i].count <= (int64_t)n ? malloc((size_t)s.list[i].count * 4 + 1) : NULL;
            if (x) (void)safetensors_to_f32(&s.list[i], x, &e);
            free(x);
        }
        safetensors_close(&s);
    } else if (!e.text[0]) {
        abort();
    }
    close(fd);
    return 0;
}
