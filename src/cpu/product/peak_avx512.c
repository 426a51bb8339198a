#include "cpu/product/peak_body.h"
