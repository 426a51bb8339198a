#include "cpu/row/row_body.h"
