#include "cpu/product/matvec_body.h"
