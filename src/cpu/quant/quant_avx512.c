#include "cpu/quant/quant_body.h"
