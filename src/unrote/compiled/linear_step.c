/* One step of a stack of linear heads: logits, loss, gradient, and SGD's update, without a tensor in between.

       losses[s] = sum_i  share[s,i] * CE(logits[s,i,:] + shift[s,i,:], target[s,i])

   share is an example's weight over the sum of all weights ("mean") or of its class's ("class balanced"), as in
   unrote/supervision.py. Compiled once with REAL as float, once as double; models/linear_step.py calls it.

   Of two classes a softmax sees the difference of the logits alone. So a binary head is multiplied as one column, the
   difference of its two rows; the gradients of the rows are each other's opposite. */

#include <stdint.h>
#include <string.h>
#include <tgmath.h>

typedef REAL real;
typedef int64_t i64;
#define SINGLE (sizeof(real) == 4)
typedef __typeof__(__builtin_choose_expr(SINGLE, (int32_t)0, (int64_t)0)) whole; /* as wide as a real */

/* Products are made in blocks of ROWS x COLUMNS vectors: as many as leave registers for what they are made of. */
#if defined(__AVX512F__)
enum { BYTES = 64, ROWS = 4, COLUMNS = 4 };
#elif defined(__AVX__)
enum { BYTES = 32, ROWS = 4, COLUMNS = 2 };
#elif defined(__aarch64__)
enum { BYTES = 16, ROWS = 4, COLUMNS = 4 };
#else
enum { BYTES = 16, ROWS = 4, COLUMNS = 2 };
#endif
enum { WIDTH = BYTES / sizeof(real), SPAN = COLUMNS * WIDTH, PANEL = 32, CHUNK = 128 };
typedef real vec __attribute__((vector_size(BYTES), aligned(sizeof(real)), may_alias));

#define INLINE static inline __attribute__((always_inline))

/* Strides are numbers of elements from one member to the next, 0 where all share. */
struct step {
  i64 members, classes, features, batch;
  const real *x;                              /* (., features) */
  const i64 *rows, *index; i64 stride;        /* (batch) or (members, batch): rows of x, and which examples */
  const i64 *target; i64 target_stride;       /* by example */
  const real *weight; i64 weight_stride;      /* by example; NULL: 1 */
  const real *shift; i64 shift_stride;        /* by example, (., classes); NULL: 0 */
  i64 class_balanced;
  real *head, *bias;                          /* (members, classes, features), (members, classes) or NULL */
  real *head_velocity, *bias_velocity;        /* momentum's, of the same shapes; NULL without momentum */
  const real *rate, *decay;                   /* (members) */
  double momentum;
  real *columns;                              /* scratch (members, features), of two classes */
  real *values;                               /* scratch (batch x columns) */
  real *sums;                                 /* scratch (columns, SPAN) */
  real *losses;                               /* (members), written */
  real *logits;                               /* (members, batch, classes), written; of two, the first's are 0 */
  i64 threads;
};

/* ---- products ---- */

INLINE real total(vec v) {
  real sum = 0;
  for (int i = 0; i < WIDTH; i++) sum += v[i];
  return sum;
}

/* Inner products of n rows and m columns. Each is summed in the same order whatever n and m are, so that no result
   depends on what is computed beside it. */
INLINE void inner(const real *const *x, int n, const real *column, i64 d, int m, real *out, i64 stride) {
  vec sum[ROWS][COLUMNS] = {0};
  i64 k = 0;
  for (; k + WIDTH <= d; k += WIDTH)
    for (int c = 0; c < m; c++) {
      vec w = *(const vec *)(column + c * d + k);
      for (int b = 0; b < n; b++) sum[b][c] += *(const vec *)(x[b] + k) * w;
    }
  for (int b = 0; b < n; b++)
    for (int c = 0; c < m; c++) {
      real value = total(sum[b][c]);
      for (i64 j = k; j < d; j++) value += x[b][j] * column[c * d + j];
      out[b * stride + c] = value;
    }
}

