/* The program's own tests in C, for the sanitizers: what Python tests cannot see is a stray read, a leak or a race.
 *
 *   cc -g -fsanitize=address,undefined -DTF_LIBRARY test_run.c -lm -lpthread -o test && ./test tiny.gguf ...
 *
 * Each file is used as a person would, badly too, and by several threads at once. */
#include "../../twofile/run.c"

#define CHECK(condition) \
    do { if (!(condition)) { fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition, error); exit(1); } } while (0)

enum { TOKENS = 50, WORKERS = 4 };
static char error[256];

static void random_tokens(int32_t *tokens, int n, int vocab, uint64_t seed) {
    for (int i = 0; i < n; i++) tokens[i] = (int32_t)(next_random(&seed) * vocab);
}

static float *logits_of(tf_model *m, tf_session *s, const int32_t *tokens, int n, int vocab) {
    float *logits = malloc(sizeof *logits * (size_t)n * (size_t)vocab);
    CHECK(tf_evaluate(m, &(tf_step){s, tokens, n, 2}, 1, logits, error, sizeof error) == n);
    return logits;
}

/* One batch, token by token, chunks and forks: the same bits. */
static void test_same_bits(tf_model *m, int vocab) {
    int32_t tokens[TOKENS];
    random_tokens(tokens, TOKENS, vocab, 1);
    tf_session *whole = tf_session_new(m, error, sizeof error), *single = tf_session_new(m, error, sizeof error);
    CHECK(whole && single);
    float *expected = logits_of(m, whole, tokens, TOKENS, vocab);
    for (int i = 0; i < TOKENS; i++) {
        float *row = logits_of(m, single, tokens + i, 1, vocab);
        CHECK(!memcmp(row, expected + (size_t)i * (size_t)vocab, sizeof *row * (size_t)vocab));
        free(row);
    }
    for (int cut = 1; cut < TOKENS; cut += 7) {         /* across block edges and inside blocks */
        tf_session *rest = tf_session_new(m, error, sizeof error);
        CHECK(tf_evaluate(m, &(tf_step){rest, tokens, cut, 0}, 1, NULL, error, sizeof error) == 0);
        tf_session *fork = tf_session_fork(rest, error, sizeof error);
        tf_step steps[2] = {{rest, tokens + cut, TOKENS - cut, 1}, {fork, tokens + cut, 1, 1}};
        float *rows = malloc(sizeof *rows * 2 * (size_t)vocab);
        CHECK(tf_evaluate(m, steps, 2, rows, error, sizeof error) == 2);
        CHECK(!memcmp(rows, expected + (size_t)(TOKENS - 1) * (size_t)vocab, sizeof *rows * (size_t)vocab));
        CHECK(!memcmp(rows + vocab, expected + (size_t)cut * (size_t)vocab, sizeof *rows * (size_t)vocab));
        CHECK(tf_session_rewind(rest, cut) == 0 && tf_session_rewind(rest, cut + 1) == -1 && tf_session_length(fork) == cut + 1);
        tf_session_free(rest);
        float *more = logits_of(m, fork, tokens + cut + 1, TOKENS - cut - 1, vocab);
        CHECK(!memcmp(more, expected + (size_t)(cut + 1) * (size_t)vocab, sizeof *more * (size_t)(TOKENS - cut - 1) * (size_t)vocab));
        free(more);
        free(rows);
        tf_session_free(fork);
    }
    free(expected);
    tf_session_free(whole);
    tf_session_free(single);
}

static void test_bad_calls(tf_model *m, const tf_info *info) {
    int32_t tokens[2] = {0, info->vocab};
    tf_session *s = tf_session_new(m, error, sizeof error);
    int32_t *many = calloc((size_t)info->context + 1, sizeof *many);
    CHECK(tf_evaluate(m, &(tf_step){s, tokens, 2, 0}, 1, NULL, error, sizeof error) == -1 && strstr(error, "not in the vocabulary"));
    CHECK(tf_evaluate(m, &(tf_step){s, many, info->context + 1, 0}, 1, NULL, error, sizeof error) == -1 && strstr(error, "context is full"));
    CHECK(tf_evaluate(m, &(tf_step){s, tokens, 0, 0}, 1, NULL, error, sizeof error) == -1);
    CHECK(tf_evaluate(m, &(tf_step){NULL, tokens, 1, 0}, 1, NULL, error, sizeof error) == -1);
    CHECK(tf_evaluate(m, &(tf_step){s, tokens, 1, 1}, 1, NULL, error, sizeof error) == -1 && strstr(error, "no place"));
    tf_step twice[2] = {{s, tokens, 1, 0}, {s, tokens, 1, 0}};
    CHECK(tf_evaluate(m, twice, 2, NULL, error, sizeof error) == -1 && strstr(error, "earlier step"));
    CHECK(tf_session_length(s) == 0 && tf_evaluate(m, twice, 1, NULL, error, sizeof error) == 0 && tf_session_length(s) == 1);
    CHECK(tf_detokenize(m, &info->vocab, 1, 0, 0, NULL, 0) == -1 && tf_attribute(m, -1) == -1 && !tf_ends(m, -5));
    CHECK(!tf_open("no such file", NULL, 1, 1, error, sizeof error) && strstr(error, "cannot open"));
    CHECK(!tf_open("/", NULL, 1, 1, error, sizeof error) && !tf_open(__FILE__, NULL, 1, 1, NULL, 0));
    free(many);
    tf_session_free(s);
}

