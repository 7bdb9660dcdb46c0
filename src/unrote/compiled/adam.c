/* An update of Adam, each element's in one go; models/optimizers.py says which and calls it. */

#include <stdint.h>
#include <tgmath.h>

typedef REAL real;
typedef int64_t i64;
enum { BLOCK = 1 << 14 };

struct adam {
  i64 members, size;                  /* elements of a member */
  real *p, *mean, *square;            /* (members, size) */
  const real *gradient;               /* (members, size) */
  const real *rate, *decay;           /* (members) */
  i64 decoupled;
  double beta1, beta2, epsilon, correction1, correction2; /* 1 - beta^step */
  i64 threads;
};

static void update(const struct adam *s, i64 member, i64 start, i64 end) {
  real *restrict p = s->p + member * s->size, *restrict mean = s->mean + member * s->size;
  real *restrict square = s->square + member * s->size;
  const real *restrict gradient = s->gradient + member * s->size;
  real rate = s->rate[member] / s->correction1, root = 1 / sqrt(s->correction2), epsilon = s->epsilon;
  real penalty = s->decoupled ? 0 : s->decay[member];
  real kept = s->decoupled ? 1 - s->rate[member] * s->decay[member] : 1;
  real fresh1 = 1 - s->beta1, beta2 = s->beta2, fresh2 = 1 - s->beta2;
  for (i64 j = start; j < end; j++) {
    real g = gradient[j] + penalty * p[j];
    mean[j] += fresh1 * (g - mean[j]);
    square[j] = beta2 * square[j] + fresh2 * g * g;
    p[j] = kept * p[j] - rate * mean[j] / (sqrt(square[j]) * root + epsilon);
  }
}

void adam(const struct adam *s) {
  i64 blocks = (s->size + BLOCK - 1) / BLOCK;
#pragma omp parallel for num_threads(s->threads) if (s->threads > 1) schedule(static)
  for (i64 k = 0; k < s->members * blocks; k++) {
    i64 start = k % blocks * BLOCK, end = start + BLOCK < s->size ? start + BLOCK : s->size;
    update(s, k / blocks, start, end);
  }
}
