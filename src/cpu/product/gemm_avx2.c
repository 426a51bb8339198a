#include "cpu/product/gemm_body.h"
