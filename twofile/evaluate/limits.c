/* What this machine can do at most, all threads at once: bytes read a second, multiply-accumulates a second.
 *
 * limits.py compiles it with the flags of run.c, so that both use the same instructions, and measures in the same minute
 * as a model. The multiplying loops keep everything in registers: what has to read its weights can only be slower. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

enum { FILL, READ, INT8, BF16, F32 }; /* the jobs; limits.py has the same numbers */
enum { THREADS = 1024, LOOPS = 1 << 13, CHUNK = 1 << 18 };

/* As many independent sums as keep the units busy while each waits for its last addition, and no more than there are
 * registers. EACH(op) is op(0) op(1) ...: written out, for an array that is indexed in a loop may stay in memory. */
#define TWELVE(op) op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11)
#if defined(__x86_64__)
enum { SUMS = 12 };
#define EACH TWELVE
#else
enum { SUMS = 20 };
#define EACH(op) TWELVE(op) op(12) op(13) op(14) op(15) op(16) op(17) op(18) op(19)
#endif
#if defined(__AVX512F__)
enum { WIDTH = 64 };
#elif defined(__AVX__)
enum { WIDTH = 32 };
#else
enum { WIDTH = 16 };
#endif
typedef float floats __attribute__((vector_size(WIDTH)));
typedef int64_t words __attribute__((vector_size(WIDTH)));

/* Defines `name`: LOOPS times sum = MULTIPLY(sum) for each sum, which uses a and b; the multiply-accumulates are returned.
 * All bytes are 0x3f: 63 as int8, 0.75 as bf16 and f32, where nothing overflows or becomes subnormal. The compiler may
 * not see that the sums begin alike, or it would compute one of them; nor that nobody wants them. */
#define TAKE(i) sum[i] = kept[i];
#define STEP(i) sum[i] = MULTIPLY(sum[i]);
#define KEEP(i) kept[i] = sum[i];
#define HIDE(x) __asm__ volatile("" : "+m"(x))
#define PEAK(name, sum_type, operand_type, macs)                \
    static double name(void) {                                  \
        sum_type sum[SUMS], kept[SUMS];                         \
        operand_type a, b;                                      \
        memset(&a, 0x3f, sizeof a);                             \
        memset(&b, 0x3f, sizeof b);                             \
        memset(kept, 0x3f, sizeof kept);                        \
        HIDE(kept);                                             \
        EACH(TAKE)                                              \
        for (int loop = 0; loop < LOOPS; loop++) { EACH(STEP) } \
        EACH(KEEP)                                              \
        HIDE(kept);                                             \
        return (double)LOOPS * SUMS * (macs);                   \
    }

#define MULTIPLY(sum) ((sum) * a + b)
PEAK(peak_f32, floats, floats, WIDTH / 4)
#undef MULTIPLY

#if defined(__AVX512VNNI__)
#define MULTIPLY(sum) _mm512_dpbusd_epi32(sum, a, b)
PEAK(peak_int8, __m512i, __m512i, 64)
#define INT8_WITH "AVX-512 VNNI"
#elif defined(__AVXVNNI__)
#define MULTIPLY(sum) _mm256_dpbusd_avx_epi32(sum, a, b)
PEAK(peak_int8, __m256i, __m256i, 32)
#define INT8_WITH "AVX-VNNI"
#elif defined(__AVX2__)
static inline __m256i multiply_add(__m256i sum, __m256i a, __m256i b) {
    __asm__ volatile("" : "+x"(a)); /* or the product would be seen to be always the same */
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)));
}
#define MULTIPLY(sum) multiply_add(sum, a, b)
PEAK(peak_int8, __m256i, __m256i, 32)
#define INT8_WITH "AVX2"
#elif defined(__ARM_FEATURE_MATMUL_INT8)
#define MULTIPLY(sum) vmmlaq_s32(sum, a, b)
PEAK(peak_int8, int32x4_t, int8x16_t, 32)
#define INT8_WITH "NEON i8mm"
#elif defined(__ARM_FEATURE_DOTPROD)
#define MULTIPLY(sum) vdotq_s32(sum, a, b)
PEAK(peak_int8, int32x4_t, int8x16_t, 16)
#define INT8_WITH "NEON dot"
#else
static double peak_int8(void) { return 0; }
#define INT8_WITH ""
#endif
#undef MULTIPLY