/* out (batch, m) = x[rows] times columns (m, d), a panel of columns after the other, which stays in the cache. */
static void product(const real *x, const i64 *rows, i64 batch, i64 d, const real *column, i64 m, real *out) {
  for (i64 panel = 0; panel < m; panel += PANEL) {
    i64 end = panel + PANEL < m ? panel + PANEL : m;
    for (i64 b = 0; b < batch; b += ROWS) {
      int n = batch - b < ROWS ? batch - b : ROWS;
      const real *some[ROWS];
      for (int i = 0; i < n; i++) some[i] = x + rows[b + i] * d;
      for (i64 c = panel; c < end; c += COLUMNS) {
        int width = end - c < COLUMNS ? end - c : COLUMNS;
        const real *from = column + c * d;
        real *to = out + b * m + c;
        if (n < ROWS) for (int i = 0; i < n; i++) for (int j = 0; j < width; j++)
          inner(some + i, 1, from + j * d, d, 1, to + i * m + j, m);
        else if (width == COLUMNS) inner(some, ROWS, from, d, COLUMNS, to, m);
        else if (COLUMNS > 3 && width == 3) inner(some, ROWS, from, d, COLUMNS > 3 ? 3 : 1, to, m);
        else if (COLUMNS > 2 && width == 2) inner(some, ROWS, from, d, COLUMNS > 2 ? 2 : 1, to, m);
        else inner(some, ROWS, from, d, 1, to, m);
      }
    }
  }
}

/* sums (m, SPAN) += values (n, m).T times packed (n, SPAN) */
INLINE void outer(const real *packed, const real *values, i64 n, i64 stride, int m, real *sums) {
  vec sum[ROWS][COLUMNS];
  for (int r = 0; r < m; r++)
    for (int v = 0; v < COLUMNS; v++) sum[r][v] = *(vec *)(sums + r * SPAN + v * WIDTH);
  for (i64 b = 0; b < n; b++)
    for (int r = 0; r < m; r++)
      for (int v = 0; v < COLUMNS; v++)
        sum[r][v] += *(const vec *)(packed + b * SPAN + v * WIDTH) * values[b * stride + r];
  for (int r = 0; r < m; r++)
    for (int v = 0; v < COLUMNS; v++) *(vec *)(sums + r * SPAN + v * WIDTH) = sum[r][v];
}

/* ---- the update ---- */

/* torch.optim.SGD's: weight decay as an L2 gradient, heavy-ball momentum */
INLINE void descend(real *restrict p, real *restrict velocity, const real *restrict gradient, real sign, i64 n,
                    real rate, real decay, real momentum) {
  for (i64 j = 0; j < n; j++) {
    real slope = sign * gradient[j] + decay * p[j];
    if (velocity) slope = velocity[j] = momentum * velocity[j] + slope;
    p[j] -= rate * slope;
  }
}

/* From the gradients of m columns' logits, values (batch, m), to the columns' gradients and the heads' update, SPAN
   features at a time. The first column is `first` of all. */
static void update(const struct step *s, const i64 *rows, i64 first, i64 m, const real *values) {
  i64 d = s->features, binary = s->classes == 2;
  real packed[CHUNK * SPAN], *sums = s->sums + first * SPAN;
  for (i64 k = 0; k < d; k += SPAN) {
    i64 span = d - k < SPAN ? d - k : SPAN;
    memset(sums, 0, sizeof(real) * m * SPAN);
    if (span < SPAN) memset(packed, 0, sizeof packed);
    for (i64 b = 0; b < s->batch; b += CHUNK) {
      i64 n = s->batch - b < CHUNK ? s->batch - b : CHUNK, r = 0;
      for (i64 i = 0; i < n; i++) memcpy(packed + i * SPAN, s->x + rows[b + i] * d + k, sizeof(real) * span);
      for (; r + ROWS <= m; r += ROWS) outer(packed, values + b * m + r, n, m, ROWS, sums + r * SPAN);
      if (m - r == 3) outer(packed, values + b * m + r, n, m, 3, sums + r * SPAN);
      if (m - r == 2) outer(packed, values + b * m + r, n, m, 2, sums + r * SPAN);
      if (m - r == 1) outer(packed, values + b * m + r, n, m, 1, sums + r * SPAN);
    }
    for (i64 r = 0; r < m; r++) {
      i64 column = first + r, member = binary ? column : column / s->classes;
      real rate = s->rate[member], decay = s->decay[member];
      for (i64 half = 0; half <= binary; half++) {
        i64 at = (binary ? 2 * column + half : column) * d + k;
        real sign = binary && !half ? -1 : 1, *velocity = s->head_velocity ? s->head_velocity + at : NULL;
        descend(s->head + at, velocity, sums + r * SPAN, sign, span, rate, decay, s->momentum);
      }
    }
  }
}

