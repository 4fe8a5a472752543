/* LIBXSMM: a training step of its generated kernels, which multiply blocks and add up over a row of
   them. The weights of a layer are blocks [d above/b above][d/b][b][b above], and its activations
   [batch/n][d/b][n][b], as in the library's own examples. What lies between the products is done on
   a block while it is in the cache, and so is the update: the gradient of a block of weights is summed
   apart, since the shares of single samples are below the last digit of the weights. */

#include <libxsmm.h>
#include <libxsmm_generator.h>
#include <omp.h>

#include "peer.h"

typedef libxsmm_smmfunction_reducebatch_strd product;

/* A layer and the activations below it. */
static struct layer {
    /* Neurons below, filled up to whole blocks, the size of these, and their number. */
    int d, b, blocks;
    float *w, *c, *w_transposed, *z, *delta;
    product forward, backward, update;
    libxsmm_xtransfunction transpose;
} layers[16];

/* Of hidden layers; layers[hidden] is the head of one neuron, with one row of weights. */
static int hidden;
static int batch, n, row_blocks, threads;
static float eta, *x, *y;

/* The neurons of a block in wide layers. */
enum { WIDEST = 64 };
static int widest;

static int block(int d) { return d <= 16 ? 16 : d <= 32 ? 32 : widest; }

/* C += A B or, with `start` 0, C = A B, in columns: A has blocks of m × k, B of k × columns, or of
   columns × k. */
static product kernel(int m, int columns, int k, long a_stride, long b_stride, float start, int flags) {
    float one = 1;
    int b_rows = flags & LIBXSMM_GEMM_FLAG_TRANS_B ? columns : k;
    product found = libxsmm_smmdispatch_reducebatch_strd(m, columns, k, a_stride * sizeof(float), b_stride * sizeof(float), &m, &b_rows,
        &m, &one, &start, &flags, NULL);
    if (!found) fail("LIBXSMM generates no kernel for this CPU");
    return found;
}

static void unload(void) {
    for (int t = 0; t <= hidden; t++) {
        struct layer *l = &layers[t];
        free(l->w), free(l->c), free(l->w_transposed), free(l->z), free(l->delta);
    }
    free(x), free(y);
    memset(layers, 0, sizeof layers);
}

/* Lays rows of d numbers out as blocks. */
static void pack(const float *rows, int d, float *blocks, int count, const struct layer *l) {
    for (int r = 0; r < count; r++)
        for (int i = 0; i < d; i++) blocks[((long)(r / n * l->blocks + i / l->b) * n + r % n) * l->b + i % l->b] = rows[(long)r * d + i];
}

static void prepare(const struct task *task) {
    unload();
    hidden = task->layers - 1;
    if (task->widths[hidden + 1] != 1) fail("only heads of one neuron");
    batch = task->batch, eta = task->eta;
    for (n = batch < 32 ? batch : 32; batch % n; n--) {}
    row_blocks = batch / n;
    for (int t = 0; t <= hidden; t++) {
        struct layer *l = &layers[t];
        l->b = block(task->widths[t]);
        l->blocks = (task->widths[t] + l->b - 1) / l->b;
        l->d = l->blocks * l->b;
        if (t) l->z = numbers((size_t)batch * l->d), l->delta = numbers((size_t)batch * l->d);
    }
    for (int t = 0; t < hidden; t++) {
        struct layer *l = &layers[t], *above = l + 1;
        size_t area = (size_t)above->d * l->d;
        l->w = numbers(area), l->w_transposed = numbers(area), l->c = numbers(above->d);
        for (int j = 0; j < task->widths[t + 1]; j++) {
            l->c[j] = task->c[t][j];
            for (int i = 0; i < task->widths[t]; i++)
                l->w[(((long)(j / above->b) * l->blocks + i / l->b) * l->b + i % l->b) * above->b + j % above->b] =
                    task->w[t][(long)j * task->widths[t] + i];
        }
        long square = (long)l->b * above->b;
        l->forward = kernel(above->b, n, l->b, square, (long)n * l->b, 1, 0);
        l->backward = kernel(l->b, n, above->b, square, (long)n * above->b, 0, 0);
        l->update = kernel(above->b, l->b, n, (long)n * above->d, (long)n * l->d, 0, LIBXSMM_GEMM_FLAG_TRANS_B);
        libxsmm_descriptor_blob blob;
        l->transpose = libxsmm_dispatch_trans(libxsmm_trans_descriptor_init(&blob, sizeof(float), above->b, l->b, l->b));
        if (!l->transpose) fail("LIBXSMM generates no transposition for this CPU");
    }
    struct layer *head = &layers[hidden];
    head->w = numbers(head->d), head->c = numbers(1);
    memcpy(head->w, task->w[hidden], task->widths[hidden] * sizeof(float));
    head->c[0] = task->c[hidden][0];
    int samples = task->batches * batch;
    x = numbers((size_t)samples * layers[0].d), y = numbers(samples);
    pack(task->x, task->widths[0], x, samples, &layers[0]);
    memcpy(y, task->y, samples * sizeof(float));
}