static void test_text(tf_model *m) {
    const char *text = "Once upon a time, <|im_end|></s> \xF0\x9F\x90\x89 \xFF\xC3 1234 don't\n\n";
    int32_t tokens[256], few[2];
    char back[1024];
    int64_t size = (int64_t)strlen(text), n = tf_tokenize(m, text, size, 0, tokens, 256);
    CHECK(n > 0 && n <= 256 && tf_tokenize(m, text, size, 0, few, 2) == n && few[1] == tokens[1]);
    for (int i = 0; i < n; i++) CHECK(tf_attribute(m, tokens[i]) != TF_CONTROL);
    int64_t bytes = tf_detokenize(m, tokens, n, 0, 1, back, sizeof back);
    CHECK(bytes > 0 && tf_detokenize(m, tokens, n, 0, 1, NULL, 0) == bytes);
    CHECK(tf_tokenize(m, "", 0, 1, tokens, 256) >= 0);
}

static void test_sampler(int vocab) {
    float *logits = malloc(sizeof *logits * (size_t)vocab);
    uint64_t state = 3;
    for (int k = 0; k < 200; k++) {
        tf_sampling o = {.temperature = (float)(k % 3), .top_k = k % 5 * 3, .top_p = k % 7 ? 0.9f : 1, .min_p = k % 4 ? 0 : 0.1f, .repetition = k % 2 ? 1.2f : 1, .presence = (float)(k % 2), .window = 64};
        tf_sampler *s = tf_sampler_new(vocab, &o, (uint64_t)k);
        CHECK(s && tf_sampler_bias(s, vocab, 1) == -1 && tf_sampler_bias(s, 0, -1) == 0);
        for (int i = 0; i < 20; i++) {
            for (int t = 0; t < vocab; t++) logits[t] = (float)(8 * next_random(&state));
            if (i == 3) logits[0] = NAN;
            if (i == 4) logits[0] = INFINITY;
            if (i == 5) for (int t = 0; t < vocab; t++) logits[t] = -INFINITY;
            int token = tf_sampler_pick(s, logits);
            CHECK(token >= 0 && token < vocab && (i != 4 || token == 0));
        }
        tf_sampler_free(s);
    }
    free(logits);
}

typedef struct { tf_model *model; tf_session *shared; int vocab, number; float *expected; const int32_t *tokens; } work;

/* Threads fork one session, go on by themselves, and must all see what one thread alone sees. */
static void *work_alone(void *argument) {
    work *w = argument;
    for (int round = 0; round < 3; round++) {
        tf_session *s = tf_session_fork(w->shared, error, sizeof error);
        float *logits = logits_of(w->model, s, w->tokens, TOKENS / 2, w->vocab);
        CHECK(!memcmp(logits, w->expected, sizeof *logits * (size_t)(TOKENS / 2) * (size_t)w->vocab));
        tf_session *fork = tf_session_fork(s, error, sizeof error);
        test_text(w->model);
        tf_session_free(s);
        free(logits_of(w->model, fork, w->tokens, 1 + w->number, w->vocab));
        tf_session_free(fork);
        free(logits);
    }
    return NULL;
}

static void test_threads(tf_model *m, int vocab) {
    int32_t tokens[TOKENS];
    pthread_t threads[WORKERS];
    work works[WORKERS];
    random_tokens(tokens, TOKENS, vocab, 2);
    tf_session *shared = tf_session_new(m, error, sizeof error), *first;
    CHECK(tf_evaluate(m, &(tf_step){shared, tokens, 21, 0}, 1, NULL, error, sizeof error) == 0);
    first = tf_session_fork(shared, error, sizeof error);
    float *expected = logits_of(m, first, tokens, TOKENS / 2, vocab);
    for (int i = 0; i < WORKERS; i++) {
        works[i] = (work){m, shared, vocab, i, expected, tokens};
        CHECK(!pthread_create(&threads[i], NULL, work_alone, &works[i]));
    }
    for (int i = 0; i < WORKERS; i++) pthread_join(threads[i], NULL);
    free(expected);
    tf_session_free(shared);
    tf_session_free(first);
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        tf_model *m = tf_open(argv[i], NULL, 1 + i % 3, 1, error, sizeof error), *second = tf_open(argv[i], NULL, 1, 0, error, sizeof error);
        tf_info info;
        CHECK(m && second);
        tf_describe(m, &info);
        test_text(m);
        test_same_bits(m, info.vocab);
        test_bad_calls(m, &info);
        test_threads(m, info.vocab);
        tf_session *survivor = tf_session_new(m, error, sizeof error);
        tf_close(m);                                                        /* a session keeps its model */
        free(logits_of(m, survivor, &(int32_t){1}, 1, info.vocab));
        tf_session_free(survivor);
        tf_close(second);
    }
    test_sampler(57);
    test_sampler(1);
    printf("%d files, kernels %s: passed\n", argc - 1, tf_kernels());
    return 0;
}