/* ---- the loss ---- */

/* What training tells the loss of one member. */
struct supervision {
  const i64 *index, *target;
  const real *weight, *shift;
  real *mass; /* (classes), the weight that a share is of */
};

INLINE real share_of(const struct step *s, struct supervision own, i64 i) {
  return (own.weight ? own.weight[i] : 1) / own.mass[s->class_balanced ? own.target[i] : 0];
}

/* exp(x) of x in [-FAR, 0] and log(1 + e) of e in [0, 1], to rounding. Nothing in them branches, so that the compiler
   makes many at once, which takes a tenth of the library's time. */
#define FAR (SINGLE ? 87 : 708)
INLINE real exp_of(real x) {
  whole n = x * (real)1.4426950408889634 - (real)0.5;        /* x = n log(2) + r */
  real r = x - n * (real)(SINGLE ? 0.693359375 : 6.93147180369123816490e-1);
  r -= n * (real)(SINGLE ? -2.12194440e-4 : 1.90821492927058770002e-10);
  real sum = 1;
#define TERM(k) sum = 1 + r * ((real)1 / k) * sum;
  if (!SINGLE) { TERM(13) TERM(12) TERM(11) TERM(10) TERM(9) TERM(8) }
  TERM(7) TERM(6) TERM(5) TERM(4) TERM(3) TERM(2) TERM(1)
  union { whole bits; real value; } power = {.bits = SINGLE ? (n + 127) << 23 : (whole)(n + 1023) << 52};
  return sum * power.value;
}

INLINE real log1p_of(real e) { /* 2 atanh(z) */
  real z = e / (2 + e), square = z * z, sum = 0;
#define ODD(k) sum = sum * square + (real)1 / k;
  if (!SINGLE) { ODD(33) ODD(31) ODD(29) ODD(27) ODD(25) ODD(23) ODD(21) ODD(19) ODD(17) }
  ODD(15) ODD(13) ODD(11) ODD(9) ODD(7) ODD(5) ODD(3) ODD(1)
  return 2 * z * sum;
}

/* Loss of a member, whose logits, a row of `values` per example, give way to their gradients; of two classes, where a
   row is the second's alone. What weighs nothing has no part in it, whatever its logits, NaN too. */
static real lose_binary(const struct step *s, struct supervision own, real offset, real *values, i64 stride,
                        real *logits, real *slope) {
  /* of the examples that weigh something: where they are, and how far the margin is on the wrong side */
  i64 at[CHUNK];
  real wrong[CHUNK], share[CHUNK], e[CHUNK], losses[CHUNK], gradient[CHUNK], loss = 0, all = 0;
  for (i64 start = 0; start < s->batch; start += CHUNK) {
    i64 end = start + CHUNK < s->batch ? start + CHUNK : s->batch, n = 0;
    for (i64 b = start; b < end; b++) { /* gathered, so that no branch depends on a target or a weight */
      i64 i = own.index[b];
      real margin = values[b * stride] + offset, sign = 1 - 2 * (real)own.target[i];
      logits[2 * b] = 0, logits[2 * b + 1] = margin;
      if (own.shift) margin += own.shift[2 * i + 1] - own.shift[2 * i];
      at[n] = b, wrong[n] = sign * margin, share[n] = sign * share_of(s, own, i);
      e[n] = fabs(margin) > FAR ? -FAR : -fabs(margin); /* NaN stays NaN */
      values[b * stride] = 0;
      n += share[n] != 0;
    }
    for (i64 j = 0; j < n; j++) e[j] = exp_of(e[j]);
    for (i64 j = 0; j < n; j++)
      losses[j] = fabs(share[j]) * ((wrong[j] > 0 ? wrong[j] : 0) + log1p_of(e[j]));
    for (i64 j = 0; j < n; j++) gradient[j] = share[j] * ((wrong[j] > 0 ? 1 : e[j]) / (1 + e[j]));
    for (i64 j = 0; j < n; j++) {
      loss += losses[j];
      all += values[at[j] * stride] = gradient[j];
    }
  }
  *slope = all;
  return loss;
}