/* Seconds of a step with the blocks and the number of threads that are set. */
static double try(const struct task *task) {
    prepare(task);
    step(0);
    int steps = 0;
    double start = now(), seconds;
    do step(steps++ % task->batches);
    while ((seconds = now() - start) < 0.05);
    return seconds / steps;
}

/* The fastest blocks and number of threads are kept. */
static void load(const struct task *task) {
    int best_threads = 0, best_widest = 0;
    double best = 0;
    for (widest = 32; widest <= WIDEST; widest *= 2)
        for (threads = 1; threads <= omp_get_max_threads(); threads++) {
            double seconds = try(task);
            if (!best_threads || seconds < best) best = seconds, best_threads = threads, best_widest = widest;
        }
    widest = best_widest, threads = best_threads;
    prepare(task);
}

static void forward(const struct layer *l) {
    const struct layer *above = l + 1;
    unsigned long long count = l->blocks;
#pragma omp for collapse(2)
    for (int j = 0; j < above->blocks; j++)
        for (int r = 0; r < row_blocks; r++) {
            const float *restrict c = l->c + j * above->b;
            float *restrict z = above->z + ((long)r * above->blocks + j) * n * above->b;
            for (int s = 0; s < n; s++) memcpy(z + s * above->b, c, above->b * sizeof(float));
            l->forward(l->w + (long)j * l->blocks * l->b * above->b, l->z + (long)r * l->blocks * n * l->b, z, &count);
            for (int k = 0; k < n * above->b; k++) z[k] = z[k] > 0 ? z[k] : 0;
        }
}

/* ŷ − y of a block of rows to `error`, and their squares added up. */
static double head_forward(int r, const float *target, float *error) {
    const struct layer *head = &layers[hidden];
    double loss = 0;
    for (int s = 0; s < n; s++) {
        float u = head->c[0];
        for (int j = 0; j < head->blocks; j++) {
            const float *z = head->z + (((long)r * head->blocks + j) * n + s) * head->b, *w = head->w + j * head->b;
#pragma omp simd reduction(+ : u)
            for (int k = 0; k < head->b; k++) u += z[k] * w[k];
        }
        error[s] = u - target[s];
        loss += error[s] * error[s];
    }
    return loss;
}

/* Δ of the layer below the head in a block of neurons, then its weights. `scaled` is −η/B (ŷ − y). */
static void head_backward(int j, const float *scaled) {
    const struct layer *head = &layers[hidden];
    float *restrict w = head->w + j * head->b, gradient[WIDEST] = {0};
    for (int r = 0; r < row_blocks; r++)
        for (int s = 0; s < n; s++) {
            long at = (((long)r * head->blocks + j) * n + s) * head->b;
            const float *restrict z = head->z + at;
            float *restrict delta = head->delta + at, e = scaled[r * n + s];
            for (int k = 0; k < head->b; k++) {
                delta[k] = z[k] > 0 ? e * w[k] : 0;
                gradient[k] += e * z[k];
            }
        }
    for (int k = 0; k < head->b; k++) w[k] += gradient[k];
}

