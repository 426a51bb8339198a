#define PRODUCT_SUM(op) onednn_##op##__avx2
#include "cpu/product/sum_body.h"
