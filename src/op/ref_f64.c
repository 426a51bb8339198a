/* Every reference over double: the oracle, and the kernel of f64 data. */
#define REAL      double
#define REF(name) name##_ref_f64
#define MATH(fn)  fn

#include "op/ref.h"

#include "op/refs.inc"