/* Δ of a layer from that of the layer above it. */
static void backward(const struct layer *l) {
    const struct layer *above = l + 1;
    unsigned b = l->b, b_above = above->b;
    long square = (long)l->b * above->b;
    unsigned long long count = above->blocks;
#pragma omp for collapse(2)
    for (int i = 0; i < l->blocks; i++)
        for (int j = 0; j < above->blocks; j++)
            l->transpose(l->w + ((long)j * l->blocks + i) * square, &b_above, l->w_transposed + ((long)i * above->blocks + j) * square, &b);
#pragma omp for collapse(2)
    for (int i = 0; i < l->blocks; i++)
        for (int r = 0; r < row_blocks; r++) {
            long at = ((long)r * l->blocks + i) * n * l->b;
            float *restrict delta = l->delta + at;
            const float *restrict z = l->z + at;
            l->backward(l->w_transposed + i * above->blocks * square, above->delta + (long)r * above->blocks * n * above->b, delta, &count);
            for (int k = 0; k < n * l->b; k++) delta[k] = z[k] > 0 ? delta[k] : 0;
        }
}

/* Weights and bias, from Δ above, which has −η in it. */
static void update(const struct layer *l) {
    const struct layer *above = l + 1;
    unsigned long long count = row_blocks;
#pragma omp for collapse(2)
    for (int j = 0; j < above->blocks; j++)
        for (int i = 0; i < l->blocks; i++) {
            int area = l->b * above->b;
            float gradient[WIDEST * WIDEST] __attribute__((aligned(64)));
            float *restrict w = l->w + ((long)j * l->blocks + i) * area;
            l->update(above->delta + (long)j * n * above->b, l->z + (long)i * n * l->b, gradient, &count);
            for (int k = 0; k < area; k++) w[k] += gradient[k];
        }
#pragma omp for nowait
    for (int j = 0; j < above->blocks; j++) {
        float *restrict c = l->c + j * above->b, gradient[WIDEST] = {0};
        for (int r = 0; r < row_blocks; r++) {
            const float *restrict delta = above->delta + ((long)r * above->blocks + j) * n * above->b;
            for (int s = 0; s < n; s++)
                for (int k = 0; k < above->b; k++) gradient[k] += delta[s * above->b + k];
        }
        for (int k = 0; k < above->b; k++) c[k] += gradient[k];
    }
}

static double step(int number) {
    struct layer *head = &layers[hidden];
    float error[batch];
    double loss = 0;
    layers[0].z = x + (long)number * batch * layers[0].d;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        for (int t = 0; t < hidden; t++) forward(&layers[t]);
#pragma omp for reduction(+ : loss)
        for (int r = 0; r < row_blocks; r++) {
            loss += head_forward(r, y + (long)number * batch + r * n, error + r * n);
            for (int s = r * n; s < (r + 1) * n; s++) error[s] *= -eta / batch;
        }
#pragma omp for
        for (int j = 0; j < head->blocks; j++) head_backward(j, error);
#pragma omp single nowait
        {
            float gradient = 0;
            for (int s = 0; s < batch; s++) gradient += error[s];
            head->c[0] += gradient;
        }
        for (int t = hidden - 1; t >= 0; t--) {
            if (t) backward(&layers[t]);
            update(&layers[t]);
        }
    }
    layers[0].z = NULL;
    return loss / 2 / batch;
}

static void timed_step(int number) { step(number); }

int main(void) {
    char version[64];
    libxsmm_init();
    snprintf(version, sizeof version, "LIBXSMM %s (%s)", LIBXSMM_VERSION, libxsmm_get_target_arch());
    return serve(version);
}
