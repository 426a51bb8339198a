/* Every reference over float: the last kernel of each operator. */
#define REAL      float
#define REF(name) name##_ref_f32
#define MATH(fn)  fn##f

#include "op/ref.h"

#include "op/refs.inc"