/* The same, of more classes. */
static real lose_softmax(const struct step *s, struct supervision own, const real *bias, real *values, i64 stride,
                         real *logits, real *slope) {
  i64 C = s->classes;
  real loss = 0;
  for (i64 b = 0; b < s->batch; b++) {
    i64 i = own.index[b], target = own.target[i];
    real *value = values + b * stride, share = share_of(s, own, i), most = -INFINITY, sum = 0;
    if (bias) for (i64 c = 0; c < C; c++) value[c] += bias[c];
    memcpy(logits + b * C, value, sizeof(real) * C);
    if (share == 0) {
      memset(value, 0, sizeof(real) * C);
      continue;
    }
    for (i64 c = 0; c < C; c++) {
      if (own.shift) value[c] += own.shift[i * C + c];
      most = value[c] > most || value[c] != value[c] ? value[c] : most;
    }
    real right = value[target] - most;
    for (i64 c = 0; c < C; c++) value[c] = most - value[c] > FAR ? -FAR : value[c] - most;
    for (i64 c = 0; c < C; c++) value[c] = exp_of(value[c]);
    for (i64 c = 0; c < C; c++) sum += value[c];
    loss += share * (log(sum) - right);
    for (i64 c = 0; c < C; c++) slope[c] += value[c] = share * (value[c] / sum - (c == target));
  }
  return loss;
}

/* Loss of one member, the gradients of its logits, and the update of its biases. */
static void lose(const struct step *s, i64 member, real *values, i64 stride) {
  i64 C = s->classes;
  real mass[C], slope[C], *logits = s->logits + member * s->batch * C;
  real *bias = s->bias ? s->bias + member * C : NULL;
  struct supervision own = {
    s->index + member * s->stride, s->target + member * s->target_stride,
    s->weight ? s->weight + member * s->weight_stride : NULL,
    s->shift ? s->shift + member * s->shift_stride : NULL, mass};
  memset(mass, 0, sizeof mass);
  memset(slope, 0, sizeof slope);
  if (own.weight || s->class_balanced)
    for (i64 b = 0; b < s->batch; b++) {
      i64 i = own.index[b];
      mass[s->class_balanced ? own.target[i] : 0] += own.weight ? own.weight[i] : 1;
    }
  else
    mass[0] = s->batch;
  for (i64 c = 0; c < C; c++) mass[c] = mass[c] > 0 ? mass[c] : 1; /* a class, or a minibatch, without weight */
  if (C == 2) {
    real offset = bias ? bias[1] - bias[0] : 0;
    s->losses[member] = lose_binary(s, own, offset, values, stride, logits, slope + 1);
    slope[0] = -slope[1];
  } else {
    s->losses[member] = lose_softmax(s, own, bias, values, stride, logits, slope);
  }
  if (!bias) return;
  real *velocity = s->bias_velocity ? s->bias_velocity + member * C : NULL;
  descend(bias, velocity, slope, 1, C, s->rate[member], s->decay[member], s->momentum);
}

/* ---- the step ---- */

/* The step of members that share their rows. */
static void take(const struct step *s, i64 first, i64 members) {
  i64 C = s->classes, d = s->features, m = C == 2 ? 1 : C;
  const i64 *rows = s->rows + first * s->stride;
  const real *column = s->head + first * C * d;
  real *values = s->values + first * m * s->batch;
  if (C == 2) {
    real *difference = s->columns + first * d;
    for (i64 r = 0; r < members; r++)
      for (i64 j = 0; j < d; j++) difference[r * d + j] = column[(2 * r + 1) * d + j] - column[2 * r * d + j];
    column = difference;
  }
  product(s->x, rows, s->batch, d, column, members * m, values);
  for (i64 r = 0; r < members; r++) lose(s, first + r, values + r * m, members * m);
  update(s, rows, first * m, members * m, values);
}

/* Take the step. -1, and nothing changed, if a target is no class; else 0. */
int linear_step(const struct step *s) {
  i64 S = s->members, parts = s->stride ? S : s->threads < S ? s->threads : S;
  for (i64 member = 0; member < S; member++)
    for (i64 b = 0; b < s->batch; b++) {
      i64 own = s->target[member * s->target_stride + s->index[member * s->stride + b]];
      if (own < 0 || own >= s->classes) return -1;
    }
#pragma omp parallel for num_threads(s->threads) if (s->threads > 1) schedule(static)
  for (i64 part = 0; part < parts; part++) take(s, part * S / parts, (part + 1) * S / parts - part * S / parts);
  return 0;
}