#if defined(__AVX512BF16__)
#define MULTIPLY(sum) _mm512_dpbf16_ps(sum, a, b)
PEAK(peak_bf16, __m512, __m512bh, 32)
#define BF16_WITH "AVX-512 BF16"
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define MULTIPLY(sum) vbfdotq_f32(sum, a, b)
PEAK(peak_bf16, float32x4_t, bfloat16x8_t, 8)
#define BF16_WITH "NEON bf16"
#else
static double peak_bf16(void) { return 0; }
#define BF16_WITH ""
#endif

typedef struct {
    int job;
    double seconds, rate;
    char *begin; /* this thread's part of the buffer */
    size_t bytes;
    atomic_int *go; /* 0: wait, 1: start, -1: give up */
} worker;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Reads the next part of the buffer, from `*at` on; the bytes read. */
static double read_on(const worker *w, size_t *at) {
    enum { STRIDE = SUMS * WIDTH };
    size_t left = w->bytes - *at, n = (left < CHUNK ? left : CHUNK) / STRIDE;
    const words *p = (const words *)(const void *)(w->begin + *at);
    words sum[SUMS], kept[SUMS];
    memset(sum, 0, sizeof sum);
    for (size_t i = 0; i < n; i++, p += SUMS) {
#define LOAD(i) sum[i] ^= p[i];
        EACH(LOAD)
    }
    EACH(KEEP)
    HIDE(kept);
    *at = left <= CHUNK ? 0 : *at + CHUNK;
    return (double)(n * STRIDE);
}

static void *work(void *argument) {
    worker *w = argument;
    size_t at = 0;
    double done = 0, start, spent;
    while (!atomic_load(w->go)) sched_yield();
    if (atomic_load(w->go) < 0) return NULL;
    start = now();
    do {
        switch (w->job) {
        case FILL: memset(w->begin, 1, w->bytes), done += (double)w->bytes; break;
        case READ: done += read_on(w, &at); break;
        case INT8: done += peak_int8(); break;
        case BF16: done += peak_bf16(); break;
        default: done += peak_f32();
        }
        spent = now() - start;
    } while (spent < w->seconds);
    w->rate = done / spent;
    return NULL;
}

/* Bytes or multiply-accumulates a second of all threads together; 0 where this processor cannot, -1 without threads.
 * FILL and READ use the buffer, of at least 4 KB a thread: fill it first, so that its pages are there, each near the
 * thread that reads it. A thread ends within a millisecond of `seconds`, and does its job once at least. */
double tl_measure(int job, int threads, double seconds, char *buffer, size_t bytes) {
    static worker workers[THREADS];
    static pthread_t handles[THREADS];
    atomic_int go = 0;
    int n = 0;
    double rate = 0;
    if (threads < 1 || threads > THREADS) return -1;
    for (; n < threads; n++) {
        size_t part = bytes / (size_t)threads / 64 * 64;
        workers[n] = (worker){job, seconds, 0, buffer + part * (size_t)n, part, &go};
        if (pthread_create(&handles[n], NULL, work, &workers[n])) break;
    }
    atomic_store(&go, n == threads ? 1 : -1);
    for (int i = 0; i < n; i++) pthread_join(handles[i], NULL), rate += workers[i].rate;
    return n == threads ? rate : -1;
}

/* The instructions that a job multiplies with, "" where there are none. */
const char *tl_instructions(int job) { return job == INT8 ? INT8_WITH : job == BF16 ? BF16_WITH : ""; }
