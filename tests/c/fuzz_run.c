/* Fuzzing: any bytes as a parameters file, as an adapter, and as a text under a tokenizer. Nothing may crash, read out of bounds,
 * overflow, leak, or allocate out of proportion.
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -DTF_LIBRARY fuzz_run.c -lm -lpthread -o fuzz && ./fuzz corpus/
 *   cc -g -fsanitize=address,undefined -DTF_LIBRARY -DREPLAY fuzz_run.c -lm -lpthread -o replay && ./replay FILES */
#include "../../twofile/run.c"

static void use(tf_model *m, const uint8_t *data, size_t size) {
    static int32_t tokens[4096];
    static char text[8192], error[128];
    tf_info info;
    tf_describe(m, &info);
    const char *tail = (const char *)data + (size > 512 ? size - 512 : 0);
    int64_t tail_size = size > 512 ? 512 : (int64_t)size;
    for (int special = 0; special < 2; special++) {
        int64_t n = tf_tokenize(m, tail, tail_size, special, tokens, 4096);
        if (n > 4096) n = 4096;
        for (int64_t i = 0; i < n; i++) {
            if (tokens[i] < 0 || tokens[i] >= info.vocab) __builtin_trap();
            if (!special && tf_attribute(m, tokens[i]) == TF_CONTROL) __builtin_trap();
            tf_ends(m, tokens[i]);
        }
        if (n >= 0 && tf_detokenize(m, tokens, n, special, !special, text, sizeof text) < 0) __builtin_trap();
    }
    tf_text(m, "tokenizer.chat_template");
    tf_session *s = tf_session_new(m, error, sizeof error);
    if (!s) return;
    for (int i = 0; i < 5; i++) tokens[i] = i * 7 % info.vocab;
    float *logits = malloc(sizeof *logits * 2 * (size_t)info.vocab);
    tf_session *fork = NULL;
    if (tf_evaluate(m, &(tf_step){s, tokens, 3, 1}, 1, logits, error, sizeof error) == 1 && (fork = tf_session_fork(s, error, sizeof error))) {
        tf_evaluate(m, (tf_step[]){{s, tokens, 1, 1}, {fork, tokens + 1, 1, 1}}, 2, logits, error, sizeof error);
        tf_sampler *sampler = tf_sampler_new(info.vocab, &(tf_sampling){.temperature = 1, .top_p = 0.9f, .repetition = 1.1f, .window = 8}, 1);
        if (sampler) tf_sampler_pick(sampler, logits);
        tf_sampler_free(sampler);
    }
    free(logits);
    tf_session_free(fork);
    tf_session_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[64], error[256];
    int fd = memfd_create("fuzz", 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
    tf_model *m = tf_open(path, NULL, 1, 1, error, sizeof error);
    if (m) use(m, data, size);
    else if (!*error) abort();          /* a refusal gives its reason */
    tf_close(m);
    const char *base = getenv("TWOFILE_FUZZ_BASE");     /* a model that the bytes may be an adapter of */
    m = base ? tf_open(base, path, 1, 1, error, sizeof error) : NULL;
    if (m) use(m, data, size);
    tf_close(m);
    close(fd);
    return 0;
}

#ifdef REPLAY
int main(int argc, char **argv) {
    static uint8_t data[1 << 20];
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (!file) { perror(argv[i]); return 1; }
        size_t size = fread(data, 1, sizeof data, file);
        fclose(file);
        LLVMFuzzerTestOneInput(data, size);
    }
    printf("%d inputs: passed\n", argc - 1);
    return 0;
}
#endif
