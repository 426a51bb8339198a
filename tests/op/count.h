/* A number that counts what is done to it: additions, subtractions and multiplications as flops; divisions and
 * functions as special; comparisons, signs and conversions as nothing. */
#ifndef TESTS_OP_COUNT_H
#define TESTS_OP_COUNT_H

#include <cmath>

struct count_ops {
    double flops, special;
};
static count_ops counted;

class count_real {
    double v;

  public:
    count_real() : v(0) {}
    template <class T> explicit count_real(T x) : v(static_cast<double>(x)) {}
    explicit operator double() const {
        return v;
    }
    explicit operator float() const {
        return static_cast<float>(v);
    }
    explicit operator int64_t() const {
        return static_cast<int64_t>(v);
    }
    double raw() const {
        return v;
    }
    count_real operator-() const {
        return count_real(-v);
    }
};

static inline count_real operator+(count_real a, count_real b) {
    counted.flops++;
    return count_real(a.raw() + b.raw());
}
static inline count_real operator-(count_real a, count_real b) {
    counted.flops++;
    return count_real(a.raw() - b.raw());
}
static inline count_real operator*(count_real a, count_real b) {
    counted.flops++;
    return count_real(a.raw() * b.raw());
}
static inline count_real operator/(count_real a, count_real b) {
    counted.special++;
    return count_real(a.raw() / b.raw());
}
static inline count_real &operator+=(count_real &a, count_real b) {
    return a = a + b;
}
static inline count_real &operator-=(count_real &a, count_real b) {
    return a = a - b;
}
static inline count_real &operator*=(count_real &a, count_real b) {
    return a = a * b;
}
static inline count_real &operator/=(count_real &a, count_real b) {
    return a = a / b;
}
static inline bool operator<(count_real a, count_real b) {
    return a.raw() < b.raw();
}
static inline bool operator>(count_real a, count_real b) {
    return a.raw() > b.raw();
}
static inline bool operator<=(count_real a, count_real b) {
    return a.raw() <= b.raw();
}
static inline bool operator>=(count_real a, count_real b) {
    return a.raw() >= b.raw();
}
static inline bool operator==(count_real a, count_real b) {
    return a.raw() == b.raw();
}
static inline bool operator!=(count_real a, count_real b) {
    return a.raw() != b.raw();
}

#define COUNT_FN(name)                                                                                                 \
    static inline count_real count_##name(count_real x) {                                                              \
        counted.special++;                                                                                             \
        return count_real(std::name(x.raw()));                                                                         \
    }
COUNT_FN(sqrt)
COUNT_FN(exp)
COUNT_FN(log)
COUNT_FN(tanh)
COUNT_FN(erf)
COUNT_FN(sin)
COUNT_FN(cos)
#undef COUNT_FN

#endif
