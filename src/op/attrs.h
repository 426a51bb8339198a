/* Attributes of the built-in operators: public, since whoever calls tl_eval or tl_apply fills them. */
#ifndef OP_ATTRS_H
#define OP_ATTRS_H

#include "tilia/attrs.h"

#endif
