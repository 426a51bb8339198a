/* What the files of the report share. */
#ifndef STUDY_REPORT_H
#define STUDY_REPORT_H

#include "base/str.h"
#include "study/study.h"

/* Mean and standard deviation over seeds of a metric, each seed's value being the mean over the cells that `where` and
 * `more` fit; n seeds had all of them. */
typedef struct report_number {
    double mean, sd;
    int n;
} report_number;
report_number report_mean(const study *s, const study_results *r, bool quick, const char *where, const char *more,
                          const char *metric);
/* Writes the study's pictures; drawn[i] tells which plots had something to show. */
tl_status report_plots(const tl_allocator *a, const study *s, const study_results *r, const char *out, bool quick,
                       bool *drawn, tl_error *e);

#endif
