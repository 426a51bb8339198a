#define PRODUCT_SUM(op) onednn_##op##__avx512
#include "cpu/product/sum_body.h"
