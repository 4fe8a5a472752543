/* What the peers written in C share: the file and the lines that ../src/lib.rs describes. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FIRST_STEPS = 10 };

static void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

/* A network and what it is trained on. */
struct task {
    /* Of weights: the number of widths less one. */
    int layers;
    int widths[16];
    int batch, batches;
    float eta;
    /* Of each layer (widths[t+1], widths[t]), row by row, and its bias. */
    float *w[16], *c[16];
    /* All batches, samples in rows. */
    float *x, *y;
};

/* Zeros, aligned to a line of the cache. */
static float *numbers(size_t len) {
    size_t bytes = (len * sizeof(float) + 63) / 64 * 64;
    float *all = aligned_alloc(64, bytes);
    if (!all) fail("out of memory");
    return memset(all, 0, bytes);
}

static float *read_numbers(FILE *file, size_t len) {
    float *all = numbers(len);
    if (fread(all, sizeof(float), len, file) != len) fail("a file that is too short");
    return all;
}

static struct task read_task(const char *path) {
    struct task task = {.layers = -1};
    char header[1024];
    FILE *file = fopen(path, "rb");
    if (!file || !fgets(header, sizeof header, file)) fail("no task");
    task.batch = atoi(strtok(header, " "));
    task.batches = atoi(strtok(NULL, " "));
    task.eta = atof(strtok(NULL, " "));
    for (char *d; task.layers < 15 && (d = strtok(NULL, " "));) task.widths[++task.layers] = atoi(d);
    for (int t = 0; t < task.layers; t++) {
        task.w[t] = read_numbers(file, (size_t)task.widths[t + 1] * task.widths[t]);
        task.c[t] = read_numbers(file, task.widths[t + 1]);
    }
    size_t samples = (size_t)task.batches * task.batch;
    task.x = read_numbers(file, samples * task.widths[0]);
    task.y = read_numbers(file, samples * task.widths[task.layers]);
    fclose(file);
    return task;
}

static void free_task(struct task *task) {
    for (int t = 0; t < task->layers; t++) free(task->w[t]), free(task->c[t]);
    free(task->x), free(task->y);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* Each peer defines these: what it makes of a task, which is freed afterwards; a step with a batch,
   which gives the loss before it; and what is timed instead. */
static void load(const struct task *task);
static double step(int batch);
static void timed_step(int batch);

/* Answers the driver until it closes the line. */
static int serve(const char *version) {
    char line[4096];
    int batches = 0;
    puts(version);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        if (!strncmp(line, "load ", 5)) {
            struct task task = read_task(line + 5);
            load(&task);
            batches = task.batches;
            free_task(&task);
            for (int i = 0; i < FIRST_STEPS; i++) printf("%s%.9g", i ? " " : "", step(i % batches));
        } else if (!strncmp(line, "run ", 4) && batches) {
            double start = now();
            for (int i = 0, steps = atoi(line + 4); i < steps; i++) timed_step(i % batches);
            printf("%.9g", now() - start);
        } else {
            fail("not understood");
        }
        puts("");
        fflush(stdout);
    }
    return 0;
}
