#include "cpu/gated/gated_body.h"
