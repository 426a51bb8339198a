/* Arithmetic of windows: how tensors lie in wider buffers. */
#ifndef GRAPH_VIEW_H
#define GRAPH_VIEW_H

#include "tensor/tensor.h"

/* Bytes from the start of a tensor to its element `elements`. */
size_t view_bytes(tl_dtype t, int64_t elements);
/* Bytes from the first element to behind the last. */
size_t view_extent(const tl_desc *d);
/* Do two windows of one buffer, at these byte offsets, share a byte? May answer yes where they interleave in a way that
 * it does not see through; never no where they do. */
bool view_overlap(size_t at_x, const tl_desc *x, size_t at_y, const tl_desc *y);

#endif
