/* runlog/plot_cairo: the one file that knows cairo. */
#ifndef RUNLOG_PLOT_CAIRO_H
#define RUNLOG_PLOT_CAIRO_H

#include "runlog/plot.h"

tl_status plot_cairo(const tl_allocator *a, const plot_spec *p, bool svg, const char *path, tl_error *e);

#endif
