#include "cpu/product/head_body.h"
