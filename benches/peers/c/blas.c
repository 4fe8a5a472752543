/* The bare BLAS calls of a step, with nothing between them: blas LIBRARY PREFIX, where the library
   is loaded at run time and PREFIX stands before the names of its functions. They are the calls
   that benches/figures/bare.rs makes. The losses come from the same calls, with everything between
   them that makes them a step. */

#include <dlfcn.h>
#include <stdbool.h>

#include "peer.h"

enum { ROWS = 101, N = 111, T = 112 };

static void (*gemm)(int, int, int, int, int, int, float, const float *, int, const float *, int, float, float *, int);
static void (*gemv)(int, int, int, int, float, const float *, int, const float *, int, float, float *, int);
static void (*ger)(int, int, int, float, const float *, int, const float *, int, float *, int);

static struct task task;
/* Activations and Δ of all layers, samples in rows. */
static float *z[16], *delta[16];

static float *copy(const float *from, size_t len) { return memcpy(numbers(len), from, len * sizeof(float)); }

static void load(const struct task *from) {
    for (int t = 0; t < task.layers; t++) free(z[t + 1]), free(delta[t + 1]);
    free_task(&task);
    task = *from;
    size_t samples = (size_t)task.batches * task.batch;
    for (int t = 0; t < task.layers; t++) {
        int above = task.widths[t + 1];
        task.w[t] = copy(from->w[t], (size_t)above * task.widths[t]), task.c[t] = copy(from->c[t], above);
        z[t + 1] = numbers((size_t)task.batch * above), delta[t + 1] = numbers((size_t)task.batch * above);
    }
    task.x = copy(from->x, samples * task.widths[0]), task.y = copy(from->y, samples * task.widths[task.layers]);
}

/* z = w z below. */
static void forward(int t) {
    int d = task.widths[t], above = task.widths[t + 1], batch = task.batch;
    const float *w = task.w[t];
    if (batch == 1) gemv(ROWS, N, above, d, 1, w, d, z[t], 1, 0, z[t + 1], 1);
    else if (above == 1) gemv(ROWS, N, batch, d, 1, z[t], d, w, 1, 0, z[t + 1], 1);
    else gemm(ROWS, N, T, batch, above, d, 1, z[t], d, w, d, 0, z[t + 1], above);
}

/* Δ from that of the layer above. */
static void backward(int t) {
    int d = task.widths[t], above = task.widths[t + 1], batch = task.batch;
    if (batch == 1) gemv(ROWS, T, above, d, 1, task.w[t], d, delta[t + 1], 1, 0, delta[t], 1);
    else gemm(ROWS, N, N, batch, d, above, 1, delta[t + 1], above, task.w[t], d, 0, delta[t], d);
}

/* w += a Δᵀ z. */
static void update(int t, float a) {
    int d = task.widths[t], above = task.widths[t + 1], batch = task.batch;
    if (batch == 1) ger(ROWS, above, d, a, delta[t + 1], 1, z[t], 1, task.w[t], d);
    else if (above == 1) gemv(ROWS, T, batch, d, a, z[t], d, delta[t + 1], 1, 1, task.w[t], 1);
    else gemm(ROWS, T, N, above, d, batch, a, delta[t + 1], above, z[t], d, 1, task.w[t], d);
}

static void add_bias(int t, bool relu) {
    int above = task.widths[t + 1];
    for (int s = 0; s < task.batch; s++)
        for (int j = 0; j < above; j++) {
            float *u = &z[t + 1][(size_t)s * above + j];
            *u += task.c[t][j];
            if (relu && *u <= 0) *u = 0;
        }
}

/* The loss, and its derivative by ŷ. */
static double head(int number) {
    int last = task.layers, len = task.batch * task.widths[last];
    double loss = 0;
    for (int i = 0; i < len; i++) {
        float error = z[last][i] - task.y[(size_t)number * len + i];
        loss += error * error / 2 / len;
        delta[last][i] = error / len;
    }
    return loss;
}

static void update_bias(int t) {
    int above = task.widths[t + 1];
    for (int s = 0; s < task.batch; s++)
        for (int j = 0; j < above; j++) task.c[t][j] -= task.eta * delta[t + 1][(size_t)s * above + j];
}

static double step(int number) {
    int layers = task.layers;
    z[0] = task.x + (size_t)number * task.batch * task.widths[0];
    for (int t = 0; t < layers; t++) forward(t), add_bias(t, t + 1 < layers);
    double loss = head(number);
    for (int t = layers - 1; t > 0; t--) {
        backward(t);
        for (int i = 0; i < task.batch * task.widths[t]; i++) delta[t][i] = z[t][i] > 0 ? delta[t][i] : 0;
    }
    for (int t = 0; t < layers; t++) update(t, -task.eta), update_bias(t);
    return loss;
}

static void timed_step(int number) {
    z[0] = task.x + (size_t)number * task.batch * task.widths[0];
    for (int t = 0; t < task.layers; t++) forward(t);
    for (int t = task.layers - 1; t > 0; t--) backward(t);
    /* So small that the weights stay what they are. */
    for (int t = 0; t < task.layers; t++) update(t, -1e-30f);
}

/* A function of the library, or NULL. */
static void *find(void *library, const char *prefix, const char *name) {
    char full[64];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    return dlsym(library, full);
}

int main(int argc, char **argv) {
    void *library = argc == 3 ? dlopen(argv[1], RTLD_NOW) : NULL;
    if (!library) fail(argc == 3 ? dlerror() : "blas LIBRARY PREFIX");
    gemm = find(library, argv[2], "cblas_sgemm");
    gemv = find(library, argv[2], "cblas_sgemv");
    ger = find(library, argv[2], "cblas_sger");
    if (!gemm || !gemv || !ger) fail("not a BLAS with C's interface");
    char version[512] = "unknown BLAS";
    char *(*config)(void) = find(library, argv[2], "openblas_get_config");
    char *(*kernels)(void) = find(library, argv[2], "openblas_get_corename");
    const char *(*blis)(void) = dlsym(library, "bli_info_get_version_str");
    int (*architecture)(void) = dlsym(library, "bli_arch_query_id");
    const char *(*name)(int) = dlsym(library, "bli_arch_string");
    if (config && kernels) snprintf(version, sizeof version, "%s kernel %s", config(), kernels());
    if (blis && architecture && name) snprintf(version, sizeof version, "BLIS %s kernel %s", blis(), name(architecture()));
    return serve(version);
}
