#include "cpu/experts/experts_body.h"
