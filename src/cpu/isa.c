/* What processor and operating system both allow. A processor may know AVX-512 while the system does not save its
 * registers: CPUID tells the first, XGETBV the second. */
#include "cpu/cpu.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

static uint64_t isa_saved_registers(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

#define BIT(word, n) ((word) >> (n)&1u)

uint32_t isa_probe(void) {
    enum { YMM = 0x06, ZMM = 0xe6 }; /* SSE and AVX state; besides them mask registers and both halves of ZMM */
    uint32_t a, b, c, d, mask = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !BIT(c, 27) || !BIT(c, 28)) return 0; /* OSXSAVE, AVX */
    bool fma = BIT(c, 12), f16c = BIT(c, 29);
    uint64_t saved = isa_saved_registers();
    if ((saved & YMM) != YMM || !fma || !f16c || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    if (!BIT(b, 5)) return 0;
    mask |= ISA_AVX2;
    if ((saved & ZMM) != ZMM) return mask;
    if (!BIT(b, 16) || !BIT(b, 17) || !BIT(b, 30) || !BIT(b, 31)) return mask; /* F, DQ, BW, VL */
    mask |= ISA_AVX512;
    if (BIT(c, 11)) mask |= ISA_AVX512VNNI;
    if (BIT(d, 23)) mask |= ISA_AVX512FP16;
    if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && BIT(a, 5)) mask |= ISA_AVX512BF16;
    return mask;
}
#else
uint32_t isa_probe(void) {
    return 0;
}
#endif

static const struct {
    const char *name;
    uint32_t mask;
} isa_names[] = {
    {"ref", 0},
    {"avx2", ISA_AVX2},
    {"avx512", ISA_AVX2 | ISA_AVX512},
    {"avx512vnni", ISA_AVX2 | ISA_AVX512 | ISA_AVX512VNNI},
    {"avx512bf16", ISA_AVX2 | ISA_AVX512 | ISA_AVX512VNNI | ISA_AVX512BF16},
    {"avx512fp16", ISA_AVX2 | ISA_AVX512 | ISA_AVX512VNNI | ISA_AVX512BF16 | ISA_AVX512FP16},
};

bool isa_cap(const char *name, uint32_t *mask) {
    for (size_t i = 0; name && i < sizeof isa_names / sizeof *isa_names; i++)
        if (!strcmp(isa_names[i].name, name)) return *mask = isa_names[i].mask, true;
    return false;
}

const char *isa_name(uint32_t mask) {
    if (mask & ISA_AVX512FP16) return "avx512fp16";
    if (mask & ISA_AVX512BF16) return "avx512bf16";
    if (mask & ISA_AVX512VNNI) return "avx512vnni";
    if (mask & ISA_AVX512) return "avx512";
    return mask & ISA_AVX2 ? "avx2" : "ref";
}
