/* A device with memory of its own, for tests: kernels are the processor's, but its addresses are those of pages that are
 * never mapped, and stand for memory that only the queue knows; and the queue runs when somebody waits for it and not
 * before. So a host that reads or writes device memory dies of it, a kernel that is given host memory aborts, who does
 * not wait reads what was there before, who changes staging too early computes with other numbers, and each copy is
 * counted. */
#ifndef SUPPORT_APART_H
#define SUPPORT_APART_H

#include "engine/engine.h"

typedef struct apart_counts {
    long launches, uploads, downloads, copies, clears, waits; /* waits: those that had something to wait for */
    size_t upload_bytes, download_bytes;
    long blocks; /* of memory there are, staging included */
    size_t live, peak;
} apart_counts;

/* An engine like tl_engine_create's whose device is apart. [owns: caller, tl_engine_destroy] */
tl_status apart_engine(const tl_engine_options *o, tl_engine **out, tl_error *err);
apart_counts *apart_counted(tl_engine *e);
/* The n-th allocation of device memory or staging from now on fails, 0: none. */
void apart_fail_at(tl_engine *e, long n);
/* The next wait fails as a device does that has met an error, and so does every one behind it until this is called
 * with false. */
void apart_break(tl_engine *e, bool broken);

#endif
