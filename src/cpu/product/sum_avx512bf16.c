#define PRODUCT_SUM(op) onednn_##op##__avx512bf16
#include "cpu/product/sum_body.h"
