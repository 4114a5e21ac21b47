/* twofile run.c: the program that runs a parameters file (GGUF v3).
 *
 *   cc -O2 -march=native run.c -lm -lpthread -o run && ./run model.gguf
 *   cc -O2 -march=native -shared -fPIC -DTF_LIBRARY run.c -lm -lpthread -o librun.so
 *
 * It reads top to bottom: interface, file, tokenizer, kernels, transformer, session, sampler, main.
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include <stdint.h>
#include <stddef.h>

/* ==== interface ===========================================================================================
 * All functions are thread-safe on one model: evaluation is serialised inside, everything else is read-only or
 * reference counted. Two threads must not use one *session* or one *sampler* at the same time.
 * Functions that can fail return NULL or a negative number and write one line into `error` (always terminated). */
#define TF_INTERFACE 4                          /* raised whenever a signature or struct below changes */
#ifdef TF_LIBRARY
#define TF_API __attribute__((visibility("default")))
#else
#define TF_API static __attribute__((unused))
#endif

typedef struct tf_model tf_model;               /* an open parameters file, its weights packed, its threads */
typedef struct tf_session tf_session;           /* a position in a text: the KV cache of one sequence of tokens */
typedef struct tf_sampler tf_sampler;           /* how to choose the next token, and its random state */

typedef struct tf_info {                        /* what a parameters file says of itself */
    int32_t vocab, context, dim, layers, heads, kv_heads, head_dim, ffn;
    int32_t bos, eos, eot, unk, pad;            /* token ids, -1 where the file names none */
    int32_t add_bos, add_eos;                   /* the file asks for them around a text: 0 or 1 */
    int32_t threads;                            /* threads that evaluate */
    uint64_t parameters, bytes;                 /* weights counted; file size */
    uint64_t token_bytes;                       /* of KV cache that one token takes; it is given out for 16 tokens at a time */
} tf_info;

typedef struct tf_step {                        /* tokens to append to one session */
    tf_session *session;
    const int32_t *tokens;
    int32_t n;                                  /* how many tokens, at least 1 */
    int32_t want;                               /* logits of: 0 none, 1 the last token, 2 every token */
} tf_step;

typedef struct tf_sampling {
    float temperature;                          /* <= 0: the most likely token */
    int32_t top_k;                              /* 0: off */
    float top_p;                                /* 1: off */
    float min_p;                                /* 0: off */
    float repetition, presence;                 /* 1 and 0: off; over the distinct tokens of the window */
    int32_t window;                             /* how many of the last tokens the penalties look at, <= 4096 */
} tf_sampling;

/* token attributes, as in the GGUF `tokenizer.ggml.token_type` array, and one of our own */
enum { TF_NORMAL = 1, TF_UNKNOWN = 2, TF_CONTROL = 3, TF_USER_DEFINED = 4, TF_UNUSED = 5, TF_BYTE = 6 };

TF_API int32_t tf_interface(void);                                          /* TF_INTERFACE of the built library */
TF_API const char *tf_kernels(void);                                        /* "avx512", "avx2", "neon" or "c" */
/* adapter: a GGUF file with low-rank changes (LoRA) to this model's matrices, or NULL. threads 0: one a core. repack 0: weights
 * stay in the mapped file, laid out anew in each pass: far slower. */
TF_API tf_model *tf_open(const char *path, const char *adapter, int32_t threads, int32_t repack, char *error, int32_t error_size);
TF_API void tf_close(tf_model *);                                           /* freed once its last session is */
TF_API void tf_describe(const tf_model *, tf_info *);
TF_API const char *tf_text(const tf_model *, const char *key);              /* a string of the metadata, or NULL */

/* Text to tokens. special: control tokens' texts in `text` become control tokens; never otherwise. Adds no BOS/EOS.
 * Returns how many tokens the text has; only the first `room` are written. Negative: out of memory or text too long. */
TF_API int64_t tf_tokenize(const tf_model *, const char *text, int64_t size, int32_t special, int32_t *tokens, int64_t room);
/* Bytes of tokens, as they would be written to a file. special: control tokens appear as their text, else as nothing.
 * skip_space: drop the one leading space that a SentencePiece vocabulary adds in front of a text.
 * Returns how many bytes there are; only the first `room` are written. Negative: an id outside the vocabulary. */
TF_API int64_t tf_detokenize(const tf_model *, const int32_t *tokens, int64_t n, int32_t special, int32_t skip_space, char *text, int64_t room);
TF_API int32_t tf_attribute(const tf_model *, int32_t token);               /* one of the enum above, -1 outside */
TF_API int32_t tf_ends(const tf_model *, int32_t token);                    /* 1 when the token ends a generation */
TF_API int64_t tf_held(const tf_model *);                                   /* bytes of KV cache in use, what forks share counted once */

TF_API tf_session *tf_session_new(tf_model *, char *error, int32_t error_size);
TF_API tf_session *tf_session_fork(const tf_session *, char *error, int32_t error_size); /* shares every block */
TF_API void tf_session_free(tf_session *);
TF_API int32_t tf_session_length(const tf_session *);                       /* tokens held */
TF_API int32_t tf_session_rewind(tf_session *, int32_t length);             /* keep the first `length`; -1: longer than held */
/* Append tokens to several different sessions in one pass over the weights. `logits` receives one row of `vocab` floats
 * for each position asked, in the order of the steps. Returns the rows written. On error nothing has changed. */
TF_API int64_t tf_evaluate(tf_model *, const tf_step *steps, int32_t n_steps, float *logits, char *error, int32_t error_size);
/* The mean over a text's tokens of what the last layer says of each, normed: `dim` floats. 0, or -1 with an error. */
TF_API int32_t tf_embed(tf_model *, const int32_t *tokens, int32_t n, float *out, char *error, int32_t error_size);
/* What the model has for each token before its first layer: `n` rows of `dim` floats. The tokens are in the vocabulary. */
TF_API void tf_rows(const tf_model *, const int32_t *tokens, int32_t n, float *out);
/* The cache of a session as bytes, for the same model and program to load, bit for bit. Returns how many there are; only where
 * `room` is enough they are written. Loading fills an empty session with `length` tokens; 0, or -1 where `size` is another. */
TF_API int64_t tf_session_save(const tf_session *, void *out, int64_t room);
TF_API int32_t tf_session_load(tf_session *, int32_t length, const void *data, int64_t size);

TF_API tf_sampler *tf_sampler_new(int32_t vocab, const tf_sampling *, uint64_t seed);
TF_API void tf_sampler_free(tf_sampler *);
TF_API int32_t tf_sampler_bias(tf_sampler *, int32_t token, float bias);    /* added to its logit; -1 outside */
TF_API void tf_sampler_accept(tf_sampler *, int32_t token);                 /* a token of the text, for the penalties */
TF_API int32_t tf_sampler_pick(tf_sampler *, const float *logits);          /* choose and accept */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "parameters files are little-endian, and this program reads them in place"
#endif

/* Write one line into the caller's buffer and return false, so that a check reads `if (bad) return fail(e, ...)`. */
typedef struct { char *text; int32_t size; } complaint;

__attribute__((format(printf, 2, 3))) static bool fail(complaint e, const char *format, ...) {
    va_list args;
    va_start(args, format);
    if (e.text && e.size > 0) vsnprintf(e.text, (size_t)e.size, format, args);
    va_end(args);
    return false;
}

/* ==== file ================================================================================================
 * A GGUF file is mapped read-only and never trusted: each length, count, type and offset is checked against the
 * bytes that are really there before it is used, so what is allocated is in proportion to the file's own size. */

typedef struct { const char *at; uint64_t size; } text_view;    /* a string inside the mapping, not terminated */

enum { U8, I8, U16, I16, U32, I32, REAL32, BOOL, STRING, ARRAY, U64, I64, REAL64, KINDS };
static const uint8_t KIND_BYTES[KINDS] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

typedef struct {                /* one metadata pair */
    text_view name;
    uint32_t kind, item_kind;   /* item_kind: of an ARRAY's items */
    uint64_t count;             /* of an ARRAY's items, else 1 */
    const uint8_t *at;          /* the value, or an array's first item */
    char *copy;                 /* a terminated copy of a STRING */
} entry;

enum { F32 = 0, F16 = 1, Q4_0 = 2, Q8_0 = 8, Q4_K = 12, Q5_K = 13, Q6_K = 14, BF16 = 30, TYPES = 31 };
static const struct { const char *name; uint16_t columns, bytes; } TYPE[TYPES] = {  /* a block: how many columns in how many bytes */
    [F32] = {"F32", 1, 4}, [F16] = {"F16", 1, 2}, [BF16] = {"BF16", 1, 2}, [Q4_0] = {"Q4_0", 32, 18}, [Q8_0] = {"Q8_0", 32, 34},
    [Q4_K] = {"Q4_K", 256, 144}, [Q5_K] = {"Q5_K", 256, 176}, [Q6_K] = {"Q6_K", 256, 210},
};

typedef struct {
    text_view name;
    uint32_t type;
    uint64_t columns, rows, bytes, offset;
    const uint8_t *data;
    bool used;
} tensor;

typedef struct {
    const uint8_t *map;
    uint64_t size, n_entries, n_tensors, data_at;
    entry *entries;             /* both lists in the order of their names */
    tensor *tensors;
} gguf_file;

static uint32_t get_u32(const void *at) { uint32_t v; memcpy(&v, at, 4); return v; }
static uint64_t get_u64(const void *at) { uint64_t v; memcpy(&v, at, 8); return v; }
static bool same(text_view text, const char *word) { return text.size == strlen(word) && !memcmp(text.at, word, text.size); }

/* A name from the file, for a message: at most 64 printable bytes. */
typedef struct { char text[65]; } printable;
static printable show(text_view text) {
    printable p;
    uint64_t n = text.size < 64 ? text.size : 64;
    for (uint64_t i = 0; i < n; i++) p.text[i] = text.at[i] >= 32 && text.at[i] < 127 ? text.at[i] : '?';
    p.text[n] = 0;
    return p;
}

/* ---- what is read one after another ---- */

typedef struct { const uint8_t *at; uint64_t left; } cursor;

/* Read so many bytes into `value`, or step over them where it is NULL; false where the file ends before. */
static bool take(cursor *c, uint64_t bytes, void *value) {
    if (bytes > c->left) return false;
    if (value) memcpy(value, c->at, bytes);
    c->at += bytes;
    c->left -= bytes;
    return true;
}

static bool take_text(cursor *c, text_view *text) {
    if (!take(c, 8, &text->size)) return false;
    text->at = (const char *)c->at;
    return take(c, text->size, NULL);
}

static bool take_value(cursor *c, entry *it) {
    it->count = 1;
    if (!take(c, 4, &it->kind)) return false;
    it->item_kind = it->kind;
    if (it->kind == ARRAY && (!take(c, 4, &it->item_kind) || !take(c, 8, &it->count))) return false;
    if (it->item_kind >= KINDS || it->item_kind == ARRAY) return false;
    it->at = c->at;
    uint64_t bytes = KIND_BYTES[it->item_kind], i = 0;
    if (bytes) return it->count <= c->left / bytes && take(c, it->count * bytes, NULL);
    for (text_view text; i < it->count && take_text(c, &text);) i++;
    return i == it->count;
}

/* ---- lists of entries and tensors, which both begin with their name ---- */

static int by_name(const void *a, const void *b) {
    const text_view *x = a, *y = b;
    int order = memcmp(x->at, y->at, x->size < y->size ? x->size : y->size);
    return order ? order : (x->size > y->size) - (x->size < y->size);
}

/* Put a list in order. Returns a name that stands in it twice, or NULL. */
static const text_view *sort_by_name(void *list, uint64_t n, size_t item_bytes) {
    qsort(list, n, item_bytes, by_name);
    for (uint8_t *item = list; n > 1; n--, item += item_bytes)
        if (!by_name(item, item + item_bytes)) return (void *)item;
    return NULL;
}

static const entry *find(const gguf_file *f, const char *key) {
    return bsearch(&(text_view){key, strlen(key)}, f->entries, f->n_entries, sizeof *f->entries, by_name);
}

static tensor *find_tensor(const gguf_file *f, const char *name) {
    return bsearch(&(text_view){name, strlen(name)}, f->tensors, f->n_tensors, sizeof *f->tensors, by_name);
}

/* Room for one more item of a growing array. */
static void *grow(void *items, uint64_t n, size_t item_bytes) {
    if (n & (n - 1)) return items;                                              /* full only at 0, 1, 2, 4, 8, ... */
    return realloc(items, (n ? 2 * n : 1) * item_bytes);
}

/* A pair takes 14 bytes of the file at least, so a false count cannot take memory out of proportion. */
static bool read_entries(gguf_file *f, cursor *c, uint64_t count, complaint e) {
    if (count > c->left / 14 || !(f->entries = calloc(count + 1, sizeof *f->entries))) return fail(e, "metadata: there is no room for so many pairs");
    f->n_entries = count;
    for (entry *it = f->entries; it < f->entries + count; it++) {
        if (!take_text(c, &it->name) || !it->name.size || it->name.size > 65535) return fail(e, "metadata: a key has a bad length");
        if (!take_value(c, it)) return fail(e, "metadata: the value of %s has an unknown type, or reaches past the end of the file", show(it->name).text);
        if (it->kind == STRING && !(it->copy = strndup((const char *)it->at + 8, get_u64(it->at)))) return fail(e, "out of memory for the metadata");
    }
    const text_view *twice = sort_by_name(f->entries, count, sizeof *f->entries);
    return !twice || fail(e, "metadata: %s stands twice", show(*twice).text);
}

static bool read_tensor(cursor *c, tensor *t, complaint e) {
    uint32_t dims = 0;
    uint64_t size[4] = {1, 1, 1, 1};
    if (!take_text(c, &t->name) || !t->name.size || t->name.size > 255) return fail(e, "tensors: a name has a bad length");
    const printable name = show(t->name);
    bool good = take(c, 4, &dims) && dims >= 1 && dims <= 4;
    for (uint32_t d = 0; good && d < dims; d++) good = take(c, 8, &size[d]) && size[d] && size[d] <= INT32_MAX;
    if (!good || !take(c, 4, &t->type) || !take(c, 8, &t->offset)) return fail(e, "tensor %s: its dimensions are cut off, or not 1 to 2^31", name.text);
    if (size[2] != 1 || size[3] != 1) return fail(e, "tensor %s: has more than two dimensions, which no supported family uses", name.text);
    if (t->type >= TYPES || !TYPE[t->type].name)
        return fail(e, "tensor %s: type %u is not supported (F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K, Q6_K are)", name.text, t->type);
    if (size[0] % TYPE[t->type].columns) return fail(e, "tensor %s: its rows are not whole %s blocks", name.text, TYPE[t->type].name);
    t->columns = size[0];
    t->rows = size[1];
    t->bytes = t->columns / TYPE[t->type].columns * TYPE[t->type].bytes * t->rows;     /* < 2^31 * 2^31 * 4: fits */
    return true;
}

static int by_offset(const void *a, const void *b) {
    uint64_t x = ((const tensor *)a)->offset, y = ((const tensor *)b)->offset;
    return (x > y) - (x < y);
}

/* A tensor's description takes 33 bytes at least. */
static bool read_tensors(gguf_file *f, cursor *c, uint64_t count, complaint e) {
    if (count > c->left / 33 || !(f->tensors = calloc(count + 1, sizeof *f->tensors))) return fail(e, "tensors: there is no room for so many");
    f->n_tensors = count;
    for (tensor *t = f->tensors; t < f->tensors + count; t++)
        if (!read_tensor(c, t, e)) return false;
    const entry *asked = find(f, "general.alignment");
    uint64_t alignment = !asked ? 32 : asked->kind == U32 ? get_u32(asked->at) : 0;
    if (alignment < 8 || alignment > (1u << 20) || (alignment & (alignment - 1))) return fail(e, "general.alignment is not a power of two from 8 to 2^20");
    f->data_at = (f->size - c->left + alignment - 1) / alignment * alignment;
    uint64_t room = f->data_at <= f->size ? f->size - f->data_at : 0, end = 0;
    qsort(f->tensors, count, sizeof *f->tensors, by_offset);
    for (tensor *t = f->tensors; t < f->tensors + count; t++) {
        if (t->offset % alignment) return fail(e, "tensor %s: its offset is not a multiple of the alignment", show(t->name).text);
        if (t->offset > room || t->bytes > room - t->offset) return fail(e, "tensor %s: its data is not all there: is the file cut off?", show(t->name).text);
        if (t->offset < end) return fail(e, "tensor %s: its data overlaps another tensor's", show(t->name).text);
        end = t->offset + t->bytes;
        t->data = f->map + f->data_at + t->offset;
    }
    const text_view *twice = sort_by_name(f->tensors, count, sizeof *f->tensors);
    return !twice || fail(e, "tensor %s stands twice", show(*twice).text);
}

static void file_close(gguf_file *f) {
    for (uint64_t i = 0; i < f->n_entries; i++) free(f->entries[i].copy);
    free(f->entries);
    free(f->tensors);
    if (f->map) munmap((void *)f->map, f->size);
}

/* On failure whatever was read so far is left for file_close. */
static bool file_open(gguf_file *f, const char *path, complaint e) {
    *f = (gguf_file){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail(e, "cannot open %s: %s", path, strerror(errno));
    struct stat about;
    bool regular = !fstat(fd, &about) && S_ISREG(about.st_mode);
    f->size = regular ? (uint64_t)about.st_size : 0;
    void *map = f->size < 24 ? MAP_FAILED : mmap(NULL, f->size, PROT_READ, MAP_PRIVATE, fd, 0);
    int problem = errno;
    close(fd);
    if (f->size < 24) return fail(e, "%s is not a parameters file: it is %s", path, regular ? "shorter than a header" : "not a regular file");
    if (map == MAP_FAILED) return fail(e, "cannot map %s: %s", path, strerror(problem));
    f->map = map;
    if (memcmp(f->map, "GGUF", 4)) return fail(e, "%s is not a parameters file: it does not begin with GGUF", path);
    uint32_t version = get_u32(f->map + 4);
    if (version != 2 && version != 3) return fail(e, "GGUF version %u is not supported (2 and 3 are)", version);
    cursor c = {f->map + 24, f->size - 24};
    return read_entries(f, &c, get_u64(f->map + 16), e) && read_tensors(f, &c, get_u64(f->map + 8), e);
}

/* Metadata values, checked. An absent key gives `otherwise`; a wrong type or an unreasonable value is an error. */
static bool get_integer(const gguf_file *f, const char *key, int64_t otherwise, int64_t least, int64_t most, int32_t *value, complaint e) {
    const entry *it = find(f, key);
    uint64_t bits = 0;
    if (it) {
        memcpy(&bits, it->at, KIND_BYTES[it->kind]);
        switch (it->kind) {
            case U8: case U16: case U32: case U64: case I64: case BOOL: otherwise = (int64_t)bits; break;
            case I8: otherwise = (int8_t)bits; break;
            case I16: otherwise = (int16_t)bits; break;
            case I32: otherwise = (int32_t)bits; break;
            default: return fail(e, "metadata: %s is not an integer", key);
        }
        if (otherwise < least || otherwise > most)
            return fail(e, "metadata: %s is %lld, which is not from %lld to %lld", key, (long long)otherwise, (long long)least, (long long)most);
    }
    *value = (int32_t)otherwise;
    return true;
}

static bool get_real(const gguf_file *f, const char *key, double otherwise, double least, double most, float *value, complaint e) {
    const entry *it = find(f, key);
    if (it) {
        float single = 0;
        if (it->kind == REAL32) memcpy(&single, it->at, 4), otherwise = (double)single;
        else if (it->kind == REAL64) memcpy(&otherwise, it->at, 8);
        else return fail(e, "metadata: %s is not a real number", key);
        if (!(otherwise >= least && otherwise <= most)) return fail(e, "metadata: %s is %g, which is not from %g to %g", key, otherwise, least, most);
    }
    *value = (float)otherwise;
    return true;
}

static const char *get_text(const gguf_file *f, const char *key) {
    const entry *it = find(f, key);
    return it ? it->copy : NULL;
}

/* ==== tokenizer ===========================================================================================
 * Text to tokens and back, for the two kinds of vocabulary that files carry:
 *   llama  SentencePiece: single characters are merged, the pair whose merged token has the highest score first; what
 *          has no token is written byte by byte.
 *   gpt2   byte-level BPE: the text is cut into words (by the file's "pre-tokenizer"), and within each word bytes are
 *          merged, the pair that stands first in the file's list first.
 * Every token has a *piece*: the raw bytes it stands for in a text. Control and user-defined tokens are *literals*: found
 * in a text as they stand, before anything is merged. Merging looks only at normal tokens, so that a control token can
 * come out of a text in one way alone: its name is found there and the caller asked for it.
 * Encoding n bytes costs O(n log n) time and O(n) memory. Nothing is written after open: threads share a tokenizer. */
typedef struct {                      /* what the file says of its vocabulary; counts and ids are checked */
    text_view model, pre;             /* "llama" or "gpt2"; the pre-tokenizer's name */
    uint32_t n_tokens, n_merges;
    const text_view *tokens, *merges; /* in the file's spelling */
    const float *scores;              /* one a token, or NULL */
    const int32_t *types;             /* one a token, or NULL: all normal */
    int32_t bos, eos, eot, unk;       /* -1 where there is none */
    int add_space_prefix;             /* llama: a space is put in front of a text */
} vocabulary_source;

/* ---- characters ---- */

enum { NO_CHARACTER = 0x110000, CUT_SHORT };  /* in place of a code point: a byte that is not UTF-8; one whose character goes on after the text */

/* Read one character, or one byte where there is none. Returns how many bytes that are. */
static inline int utf8_read(const char *text, int64_t size, uint32_t *point) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};      /* less would be too long a form */
    const unsigned char lead = (unsigned char)*text;
    *point = lead;
    if (lead < 0x80) return 1;
    const int length = lead < 0xC0 || lead > 0xF7 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    uint32_t value = lead & 0x7Fu >> length;
    int i = 1;
    for (; i < length && i < size && (text[i] & 0xC0) == 0x80; i++) value = value << 6 | (text[i] & 0x3F);
    const bool good = i == length && value >= least[length] && value < NO_CHARACTER && value >> 11 != 0x1B;    /* no surrogate */
    *point = good ? value : i < length && i == size ? CUT_SHORT : NO_CHARACTER;
    return good ? length : 1;
}

/* What the pre-tokenizers' patterns call a letter, a number and so on: for each class its ranges in order, each
 * as the gap to the one before it and its length. A number is written in base 26 with letters, the last digit as a capital.
 * Unicode 18.0, printed by tools/unicode_tables.py. */
enum {
    LETTER = 1, NUMBER = 2, PUNCTUATION = 4, INDENT = 8, NEWLINE = 16, BLANK = 32, DIGIT = 64, SIGN = 128,
    CASED = 256, MARK = 512, HAN = 1024,        /* DeepSeek LLM's own */
    SPACE = INDENT | NEWLINE, OTHER = 2048,     /* OTHER: no letter, number or space */
    CLASSES = 0x40000                           /* no range reaches as far */
};
static const struct { uint16_t class; const char *ranges; } CHARACTERS[] = {
    {LETTER, "cNbAGbAbVBKBEBFXBbFBrQEMOFHBBBeZFBCCEBBGBBDBBBUBdFBfJIgKBbMBCGbPCCcPbBEEbTbRbJCBdVBBPCHCKDCBQBBbEbDdLLBYbHJCEBFWEBJBDBXZHLFYBHQbQcGcCDBSBHKP"
     "QEICCCWBHBBDEDBQBNCBDOCKBIGECCWBHBCBCBCbFEBBTDQJBDBWBHBCBFDBSBPCXBLICCCWBHBCBFDBbECBDPBRBBGDDBEDCBBBCDCDDDMWBcAIBDBXBQDBbADBCCCbEBEIBDBXBKBF"
     "DBbEDBCPCRJBDBbPCBQBFDIDYGFSDYBJBBCHcGbWBCMHcGCBBBFBYBBBKBCJBCFBBVEbGBcLIBbKbBFeLbRUBQGEEDBDCHDENMBRbMBBFBCbRBmVBECHBBBECbPBECbHBECHBBBECPBc"
     "FBECcPbLQQdICGDxWCRBbAFcXGIHSNTOSONBDPcAbJBEBcPdLHFCbIBBFcSKbFbXbECFLbSEbAcCXJcBdEBdPbVRIcCbENCKbSbAbKbPDKbKCLFbRCDbPEBGBCDBFhKcMkSCGCbMCGCI"
     "BBBBBBBbFCcBBHBBDDBHDECGENFDBHeMBNBPRdUBEBCKBBDFGBBBBBBEBLCEFFEBcACdzFiVGEDCMbMBBFBCcEHBQXJHBHBHBHBHBHBHBHdCBsBCbQFFCEdIGDBdMBEFbRBdQRbGbWQt"
     "SjtOcMbguFcPbUCkJDQKCUbVQbFCcSbXJCdZCdFEBORBDBEBXbDcAObYcKGDBBCLbCKXZbDHbVbCBQFBKKFBbPXDBIUXDBDbYBBDCCFCBBBYDCLHDMGCGCGJHBHBbRBOCCCeLbDqnSMX"
     "EbXmnCoCCeCbMHMFFBBKBNBFBBBCBCBeEbHnZScMCcCbOMeMFBfFbKbAGbALdLDGCGCGCDbJMBbABTBCBPCObIeToZbDDbXbVbGNUBIGbMKbECbKEIbWgCSbKEbKEbOIcAMLBPBHBCBL"
     "BPBHBCDcAMlZJWKIYGBbQBOcMGCBBbSBCDBCXKXJbFcNTBCKWKbAGbAbMcEGCcMBPEBDBbDbQbDDbDbJIBbCbBcCKWKTNSeGcVcDbZNbZNbKbMbCJXjQbQGCQGRWRbDKBIWbQSbUVbBX"
     "McBcFCCBNbTbGZbAbKbDBCBIbJDBMbWOEVBBBbJSBZTCcLHBBBEBPBKHbVbMICCCWBHBCBFDBSBMFbEKBBCBBbMBBZBBBbScBSEUDbEbWUCBBhCbVbPEbKbWUBcHbRNBcTbBbLHhDbSe"
     "McMbFICBCIBCBYPBBBdQICbNQBBBbCBKbOHBVBLbUTBScVRBgZbHbFJBbLRBbXbEeIHBCBbMVBZGBCBbGOBXbSVBjETPBBNBbIeUBdBbjMiWhOdxKdTPbpGRGZfxRFwLkdDbEcpUvXHb"
     "FRdBRbESbWQEbFVFTqQbTiDcMbGZCZbScXFBcONcMCBBOCMkyDbKbIdReLNbjEObZlkNEBHBCBlLJBbDDCBOFHpGdkUeDFNDJHKiwKdHBcTBCCBCCCEBMBBBHBcNBECIBHBbCBEBFBBD"
     "HBnDBZBZBbFBZBbFBZBbFBZBbFBZBIcsYfAOHcCbZbWcKfQbTKHQBmJbESbSsQbCiUbECBhZbFBDBCBHCFJCiQHBEBCBPBhPcHcQHBbuIEBbBBCBBCBBKBEBBBBGBEBBBBBBDBCBBCBB"
     "BBBBBBBBCBBCEBHBEBEBBBKBRFDBFBRgoAclfCbGgmPBioCClbLPxYdqWuWcfYhhZFmoOcgxIqtS"},
    {NUMBER, "bWKeQCFBCDcdLKfEKhQKpWKeOKEGeEKeOKeOKCGeGNeLKIHdZKeAHHTeFKdSKeOKcSUkIKcSKbbRUbhXDjFKGKWKlOKeYLgJKGKhAKdIKfEKGKboGBDGGKhQbZCFbbYcIdAWyGbEcbHB"
     "bdXBZJODnFEfIKbEIBPbGKbNPbrsAKhGKmIGfYKbMKhQKWKdIKpQKbfmCKsZbTMcFRCnDbBbKEbDBIBfEFhUKbkGIZHbNJcXFWGgECCQCbUcMJcACbEDcXFeAIYIbPHmSGbWKGKkSbFg"
     "CKbQEeIHfEbEeYKcIKfOKHUjRKnEKeOKoKKdYKGUcYMqETdPKzMKdIbDiTKcSKcCKnUKdYVbpBeIFLiAlZwfPKdmCKdIKfEKBHuGKkCXnLDbjfLKceWUMUeEZbqRbYdnCKqGKtIKjNKb"
     "bOJeYKbeLcHBDBEcYbTBPblANedFK"},
    {PUNCTUATION, "bHDBGBEKCDCbADBBbBBBBbJBFBDBKCDBDBbbABIBrYGbPCbZBBBCBCBbSCUCBCNBBDcWEdYBbROiZDcCPbFBkBCKBfKBeQBeRBpABMBoDBdMBKCgMPBBbLEcTBcWFECeHGgPBxOJfVBx"
     "XBbSCdADcTCgBDBDbLLmBCiICeYHBGgECKHbCDeUEcHFcKCcMILBbfWYIUBNBMbECOCyJEbDCbpTOdBCbFKpNWcLEbGCbdJEBCeIBfNbVBbGCMCEpXDEKCMQBMBdUBdMBbryGCkJDdVB"
     "KBeLGoQEdICbODBBbXCbVBdTNQCeUEeWCQCjPBbeuSCiAKWbJBOBBEBBCfTDBGBEKCDCbADBBbBBBBBHpUDzSBbWBpYBbcPBhRBbFBkMJbMBeIHcOHdLErXBmGBbIBfCFbSEhHHeFCBE"
     "eWEbWCdBEEBNBBDdKGeDBlMCBCeKFKCBBeABjQXeBDbCNcYBfADjSBkEDfZBdOIdFDBFdPKiHBdRFbQCyVCcWNgTBbrSFejCCwdVCfDBcNFIBvGDlJEmPBbdbOBliLFeiTBbhEC"},
    {INDENT, "JBBCTBdWBbABihJBdpNLbDCFBbVBfxWB"},
    {NEWLINE, "KBCB"},
    {BLANK, "bGB"},
    {DIGIT, "bWK"},
    {SIGN, "bKBGBQDbFBBBbBBBB"},
    {CASED, "cNbAGbAcGBKXBbFBhNBEEiABbBhKECCDDBBGBBDBBBUBdFBfJIgKBbMehDbMbcCdICGdgKbRCDcMbScLNBbIdXkSCGCbMCGCIBBBBBBBbFCcBBHBBDDBHDECGENFDBHkBBEBCKBBDFGB"
     "BBBBBEBGEBCEFFEBcACdzFeUCdZGEDCbtyIbUSbCfEdABXDEbmFdCbeaIHMFbnTbAGbAbtTdCdSbKEbKcwAbZNbZekZcMdavGcQ"},
    {MARK, "bHPKcRlzDIgaIDdakCPKcR"},
    {HAN, "daUcflEerQqrG"},
};

static uint32_t next_number(const char **at) {
    uint32_t number = 0;
    while (**at >= 'a') number = 26 * number + (uint32_t)(*(*at)++ - 'a');
    return 26 * number + (uint32_t)(*(*at)++ - 'A');
}

/* The classes of every character below CLASSES; NULL: out of memory. */
static uint16_t *character_classes(void) {
    uint16_t *classes = calloc(CLASSES, sizeof *classes);
    for (size_t i = 0; classes && i < sizeof CHARACTERS / sizeof *CHARACTERS; i++) {
        uint32_t point = 0;
        for (const char *at = CHARACTERS[i].ranges; *at;) {
            point += next_number(&at);
            for (uint32_t n = next_number(&at); n > 0; n--) classes[point++] |= CHARACTERS[i].class;
        }
    }
    for (uint32_t point = 0; classes && point < CLASSES; point++)
        if (!(classes[point] & (LETTER | NUMBER | SPACE))) classes[point] |= OTHER;
    return classes;
}

/* ---- pre-tokenizers ---- */

/* A text is cut by one pattern after another: each cuts what the patterns before it left in one piece, into its matches
 * and what lies between them. A pattern is a list of alternatives, tried in order. */
typedef struct {
    enum { END, RUN, LINES, SPACES, LAST_SPACES, CONTRACTION, ANY_CASE } how; /* RUN: as below; the others: see `match` */
    uint16_t before, body, after;     /* a character of these classes, where there is one; then characters of these, */
    int32_t least, most;              /* so many; then of the last, as many as there are */
} alternative;

#define ANY INT32_MAX
#define PATTERN(...) (const alternative[]){__VA_ARGS__, {.how = END}}
#define ONE(before, body, least, most) PATTERN({RUN, before, body, 0, least, most})
/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
#define GPT2 PATTERN({CONTRACTION, 0, OTHER, 0, 1, 1}, {RUN, BLANK, LETTER, 0, 1, ANY}, {RUN, BLANK, NUMBER, 0, 1, ANY}, \
                     {RUN, BLANK, OTHER, 0, 1, ANY}, {SPACES, 0, SPACE, 0, 1, ANY})
/* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
#define LLAMA3(digits) PATTERN({ANY_CASE, 0, OTHER, 0, 1, 1}, {RUN, OTHER | INDENT, LETTER, 0, 1, ANY}, {RUN, 0, NUMBER, 0, 1, digits}, \
                     {RUN, BLANK, OTHER, NEWLINE, 1, ANY}, {LINES, 0, SPACE, 0, 1, ANY}, {SPACES, 0, SPACE, 0, 1, ANY})

typedef struct {
    const char *names[15];            /* that files use for it; "": where a file names none */
    bool whole_words;                 /* a word that is a token is not merged from its bytes */
    const alternative *patterns[7];
} pre_tokenizer;

static const pre_tokenizer PRE_TOKENIZERS[] = {
    {{"", "gpt-2", "default", "mpt", "gpt-neox", "olmo", "phi-2", "jais", "trillion", "granite-docling", "gigachat", "a.x-4.0", "mellum", "exaone4"}, 0, {GPT2}},
    {{"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"}, 0, {ONE(0, NUMBER, 1, 1), GPT2}},
    {{"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"}, 1, {LLAMA3(3)}},
    {{"dbrx", "smaug-bpe", "glm4", "chatglm-bpe"}, 0, {LLAMA3(3)}},
    {{"qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan", "solar-open", "grok-2", "kormo"}, 0, {LLAMA3(1)}},
    {{"falcon"}, 0, {ONE(0, PUNCTUATION | SIGN, 1, ANY), GPT2, ONE(0, DIGIT, 3, 3)}},
    {{"deepseek-coder"}, 0, {ONE(0, NEWLINE, 1, 1), ONE(SPACE, LETTER, 1, ANY), ONE(SPACE, PUNCTUATION, 1, ANY), ONE(0, HAN, 1, ANY), ONE(0, NUMBER, 1, 1)}},
    {{"deepseek-llm"}, 0, {ONE(0, NEWLINE, 1, 1), ONE(SPACE, CASED, 1, ANY), ONE(SPACE, MARK, 1, ANY), PATTERN({LAST_SPACES, 0, SPACE, 0, 1, ANY}),
                         ONE(0, HAN, 1, ANY), ONE(0, NUMBER, 1, ANY)}},
};

/* The pre-tokenizer of that name, or NULL. */
static const pre_tokenizer *find_pre_tokenizer(text_view name) {
    for (size_t i = 0; i < sizeof PRE_TOKENIZERS / sizeof *PRE_TOKENIZERS; i++)
        for (const char *const *its = PRE_TOKENIZERS[i].names; *its; its++)
            if (same(name, *its)) return &PRE_TOKENIZERS[i];
    return NULL;
}

/* ---- opening ---- */

/* A hash table, probed one slot after another up to one that is free; at most 3/4 of the slots are taken. */
typedef struct { uint64_t key; int32_t token; uint32_t rank; } slot;   /* token -1: free */
typedef struct { slot *slots; uint64_t mask; } table;

typedef struct {
    int32_t n_tokens, unk;
    const pre_tokenizer *pre;         /* NULL: SentencePiece */
    bool add_space_prefix;
    char *bytes;                      /* of all pieces */
    text_view *pieces;
    uint8_t *attributes;              /* TF_NORMAL ... TF_BYTE */
    float *scores;
    table tokens;                     /* the hash of a piece -> its normal token, that of a literal -> its token */
    table merges;                     /* two tokens -> the token they make, and how early in the list; byte-level only */
    uint64_t factor;                  /* odd, and drawn for each open, so that no file can choose what falls together */
    uint64_t longest, longest_literal; /* bytes in the longest piece of a normal token, of a literal */
    bool begins_literal[256];         /* a literal begins with this byte */
    int32_t byte_tokens[256];         /* -1 where a byte has no token */
    uint16_t *classes;                /* of the characters; byte-level only */
} tokenizer;

static bool new_table(table *it, uint64_t entries) {
    uint64_t slots = 16;
    while (slots / 4 * 3 < entries) slots *= 2;
    it->mask = slots - 1;
    it->slots = malloc(slots * sizeof *it->slots);
    return it->slots && memset(it->slots, 0xFF, slots * sizeof *it->slots);
}

/* The slot that has the key, or the free one where it would go. */
static slot *find_slot(const tokenizer *t, const table *in, uint64_t key) {
    for (uint64_t at = key * t->factor >> 32;; at++) {
        slot *found = &in->slots[at & in->mask];
        if (found->token < 0 || found->key == key) return found;
    }
}

static uint64_t merge_key(int32_t left, int32_t right) { return (uint64_t)left << 32 | (uint64_t)right; }

/* A byte at a time, so that each prefix of a text has its hash at the cost of one. */
enum { HASH_PIECE = 0x100, HASH_LITERAL = 0x200 };     /* to begin with: of a normal token's piece, of a literal */
static uint64_t hash_byte(const tokenizer *t, uint64_t hash, char byte) {
    hash = (hash ^ (unsigned char)byte) * t->factor;
    return hash ^ hash >> 32;
}
static uint64_t hash_bytes(const tokenizer *t, uint64_t hash, const char *at, uint64_t size) {
    for (uint64_t i = 0; i < size; i++) hash = hash_byte(t, hash, at[i]);
    return hash;
}

/* The token that has this piece, with that hash, or -1. */
static int32_t token_of(const tokenizer *t, const char *at, uint64_t size, uint64_t hash) {
    int32_t token = find_slot(t, &t->tokens, hash)->token;
    return token >= 0 && t->pieces[token].size == size && !memcmp(t->pieces[token].at, at, size) ? token : -1;
}

/* The normal token that has this piece, or -1. */
static int32_t find_piece(const tokenizer *t, const char *at, uint64_t size) {
    return size == 0 || size > t->longest ? -1 : token_of(t, at, size, hash_bytes(t, HASH_PIECE, at, size));
}

/* Byte-level vocabularies write a byte as a visible character: itself where it is one, else the next from U+0100 on. */
static int spelled_byte(uint32_t point) {
    if (point < 0x100) return (point > 0x20 && point < 0x7F) || (point > 0xA0 && point != 0xAD) ? (int)point : -1;
    if (point < 0x121) return (int)point - 0x100;          /* 0x00 to 0x20 */
    if (point < 0x143) return (int)point - 0x121 + 0x7F;   /* 0x7F to 0xA0 */
    return point == 0x143 ? 0xAD : -1;
}

/* Write the bytes that a text in the file's spelling stands for; never more than it has. SentencePiece has U+2581 for a space. */
static uint64_t unspell(const tokenizer *t, const char *text, uint64_t size, char *out) {
    uint64_t written = 0;
    for (uint64_t i = 0, bytes; i < size; i += bytes) {
        uint32_t point;
        bytes = (uint64_t)utf8_read(text + i, (int64_t)(size - i), &point);
        int byte = t->pre ? spelled_byte(point) : point == 0x2581 ? ' ' : -1;
        if (byte >= 0) out[written++] = (char)byte;
        else memcpy(out + written, text + i, bytes), written += bytes;
    }
    return written;
}

/* The byte that a text like "<0x41>" names, or -1. */
static int named_byte(text_view text) {
    if (text.size != 6 || memcmp(text.at, "<0x", 3) || text.at[5] != '>') return -1;
    const char digits[] = {text.at[3], text.at[4], 0};
    return strspn(digits, "0123456789ABCDEFabcdef") == 2 ? (int)strtol(digits, NULL, 16) : -1;
}

/* Read one token: its attribute, its piece (written at *at) and, of tokens with the same piece the first, where to find it. */
static const char *read_token(tokenizer *t, const vocabulary_source *v, int32_t i, char **at) {
    text_view text = v->tokens[i], piece = {*at, text.size};
    int32_t type = v->types ? v->types[i] : TF_NORMAL, byte = named_byte(text);
    if (type < TF_NORMAL || type > TF_BYTE) return "tokenizer.ggml.token_type has an entry that is no token type";
    if ((type == TF_CONTROL || type == TF_USER_DEFINED) && text.size > 256)     /* each place of a text is held against them */
        return "tokenizer.ggml.tokens has a control or user-defined token of more than 256 bytes";
    if (type == TF_BYTE && byte < 0) return "tokenizer.ggml.tokens has a byte that is not written like <0x41>";
    /* Tokens that begin and end texts are control tokens even where a careless file has them as normal ones. One byte
     * is left alone: small vocabularies that have no such token may say 0 and mean nothing by it. */
    if ((i == v->bos || i == v->eos || i == v->eot) && text.size > 1) type = TF_CONTROL;
    if (type == TF_NORMAL) piece.size = unspell(t, text.at, text.size, *at);
    else if (type == TF_BYTE) **at = (char)byte, piece.size = 1;
    else memcpy(*at, text.at, text.size);
    *at += piece.size;
    t->pieces[i] = piece;
    t->attributes[i] = (uint8_t)type;
    if (type == TF_UNKNOWN || type == TF_UNUSED || piece.size == 0) return NULL;
    const bool normal = type == TF_NORMAL;
    if (piece.size == 1 && (normal || type == TF_BYTE)) { /* a normal token stands for a byte rather than a byte token */
        int32_t *token = &t->byte_tokens[(unsigned char)*piece.at];
        if (*token < 0 || t->attributes[*token] > type) *token = i;
    }
    if (type == TF_BYTE) return NULL;
    uint64_t *longest = normal ? &t->longest : &t->longest_literal;
    if (piece.size > *longest) *longest = piece.size;
    if (!normal) t->begins_literal[(unsigned char)*piece.at] = true;
    const uint64_t hash = hash_bytes(t, normal ? HASH_PIECE : HASH_LITERAL, piece.at, piece.size);
    slot *found = find_slot(t, &t->tokens, hash);
    if (found->token < 0) *found = (slot){hash, i, 0};
    return NULL;
}

/* Of merges of the same two tokens the first counts. Those that name something which is no normal token do nothing. */
static const char *read_merges(tokenizer *t, const vocabulary_source *v) {
    uint64_t longest = 4 * t->longest + 1; /* a byte is spelled with two at most */
    char *pair = malloc(longest);
    t->classes = character_classes();
    const char *problem = new_table(&t->merges, v->n_merges) && t->classes && pair ? NULL : "out of memory";
    for (uint32_t i = 0; !problem && i < v->n_merges; i++) {
        text_view text = v->merges[i];
        const char *space = text.size > 2 ? memchr(text.at + 1, ' ', text.size - 2) : NULL;
        if (!space) problem = "tokenizer.ggml.merges has an entry that is not two tokens with a space between";
        if (!space || text.size > longest) continue;
        uint64_t left_size = unspell(t, text.at, (uint64_t)(space - text.at), pair);
        uint64_t right_size = unspell(t, space + 1, (uint64_t)(text.at + text.size - space - 1), pair + left_size);
        int32_t left = find_piece(t, pair, left_size), right = find_piece(t, pair + left_size, right_size);
        int32_t joined = find_piece(t, pair, left_size + right_size);
        if (left < 0 || right < 0 || joined < 0) continue;
        slot *found = find_slot(t, &t->merges, merge_key(left, right));
        if (found->token < 0) *found = (slot){merge_key(left, right), joined, i};
    }
    free(pair);
    return problem;
}

/* All of open, but that what has been allocated stays when it fails. */
static const char *tokenizer_build(tokenizer *t, const vocabulary_source *v) {
    const bool byte_level = same(v->model, "gpt2");
    if (!byte_level && !same(v->model, "llama")) return "tokenizer.ggml.model is neither llama nor gpt2";
    if (byte_level && !(t->pre = find_pre_tokenizer(v->pre))) return "tokenizer.ggml.pre names an unknown pre-tokenizer";
    const int32_t n = t->n_tokens = (int32_t)v->n_tokens;
    uint64_t total = 1;
    for (int32_t i = 0; i < n; i++) total += v->tokens[i].size;
    t->bytes = malloc(total);
    t->pieces = calloc(v->n_tokens, sizeof *t->pieces);
    t->attributes = malloc(v->n_tokens);
    t->scores = calloc(v->n_tokens, sizeof *t->scores);
    if (!new_table(&t->tokens, v->n_tokens) || !t->bytes || !t->pieces || !t->attributes || !t->scores) return "out of memory";
    memset(t->byte_tokens, 0xFF, sizeof t->byte_tokens);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    t->factor = ((uint64_t)now.tv_nsec << 32 ^ (uint64_t)(uintptr_t)t->bytes) * 0x9E3779B97F4A7C15u | 1;
    char *at = t->bytes;
    for (int32_t i = 0; i < n; i++) {
        const char *problem = read_token(t, v, i, &at);
        if (problem) return problem;
        if (v->scores) t->scores[i] = isnan(v->scores[i]) ? -INFINITY : v->scores[i]; /* what is not a number would have no place in the order */
    }
    t->unk = v->unk >= 0 && t->attributes[v->unk] != TF_CONTROL ? v->unk : -1;
    t->add_space_prefix = !t->pre && v->add_space_prefix;
    return t->pre ? read_merges(t, v) : NULL;
}

static void tokenizer_close(tokenizer *t) {
    free(t->bytes), free(t->pieces), free(t->attributes), free(t->scores), free(t->tokens.slots), free(t->merges.slots), free(t->classes);
}

/* Returns NULL, or what is wrong with the file: then there is nothing to close. Nothing of `v` is kept. */
static const char *tokenizer_open(tokenizer *t, const vocabulary_source *v) {
    *t = (tokenizer){0};
    const char *problem = tokenizer_build(t, v);
    if (problem) tokenizer_close(t);
    return problem;
}

/* ---- encoding ---- */

typedef struct {                      /* a stretch of text, in a list of neighbours */
    double priority;                  /* of the pair with the next one */
    int32_t joined, token;            /* the token that the pair would make, and the one that this is; -1: none */
    int32_t start, size, previous, next;
} symbol;
typedef struct { double priority; int32_t left; } bigram; /* a symbol and the next one */

typedef struct {                      /* one call of encode; room for all of its text */
    const tokenizer *t;
    const char *text;                 /* what the offsets below are into */
    char *spaced;                     /* SentencePiece: the text with plain spaces */
    int32_t *starts;                  /* byte-level: where each character starts, and the end of the last one */
    uint16_t *classes;                /* byte-level: the classes of each character */
    symbol *symbols;
    bigram *heap;                     /* pairs to merge, and stale ones */
    int64_t n_heap, room, count;
    int32_t *out;                     /* `count` tokens so far, the first `room` of them written */
} encoder;

static void emit(encoder *e, int32_t token) {
    if (e->count < e->room) e->out[e->count] = token;
    e->count++;
}

/* What comes first: the higher priority, then what stands further left. */
static bool goes_before(bigram a, bigram b) { return a.priority > b.priority || (a.priority == b.priority && a.left < b.left); }

static void heap_push(encoder *e, bigram added) {
    bigram *heap = e->heap;
    int64_t hole = e->n_heap++;
    for (; hole > 0 && goes_before(added, heap[(hole - 1) / 2]); hole = (hole - 1) / 2) heap[hole] = heap[(hole - 1) / 2];
    heap[hole] = added;
}

static bigram heap_pop(encoder *e) {
    bigram *heap = e->heap, first = heap[0], last = heap[--e->n_heap];
    int64_t hole = 0;
    for (int64_t child; (child = 2 * hole + 1) < e->n_heap; hole = child) {
        if (child + 1 < e->n_heap && goes_before(heap[child + 1], heap[child])) child++;
        if (!goes_before(heap[child], last)) break;
        heap[hole] = heap[child];
    }
    heap[hole] = last;
    return first;
}

/* Queue a symbol and the next one, where they make a token. */
static void propose(encoder *e, int32_t left) {
    symbol *a = &e->symbols[left];
    a->joined = -1;
    if (a->next < 0) return;
    const symbol *b = &e->symbols[a->next];
    if (!e->t->pre) {
        a->joined = find_piece(e->t, e->text + a->start, (uint64_t)(a->size + b->size));
        if (a->joined >= 0) a->priority = e->t->scores[a->joined];
    } else if (a->token >= 0 && b->token >= 0) {
        const slot *merge = find_slot(e->t, &e->t->merges, merge_key(a->token, b->token));
        a->joined = merge->token, a->priority = -(double)merge->rank;
    }
    if (a->joined >= 0) heap_push(e, (bigram){a->priority, left});
}

/* Merge a word's bytes, or SentencePiece's characters, until no two neighbours make a token, then put out what is left. Each
 * merge takes a symbol away and proposes two pairs at most, so the heap never holds more than twice as many as there are bytes. */
static void encode_word(encoder *e, int32_t start, int32_t end) {
    const tokenizer *t = e->t;
    symbol *symbols = e->symbols;
    int32_t n = 0, token = t->pre && t->pre->whole_words ? find_piece(t, e->text + start, (uint64_t)(end - start)) : -1;
    if (token >= 0) { emit(e, token); return; }
    for (int32_t at = start, size; at < end; at += size, n++) {
        uint32_t point;
        size = t->pre ? 1 : utf8_read(e->text + at, end - at, &point);
        token = t->pre ? t->byte_tokens[(unsigned char)e->text[at]] : find_piece(t, e->text + at, (uint64_t)size);
        symbols[n] = (symbol){0, -1, token, at, size, n - 1, at + size < end ? n + 1 : -1};
    }
    for (int32_t i = 0; i < n; i++) propose(e, i);
    while (e->n_heap > 0) {
        bigram pair = heap_pop(e);
        symbol *left = &symbols[pair.left];
        if (left->joined < 0 || left->priority != pair.priority) continue; /* stale: one of the two was merged since */
        symbol *right = &symbols[left->next];
        left->size += right->size, left->token = left->joined, left->next = right->next;
        right->joined = -1;
        if (left->next >= 0) symbols[left->next].previous = pair.left;
        if (left->previous >= 0) propose(e, left->previous);
        propose(e, pair.left);
    }
    for (const symbol *it = symbols;; it = &symbols[it->next]) {
        if (it->token >= 0) emit(e, it->token);
        for (int32_t i = 0; it->token < 0 && i < it->size; i++) { /* no token: byte by byte; a byte without one is unknown */
            token = t->byte_tokens[(unsigned char)e->text[it->start + i]];
            if (token >= 0 || t->unk >= 0) emit(e, token >= 0 ? token : t->unk);
        }
        if (it->next < 0) return;
    }
}

/* 's|'t|'re|'ve|'m|'ll|'d: how many characters of one stand here. */
static int contraction(const encoder *e, int64_t i, int64_t to, bool any_case) {
    const char *at = e->text + e->starts[i];
    if (*at != '\'' || i + 1 >= to) return 0;
    int fold = any_case ? 0x20 : 0, first = at[1] | fold, second = i + 2 < to ? at[2] | fold : 0;
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
    return (second == 'e' && (first == 'r' || first == 'v')) || (second == 'l' && first == 'l') ? 3 : 0;
}

/* Where an alternative's match at character `i` ends, in a stretch from `from` to `to`; `i` where there is none. */
static int64_t match(const encoder *e, const alternative *a, int64_t from, int64_t i, int64_t to) {
    const uint16_t *classes = e->classes;
    if (!(classes[i] & (a->before | a->body))) return i;
    if (a->how == CONTRACTION || a->how == ANY_CASE) return i + contraction(e, i, to, a->how == ANY_CASE);
    if (a->how == LAST_SPACES && i > from && classes[i - 1] & SPACE) return i;         /* \s+$ would have begun before */
    int64_t start = i + (classes[i] & a->before && i + 1 < to && classes[i + 1] & a->body), end = start;
    while (end < to && end - start < a->most && classes[end] & a->body) end++;
    if (end - start < a->least || (a->how == LAST_SPACES && end < to)) return i;
    while (end < to && classes[end] & a->after) end++;
    while (a->how == LINES && end > i && !(classes[end - 1] & NEWLINE)) end--;         /* \s*[\r\n]+ */
    return a->how == SPACES && end < to && end > i + 1 ? end - 1 : end;                /* \s+(?!\S)|\s+: one is left to the next word */
}

/* Cut the characters `from` to `to` by a pattern and those after it, and encode the words. */
static void cut(encoder *e, const alternative *const *pattern, int64_t from, int64_t to) {
    if (from >= to) return;
    if (!*pattern) { encode_word(e, e->starts[from], e->starts[to]); return; }
    int64_t gap = from;
    for (int64_t i = from, end; i < to; i = end) {
        end = i;
        for (const alternative *a = *pattern; end == i && a->how; a++) end = match(e, a, from, i, to);
        if (end == i) { end++; continue; }
        cut(e, pattern + 1, gap, i);
        cut(e, pattern + 1, i, end);
        gap = end;
    }
    cut(e, pattern + 1, gap, to);
}

/* A stretch of text without literals. */
static void encode_stretch(encoder *e, const char *text, int64_t size) {
    const tokenizer *t = e->t;
    e->text = t->pre ? text : e->spaced;
    if (!t->pre) {
        const int prefix = t->add_space_prefix;
        *e->spaced = ' ';
        encode_word(e, 0, prefix + (int32_t)unspell(t, text, (uint64_t)size, e->spaced + prefix));
        return;
    }
    int64_t n = 0;
    for (int64_t i = 0; i < size; n++) {
        uint32_t point;
        e->starts[n] = (int32_t)i;
        i += utf8_read(text + i, size - i, &point);
        e->classes[n] = point < CLASSES ? t->classes[point] : OTHER;
    }
    e->starts[n] = (int32_t)size;
    cut(e, t->pre->patterns, 0, n);
}

/* The longest literal that the text begins with, or -1. User-defined tokens are part of any text, as in llama.cpp. */
static int32_t literal_at(const tokenizer *t, const char *text, int64_t size, bool special) {
    uint64_t longest = t->longest_literal < (uint64_t)size ? t->longest_literal : (uint64_t)size, hash = HASH_LITERAL;
    int32_t found = -1;
    if (!t->begins_literal[(unsigned char)*text]) return -1;
    for (uint64_t n = 1; n <= longest; n++) {
        hash = hash_byte(t, hash, text[n - 1]);
        int32_t token = token_of(t, text, n, hash);
        if (token >= 0 && (special || t->attributes[token] == TF_USER_DEFINED)) found = token;
    }
    return found;
}

/* Tokens of a text; see tf_tokenize. */
static int64_t tokenizer_encode(const tokenizer *t, const char *text, int64_t size, bool special, int32_t *out, int64_t room) {
    if (size <= 0 || size > INT32_MAX - 64) return size ? -1 : 0;
    const size_t n = (size_t)size + 1;
    encoder e = {.t = t, .out = out, .room = room, .spaced = malloc(n), .starts = malloc(n * sizeof *e.starts), .classes = malloc(n * sizeof *e.classes),
                 .symbols = malloc(n * sizeof *e.symbols), .heap = malloc(2 * n * sizeof *e.heap)};
    const bool good = e.spaced && e.starts && e.classes && e.symbols && e.heap;
    for (int64_t i = 0, from = 0; good && i <= size;) { /* from one literal to the next, and to the end */
        int32_t token = i < size ? literal_at(t, text + i, size - i, special) : -1;
        if (token < 0 && i < size) { i++; continue; }
        if (from < i) encode_stretch(&e, text + from, i - from);
        if (token < 0) break;
        emit(&e, token);
        from = i += (int64_t)t->pieces[token].size;
    }
    free(e.spaced), free(e.starts), free(e.classes), free(e.symbols), free(e.heap);
    return good ? e.count : -1;
}

/* ---- decoding ---- */

/* Bytes of tokens; see tf_detokenize. */
static int64_t tokenizer_decode(const tokenizer *t, const int32_t *ids, int64_t n, bool special, bool skip_space, char *out,
                                int64_t room) {
    int64_t count = 0;
    bool skip = skip_space && t->add_space_prefix;
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= t->n_tokens) return -1;
        int attribute = t->attributes[ids[i]], plain = attribute == TF_NORMAL || attribute == TF_BYTE;
        text_view piece = t->pieces[ids[i]];
        if ((!plain && attribute != TF_USER_DEFINED && !special) || piece.size == 0) continue;
        for (uint64_t k = skip && plain && *piece.at == ' '; k < piece.size; k++, count++)
            if (count < room) out[count] = piece.at[k];
        skip = false;
    }
    return count;
}

/* ==== kernels =============================================================================================
 * One idea: sixteen rows of a matrix are a panel, one row a lane. A panel holds its columns one after another, so a
 * vector of weights is multiplied by an activation in all lanes and added to sixteen sums at once. There is no sum across
 * lanes, and each (row, token) is summed in the order of the columns whatever the batch: a token gives the same bits
 * alone, in a batch of 512, and on any number of threads.
 *
 * Quantised panels go in groups of 32 columns, multiplied by activations rounded to 8 bits with one scale for 32. The
 * codes of a group are 32-bit words, each for sixteen lanes: four columns in four bytes, for instructions that add four products.
 *   8 bits   word c/4,      byte c%4
 *   4 bits   word c%16/4,   byte c%4, the low nibble for c < 16, the high one for the others
 *   5th bit  word 4,        byte c%4, bit c/4;          5th and 6th: word 4 + c/16, byte c%4, bits 2(c%16/4) and the next
 * What scales the codes stands in front of each stretch of 2 or 8 groups, so that codes begin on cache lines. Q8_0 and Q4_0
 * have an f16 scale a group. The K types have an f16 d (and dmin) for eight groups, and for each group two bytes: Q6_K a scale
 * for each half, the others a scale and a minimum. So a panel is as large as its rows are in the file (K: 3% more), and
 * a weight is (code - offset) * (d * scale) - dmin * minimum to the last bit. BF16 panels have two columns in a word. */

enum { LANES = 16, GROUP = 32, LINE = 64 };

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512VNNI__)
#include <immintrin.h>
#define KERNELS "avx512"
#define AVX512
#define AVX2
enum { WIDTH = 16, BATCH_PANELS = 2, BATCH_TOKENS = 8, QUERIES = 8, ATTEND_BLOCKS = 2, ATTEND_COLUMNS = 3, BIAS = 128 };
typedef float vec __attribute__((vector_size(64)));
typedef int32_t ivec __attribute__((vector_size(64)));
static inline vec splat(float x) { return (vec)_mm512_set1_ps(x); }
static inline ivec splat_word(const void *at) { int32_t x; memcpy(&x, at, 4); return (ivec)_mm512_set1_epi32(x); }
static inline vec multiply_add(vec a, vec b, vec c) { return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
static inline vec larger(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
static inline float largest(vec a) { return _mm512_reduce_max_ps((__m512)a); }
static inline vec from_f16(const void *at) { return (vec)_mm512_cvtph_ps(_mm256_loadu_si256(at)); }
static inline vec from_i8(const void *at) { return (vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(at))); }
static inline void to_i8(void *at, ivec a) { _mm_storeu_si128(at, _mm512_cvtepi32_epi8((__m512i)a)); }
static inline ivec dot4(bool wide, ivec sum, ivec w, ivec x) { (void)wide; return (ivec)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, (__m512i)x); }
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include <immintrin.h>
#define KERNELS "avx2"
#define AVX2
enum { WIDTH = 8, BATCH_PANELS = 1, BATCH_TOKENS = 3, QUERIES = 4, ATTEND_BLOCKS = 1, ATTEND_COLUMNS = 1, BIAS = 0 };
typedef float vec __attribute__((vector_size(32)));
typedef int32_t ivec __attribute__((vector_size(32)));
static inline vec splat(float x) { return (vec)_mm256_set1_ps(x); }
static inline ivec splat_word(const void *at) { int32_t x; memcpy(&x, at, 4); return (ivec)_mm256_set1_epi32(x); }
static inline vec multiply_add(vec a, vec b, vec c) { return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
static inline vec larger(vec a, vec b) { return (vec)_mm256_max_ps((__m256)a, (__m256)b); }
static inline vec from_f16(const void *at) { return (vec)_mm256_cvtph_ps(_mm_loadu_si128(at)); }
static inline vec from_i8(const void *at) { return (vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(at))); }
static inline ivec dot4(bool wide, ivec sum, ivec w, ivec x) {      /* pairs of products stay within 16 bits: at most 2 * 128 * 127 */
    __m256i pairs = wide ? _mm256_maddubs_epi16(_mm256_abs_epi8((__m256i)w), _mm256_sign_epi8((__m256i)x, (__m256i)w)) : _mm256_maddubs_epi16((__m256i)w, (__m256i)x);
    return sum + (ivec)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
#else
enum { WIDTH = 4, BATCH_PANELS = 1, BATCH_TOKENS = 2, QUERIES = 4, ATTEND_BLOCKS = 1, ATTEND_COLUMNS = 1, BIAS = 0 };
typedef float vec __attribute__((vector_size(16)));
typedef int32_t ivec __attribute__((vector_size(16)));
static inline vec splat(float x) { return (vec){x, x, x, x}; }
static inline ivec splat_word(const void *at) { int32_t x; memcpy(&x, at, 4); return (ivec){x, x, x, x}; }
static inline vec from_i8(const void *at) { int8_t x[4]; memcpy(x, at, 4); return (vec){x[0], x[1], x[2], x[3]}; }
#if defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#define KERNELS "neon"
static inline vec multiply_add(vec a, vec b, vec c) { return (vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
static inline vec larger(vec a, vec b) { return (vec)vmaxq_f32((float32x4_t)a, (float32x4_t)b); }
#else
#define KERNELS "c"
static inline vec multiply_add(vec a, vec b, vec c) { return a * b + c; }
static inline vec larger(vec a, vec b) { ivec m = a > b; return (vec)((m & (ivec)a) | (~m & (ivec)b)); }
#endif
static inline ivec dot4(bool wide, ivec sum, ivec w, ivec x) {
    (void)wide;
#if defined(__ARM_FEATURE_DOTPROD)
    return (ivec)vdotq_s32((int32x4_t)sum, (int8x16_t)w, (int8x16_t)x);
#elif defined(__ARM_NEON) && defined(__aarch64__)
    const int16x8_t low = vmull_s8(vget_low_s8((int8x16_t)w), vget_low_s8((int8x16_t)x)), high = vmull_high_s8((int8x16_t)w, (int8x16_t)x);
    return sum + (ivec)vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high));
#else
    for (int b = 0; b < 32; b += 8) sum += ((w << (24 - b)) >> 24) * ((x << (24 - b)) >> 24);
    return sum;
#endif
}
static inline vec from_f16(const void *at) {     /* exponent moved by a multiplication, which is exact for subnormals too */
    uint16_t half[4];
    memcpy(half, at, sizeof half);
    ivec bits = {half[0], half[1], half[2], half[3]};
    vec magnitude = (vec)((bits & 0x7fff) << 13) * splat(0x1p112f);
    return (vec)((ivec)magnitude | ((bits & 0x8000) << 16));
}
#endif
enum { PARTS = LANES / WIDTH };

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#define ROLLED _Pragma("clang loop unroll(disable)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#define ROLLED _Pragma("GCC unroll 1")
#endif
#define INLINE static inline __attribute__((always_inline))

INLINE vec load(const void *at) { vec v; memcpy(&v, at, sizeof v); return v; }
INLINE ivec load_words(const void *at) { ivec v; memcpy(&v, at, sizeof v); return v; }
INLINE void store(void *at, vec v) { memcpy(at, &v, sizeof v); }

#if defined(AVX512) && defined(__AVX512BF16__)
enum { BF16_DOT = 1 };          /* products of bf16 pairs, added to floats */
INLINE vec dot2(vec sum, ivec w, ivec x) { return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)w, (__m512bh)x); }
#else
enum { BF16_DOT = 0 };
INLINE vec dot2(vec sum, ivec w, ivec x) { (void)w; (void)x; return sum; }
#endif

/* bf16 is the upper half of a float: rounded to the nearest even, in place. */
INLINE ivec round_bf16(vec a) { return ((ivec)a + 0x7fff + (((ivec)a >> 16) & 1)) & (int32_t)0xffff0000; }
INLINE vec first_of(ivec pair) { return (vec)(pair << 16); }
INLINE vec second_of(ivec pair) { return (vec)(pair & (int32_t)0xffff0000); }

INLINE void to_bf16(const float *x, int n, uint16_t *out) {
    int i = 0;
#if defined(AVX512) && defined(__AVX512BF16__)
    for (; i + WIDTH <= n; i += WIDTH) _mm256_storeu_si256((void *)(out + i), (__m256i)_mm512_cvtneps_pbh((__m512)load(x + i)));
#endif
    for (; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, 4);
        out[i] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
}

#ifndef AVX512
INLINE float largest(vec a) { float most = a[0]; UNROLL for (int i = 1; i < WIDTH; i++) most = a[i] > most ? a[i] : most; return most; }
INLINE void to_i8(void *at, ivec a) { int8_t x[WIDTH]; UNROLL for (int i = 0; i < WIDTH; i++) x[i] = (int8_t)a[i]; memcpy(at, x, WIDTH); }
#endif

INLINE int sum16(const int8_t *x) {
#ifdef AVX2
    __m128i sums = _mm_sad_epu8(_mm_xor_si128(_mm_loadu_si128((const __m128i *)(const void *)x), _mm_set1_epi8(-128)), _mm_setzero_si128());
    return _mm_cvtsi128_si32(sums) + _mm_extract_epi16(sums, 4) - 16 * 128;
#else
    int sum = 0;
    for (int i = 0; i < 16; i++) sum += x[i];
    return sum;
#endif
}

/* e to the x, relative error below 2e-7 (Cephes' polynomial); 0 below -87, where x may be -infinity. */
INLINE vec exponential(vec x) {
    const ivec live = x > splat(-87);
    x = (vec)(live & (ivec)larger(-larger(-x, splat(-88)), splat(-87)));
    const vec shifted = multiply_add(x, splat(1.44269504f), splat(0x1.8p23f)), n = shifted - splat(0x1.8p23f);  /* rounded to a whole number */
    const vec r = multiply_add(n, splat(2.12194440e-4f), multiply_add(n, splat(-0.693359375f), x));
    vec p = splat(1.9875691500e-4f);
    p = multiply_add(p, r, splat(1.3981999507e-3f));
    p = multiply_add(p, r, splat(8.3334519073e-3f));
    p = multiply_add(p, r, splat(4.1665795894e-2f));
    p = multiply_add(p, r, splat(1.6666665459e-1f));
    p = multiply_add(p, r, splat(5.0000001201e-1f));
    p = multiply_add(p * r, r, r + splat(1));
    return (vec)(live & ((ivec)p + ((ivec)shifted << 23)));
}

static float half_to_float(uint16_t half) {
    uint32_t bits = (uint32_t)(half & 0x7fff) << 13;
    float value;
    memcpy(&value, &bits, 4);
    value *= 0x1p112f;
    return half & 0x8000 ? -value : value;
}

/* How a type's panel is laid out. In front of a stretch of groups, for a lane: halves for all of them, then halves and bytes for
 * each; then words for each group. */
typedef struct { int stretch, shared, halves, bytes, words; } panel_form;
static const panel_form FORM[TYPES] = {
    [Q8_0] = {2, 0, 1, 0, 8}, [Q4_0] = {2, 0, 1, 0, 4}, [Q4_K] = {8, 2, 0, 2, 4}, [Q5_K] = {8, 2, 0, 2, 5}, [Q6_K] = {8, 1, 0, 2, 6},
};

INLINE bool is_quantised(int type) { return type != F32 && type != F16 && type != BF16; }
INLINE int code_bytes(int type) { return LANES * 4 * FORM[type].words; }
INLINE int scale_at(int type, int j) { return LANES * (2 * FORM[type].shared + j * (2 * FORM[type].halves + FORM[type].bytes)); }
INLINE int codes_at(int type, int j) { return (scale_at(type, FORM[type].stretch) + LINE - 1) / LINE * LINE + j * code_bytes(type); }
static size_t panel_bytes(int type, int columns) {
    if (!is_quantised(type)) return (size_t)(columns + (type == BF16 ? columns % 2 : 0)) * LANES * TYPE[type].bytes;
    const int groups = columns / GROUP, stretch = FORM[type].stretch, left = groups % stretch;
    return (size_t)(groups / stretch) * (size_t)codes_at(type, stretch) + (left ? (size_t)codes_at(type, left) : 0);
}

typedef struct {                /* 32 columns of one row, their codes as a lane of a panel has them */
    uint32_t words[8];
    uint16_t d, dmin;
    int8_t scale[2], minimum;   /* 1, 1, 0 where the type has none */
} group;

INLINE uint32_t word_at(const uint8_t *at) { uint32_t word; memcpy(&word, at, 4); return word; }

/* Columns 32 g to 32 g + 31 of a row, from the block layouts of ggml. */
INLINE void read_group(int type, const uint8_t *row, int g, group *out) {
    out->dmin = 0;
    out->minimum = 0;
    out->scale[0] = out->scale[1] = 1;
    if (type == Q8_0 || type == Q4_0) {                                 /* f16 scale; 32 signed bytes, or 16 of low nibbles, then high */
        const uint8_t *block = row + (size_t)g * TYPE[type].bytes;
        memcpy(&out->d, block, 2);
        memcpy(out->words, block + 2, type == Q8_0 ? 32 : 16);
        return;
    }
    const uint8_t *block = row + (size_t)(g / 8) * TYPE[type].bytes, *nibbles, *high;
    const int j = g % 8, half = j / 4, quarter = j % 4;
    int shift;
    memset(out->words, 0, sizeof out->words);
    if (type == Q6_K) {                                                 /* 128 bytes of nibbles, 64 of high bits, 16 scales, f16 d: */
        nibbles = block + half * 64 + quarter % 2 * 32;                 /* for each half of 256 columns 64, 32 and 8 of them */
        high = block + 128 + half * 32;
        shift = quarter < 2 ? 0 : 4;
        memcpy(&out->d, block + 208, 2);
        memcpy(out->scale, block + 192 + 2 * j, 2);
        for (int c = 0; c < 32; c += 4) out->words[4 + c / 16] |= (word_at(high + c) >> 2 * quarter & 0x03030303) << (c % 16 / 2);
    } else {                                                            /* f16 d, f16 dmin, 12 bytes of 6-bit scales and minima, */
        const uint8_t *packed = block + 4;                              /* Q5_K: 32 bytes of fifth bits; 128 bytes of nibbles */
        nibbles = block + (type == Q5_K ? 48 : 16) + j / 2 * 32;
        high = block + 16;
        shift = j % 2 * 4;
        memcpy(&out->d, block, 2);
        memcpy(&out->dmin, block + 2, 2);
        out->scale[0] = out->scale[1] = (int8_t)(j < 4 ? packed[j] & 63 : (packed[j + 4] & 15) | packed[j - 4] >> 6 << 4);
        out->minimum = (int8_t)(j < 4 ? packed[j + 4] & 63 : packed[j + 4] >> 4 | packed[j] >> 6 << 4);
        for (int c = 0; c < 32 && type == Q5_K; c += 4) out->words[4] |= (word_at(high + c) >> j & 0x01010101) << c / 4;
    }
    for (int w = 0; w < 4; w++)
        out->words[w] = (word_at(nibbles + 4 * w) >> shift & 0x0f0f0f0f) | (word_at(nibbles + 16 + 4 * w) >> shift & 0x0f0f0f0f) << 4;
}

INLINE int code_offset(int type) { return type == Q4_0 ? 8 : type == Q6_K ? 32 : 0; }

INLINE void read_row_as(int type, const uint8_t *row, int columns, float *out) {
    group it;
    for (int c = 0; c < columns && !is_quantised(type); c++) {
        uint32_t bits = 0;
        memcpy(type == BF16 ? (uint8_t *)&bits + 2 : (uint8_t *)&bits, row + (size_t)c * TYPE[type].bytes, TYPE[type].bytes);
        if (type == F16) out[c] = half_to_float((uint16_t)bits);
        else memcpy(&out[c], &bits, 4);
    }
    for (int g = 0; g < columns / GROUP && is_quantised(type); g++) {
        read_group(type, row, g, &it);
        const float d = half_to_float(it.d), minimum = half_to_float(it.dmin) * (float)it.minimum, offset = (float)code_offset(type);
        uint32_t codes[8];
        UNROLL for (int i = 0; i < 8; i++) {            /* as in codes_of */
            codes[i] = type == Q8_0 ? it.words[i] : it.words[i % 4] >> i / 4 * 4 & 0x0f0f0f0f;
            if (type == Q5_K) codes[i] |= (it.words[4] >> i & 0x01010101) << 4;
            if (type == Q6_K) codes[i] |= (it.words[4 + i / 4] >> 2 * (i % 4) & 0x03030303) << 4;
        }
        UNROLL for (int c = 0; c < GROUP; c += WIDTH)
            store(out + g * GROUP + c, splat(d * (float)it.scale[c / 16]) * (from_i8((const uint8_t *)codes + c) - splat(offset)) - splat(minimum));
    }
}

/* A function or a case for each type, the same but for the constant. */
#define EACH_TYPE(X) X(F32) X(F16) X(BF16) X(Q8_0) X(Q4_0) X(Q4_K) X(Q5_K) X(Q6_K)

/* A row as floats, from the file's own layout: embeddings and vectors. */
static void read_row(int type, const uint8_t *row, int columns, float *out) {
#define READ(type) case type: read_row_as(type, row, columns, out); break;
    switch (type) { EACH_TYPE(READ) }
}

/* Lay group g of a row out as lane `lane` of its panel; where the type has no groups, columns 32 g and on. */
INLINE void pack_group(int type, const uint8_t *row, int columns, int g, int lane, uint8_t *panel) {
    if (!is_quantised(type)) {
        const int bytes = type == F32 ? 4 : 2, step = type == BF16 ? 2 : 1;     /* step: columns side by side in a lane */
        for (int c = g * GROUP; c < columns && c < (g + 1) * GROUP; c += step) {
            uint8_t *to = panel + ((size_t)c * LANES + (size_t)(lane * step)) * (size_t)bytes;
            const uint8_t *from = row + (size_t)c * (size_t)bytes;
            if (c + step <= columns) memcpy(to, from, (size_t)(step * bytes));
            else memcpy(to, from, (size_t)bytes);
        }
        return;
    }
    const panel_form form = FORM[type];
    const int j = g % form.stretch;
    uint8_t *front = panel + (size_t)(g / form.stretch) * (size_t)codes_at(type, form.stretch), *scales = front + scale_at(type, j);
    group it;
    read_group(type, row, g, &it);
    if (form.shared && j == 0) memcpy(front + 2 * lane, &it.d, 2);
    if (form.shared == 2 && j == 0) memcpy(front + 2 * LANES + 2 * lane, &it.dmin, 2);
    if (form.halves) memcpy(scales + 2 * lane, &it.d, 2);
    if (form.bytes) {
        scales[lane] = (uint8_t)it.scale[0];
        scales[LANES + lane] = (uint8_t)(type == Q6_K ? it.scale[1] : it.minimum);
    }
    for (int i = 0; i < form.words; i++) {
        const uint32_t word = it.words[i] ^ (type == Q8_0 ? 0x01010101u * BIAS : 0);
        memcpy(front + codes_at(type, j) + LANES * 4 * i + 4 * lane, &word, 4);
    }
}

/* Codes of columns 16 half + 4i to 16 half + 4i + 3 of a group as four bytes, for part v of the lanes. The compiler sees `type` and `half` as constants. */
INLINE ivec codes_of(int type, const uint8_t *words, int half, int i, int v) {
    const uint8_t *lane = words + 4 * WIDTH * v;
    if (type == Q8_0) return load_words(lane + LINE * (4 * half + i));
    ivec code = (load_words(lane + LINE * i) >> 4 * half) & 0x0f0f0f0f;
    if (type == Q5_K) code |= ((load_words(lane + LINE * 4) >> (4 * half + i)) & 0x01010101) << 4;
    if (type == Q6_K) code |= ((load_words(lane + LINE * (4 + half)) >> 2 * i) & 0x03030303) << 4;
    return code;
}

/* ---- what a matrix is multiplied by ---- */

enum { FLOATS = 1, HALVES = 2, CODES = 4 };
INLINE int form_of(int type) { return is_quantised(type) ? CODES : type == BF16 && BF16_DOT ? HALVES : FLOATS; }

typedef struct {                /* of 32 activations in 8 bits: what a code is worth, minus their sum, sums of codes */
    float scale, down;
    int32_t total, first;       /* of all 32; of the first 16 */
} span;

typedef struct {                /* rows of activations, in each form that a matrix wants */
    int columns;
    float *x;
    uint16_t *halves;           /* bf16, rows padded to an even number */
    int8_t *codes;
    span *spans;
} operand;

INLINE void quantise(const float *x, int8_t *codes, span *out) {
    vec v[2 * PARTS], most = splat(0);
    UNROLL for (int i = 0; i < 2 * PARTS; i++) {
        v[i] = load(x + i * WIDTH);
        most = larger(most, (vec)((ivec)v[i] & 0x7fffffff));
    }
    const float peak = largest(most), inverse = peak > 0 ? 127 / peak : 0;
    UNROLL for (int i = 0; i < 2 * PARTS; i++)                          /* rounded to whole numbers in the low bits */
        to_i8(codes + i * WIDTH, (ivec)multiply_add(v[i], splat(inverse), splat(0x1.8p23f)) - 0x4b400000);
    const int first = sum16(codes), total = first + sum16(codes + 16);
    *out = (span){peak / 127, peak / -127 * (float)total, total, first};
}

/* n floats as columns at, at + 1, ... of a row of an operand. */
static void prepare(int forms, const float *from, int n, const operand *to, int row, int at) {
    const size_t offset = (size_t)row * (size_t)to->columns + (size_t)at;
    if (forms & FLOATS && from != to->x + offset) memcpy(to->x + offset, from, (size_t)n * sizeof *from);
    if (forms & HALVES) {
        uint16_t *out = to->halves + (size_t)row * (size_t)(to->columns + to->columns % 2) + at;
        to_bf16(from, n, out);
        if (at + n == to->columns && to->columns % 2) out[n] = 0;
    }
    if (forms & CODES)
        for (int g = 0; g < n / GROUP; g++) quantise(from + g * GROUP, to->codes + offset + g * GROUP, &to->spans[offset / GROUP + (size_t)g]);
}

/* RMSNorm: x / sqrt(mean(x^2) + eps) * weight. */
static void normalise(const float *x, const float *weight, int n, float eps, float *out) {
    vec squares[PARTS];
    float sum = 0, lanes[LANES];
    int i = 0;
    UNROLL for (int v = 0; v < PARTS; v++) squares[v] = splat(0);
    for (; i + LANES <= n; i += LANES)
        UNROLL for (int v = 0; v < PARTS; v++) { vec a = load(x + i + v * WIDTH); squares[v] = multiply_add(a, a, squares[v]); }
    UNROLL for (int v = 0; v < PARTS; v++) store(lanes + v * WIDTH, squares[v]);
    for (int lane = 0; lane < LANES; lane++) sum += lanes[lane];
    for (; i < n; i++) sum += x[i] * x[i];
    const float scale = 1 / sqrtf(sum / (float)n + eps);
    for (i = 0; i + WIDTH <= n; i += WIDTH) store(out + i, load(x + i) * splat(scale) * load(weight + i));
    for (; i < n; i++) out[i] = x[i] * scale * weight[i];
}

/* ---- products ---- */

typedef struct matrix {         /* a matrix; y = W x + bias, W of rows x columns */
    int type, rows, columns, panels, unit;      /* threads share the panels out in units of so many */
    int turned, head_dim;       /* rows of a head are taken in another order: see source_row */
    size_t panel_bytes, gap;    /* gap: bytes after each unit that another matrix's unit takes */
    const uint8_t *source;      /* rows in the file */
    uint8_t **part;             /* for each thread, its panels, one after another */
    const float *bias;          /* rows of them, or NULL */
    const struct matrix *change;        /* of an adapter, or NULL: y += change z, see `low_rank` */
} matrix;

enum { SET, ADD };              /* y = W x + bias, or y += W x + bias */

/* Four columns of P panels by those of T tokens. */
INLINE void dot_word(int type, int P, int T, ivec dot[BATCH_PANELS][BATCH_TOKENS][PARTS], const uint8_t *const *words, int half, int i, const int8_t *codes, int K) {
    ivec w[BATCH_PANELS][PARTS];
    UNROLL for (int p = 0; p < P; p++) UNROLL for (int v = 0; v < PARTS; v++) w[p][v] = codes_of(type, words[p], half, i, v);
    UNROLL for (int t = 0; t < T; t++) {
        const ivec four = splat_word(codes + (size_t)t * (size_t)K + 16 * half + 4 * i);
        UNROLL for (int p = 0; p < P; p++) UNROLL for (int v = 0; v < PARTS; v++) dot[p][t][v] = dot4(type == Q8_0, dot[p][t][v], w[p][v], four);
    }
}

/* Sixteen sums, or as many as there are rows left, to their place. */
static __attribute__((noinline)) void deliver(const float *sums, const matrix *m, int row, float *y, int mode) {
    if (m->rows - row >= LANES) {
        for (int i = 0; i < LANES; i += WIDTH) {
            vec value = load(sums + i);
            if (m->bias) value += load(m->bias + row + i);
            store(y + i, mode == ADD ? load(y + i) + value : value);
        }
        return;
    }
    for (int i = 0; i < m->rows - row; i++) {
        const float value = sums[i] + (m->bias ? m->bias[row + i] : 0);
        y[i] = mode == ADD ? y[i] + value : value;
    }
}

/* P panels by T tokens, all sums in registers: each weight is loaded once and multiplied T times.
 * The first tile of these panels sends for the next ones, which come while these are multiplied.
 * Reads P panels and T rows of activations; 16 * P * T * columns multiply-adds, four (two for BF16) to an instruction and lane. */
INLINE void tile(int type, int P, int T, const matrix *m, const uint8_t *panels, int row, const operand *x, int token, bool first, float *y, int y_stride, int mode) {
    vec sum[BATCH_PANELS][BATCH_TOKENS][PARTS];
    const uint8_t *at[BATCH_PANELS];
    const int K = m->columns;
    UNROLL for (int p = 0; p < P; p++) {
        at[p] = panels + (size_t)p * m->panel_bytes;
        UNROLL for (int t = 0; t < T; t++) UNROLL for (int v = 0; v < PARTS; v++) sum[p][t][v] = splat(0);
    }
    if (form_of(type) == HALVES) {
        const int stride = K + K % 2;
        const uint16_t *halves = x->halves + (size_t)token * (size_t)stride;
        for (int c = 0; c < K; c += 2) {
            ivec w[BATCH_PANELS][PARTS];
            UNROLL for (int p = 0; p < P; p++) UNROLL for (int v = 0; v < PARTS; v++) w[p][v] = load_words(at[p] + (size_t)c * LANES * 2 + (size_t)(4 * WIDTH * v));
            UNROLL for (int t = 0; t < T; t++) {
                const ivec two = splat_word(halves + (size_t)t * (size_t)stride + c);
                UNROLL for (int p = 0; p < P; p++) UNROLL for (int v = 0; v < PARTS; v++) sum[p][t][v] = dot2(sum[p][t][v], w[p][v], two);
            }
        }
    } else if (!is_quantised(type)) {
        const float *floats = x->x + (size_t)token * (size_t)K;
        for (int c = 0; c < K; c++)
            UNROLL for (int p = 0; p < P; p++) UNROLL for (int v = 0; v < PARTS; v++) {
                const size_t lane = (size_t)(v * WIDTH), column = (size_t)c * LANES;
                vec w;
                if (type == F32) w = load(at[p] + 4 * (column + lane));
                else if (type == F16) w = from_f16(at[p] + 2 * (column + lane));
                else if (c % 2) w = second_of(load_words(at[p] + 2 * (column - LANES) + 4 * lane));
                else w = first_of(load_words(at[p] + 2 * column + 4 * lane));
                UNROLL for (int t = 0; t < T; t++) sum[p][t][v] = multiply_add(w, splat(floats[(size_t)t * (size_t)K + (size_t)c]), sum[p][t][v]);
            }
    } else for (int g = 0, stretch = FORM[type].stretch; g < K / GROUP; g++) {
        const int offset = type == Q8_0 ? BIAS : code_offset(type), j = g % stretch;
        const int8_t *codes = x->codes + (size_t)token * (size_t)K + (size_t)(g * GROUP);
        const span *spans = x->spans + (size_t)token * (size_t)(K / GROUP) + g;
        const uint8_t *words[BATCH_PANELS];
        vec scale[BATCH_PANELS][2][PARTS], minimum[BATCH_PANELS][PARTS];
        ivec dot[BATCH_PANELS][BATCH_TOKENS][PARTS];
        UNROLL for (int p = 0; p < P; p++) {
            const uint8_t *front = at[p] + (size_t)(g / stretch) * (size_t)codes_at(type, stretch), *scales = front + scale_at(type, j);
            words[p] = front + codes_at(type, 0) + j * code_bytes(type);
            if (T > 1 && first) UNROLL for (int i = 0; i < FORM[type].words; i++) __builtin_prefetch(words[p] + (size_t)P * m->panel_bytes + LINE * i, 0, 2);
            UNROLL for (int v = 0; v < PARTS; v++) {
                if (!FORM[type].shared) { scale[p][0][v] = scale[p][1][v] = from_f16(scales + 2 * WIDTH * v); continue; }
                const vec d = from_f16(front + 2 * WIDTH * v), second = from_i8(scales + LANES + WIDTH * v);
                scale[p][0][v] = scale[p][1][v] = d * from_i8(scales + WIDTH * v);
                if (type == Q6_K) scale[p][1][v] = d * second;
                else minimum[p][v] = from_f16(front + 2 * LANES + 2 * WIDTH * v) * second;
            }
        }
        UNROLL for (int half = 0; half < 2; half++) {
            if (half == 0 || type == Q6_K) UNROLL for (int t = 0; t < T; t++) {     /* minus the offset of every code */
                const span *s = spans + (size_t)t * (size_t)(K / GROUP);
                ivec start = {0};
                if (type == Q6_K) start = half ? splat_word(&s->first) - splat_word(&s->total) : -splat_word(&s->first);
                else if (offset) start = -splat_word(&s->total);
                UNROLL for (int p = 0; p < P; p++) UNROLL for (int v = 0; v < PARTS; v++) dot[p][t][v] = start * offset;
            }
            if (T == 1) {       /* alone, in two sums of each: one would wait for itself */
                ivec other[BATCH_PANELS][BATCH_TOKENS][PARTS];
                UNROLL for (int p = 0; p < P; p++) UNROLL for (int v = 0; v < PARTS; v++) other[p][0][v] = (ivec){0};
                UNROLL for (int i = 0; i < 4; i++) dot_word(type, P, T, i % 2 ? other : dot, words, half, i, codes, K);
                UNROLL for (int p = 0; p < P; p++) UNROLL for (int v = 0; v < PARTS; v++) dot[p][0][v] += other[p][0][v];
            } else ROLLED for (int i = 0; i < 4; i++) dot_word(type, P, T, dot, words, half, i, codes, K);
            if (half == 1 || type == Q6_K) UNROLL for (int t = 0; t < T; t++) {
                const vec worth = splat(spans[(size_t)t * (size_t)(K / GROUP)].scale);
                UNROLL for (int p = 0; p < P; p++) UNROLL for (int v = 0; v < PARTS; v++)
                    sum[p][t][v] = multiply_add(__builtin_convertvector(dot[p][t][v], vec), scale[p][half][v] * worth, sum[p][t][v]);
            }
        }
        if (type == Q4_K || type == Q5_K) UNROLL for (int t = 0; t < T; t++) {
            const vec down = splat(spans[(size_t)t * (size_t)(K / GROUP)].down);
            UNROLL for (int p = 0; p < P; p++) UNROLL for (int v = 0; v < PARTS; v++) sum[p][t][v] = multiply_add(minimum[p][v], down, sum[p][t][v]);
        }
    }
    if (T == 1 && P == 1 && mode == SET && !m->bias && m->rows - row >= LANES) {       /* the usual end of a short way: no detour */
        UNROLL for (int v = 0; v < PARTS; v++) store(y + (size_t)token * (size_t)y_stride + v * WIDTH, sum[0][0][v]);
        return;
    }
    float result[BATCH_PANELS][BATCH_TOKENS][LANES];
    UNROLL for (int p = 0; p < P; p++) UNROLL for (int t = 0; t < T; t++) UNROLL for (int v = 0; v < PARTS; v++) store(&result[p][t][v * WIDTH], sum[p][t][v]);
    ROLLED for (int p = 0; p < P; p++) ROLLED for (int t = 0; t < T; t++)
        deliver(result[p][t], m, row + p * LANES, y + (size_t)(token + t) * (size_t)y_stride + p * LANES, mode);
}

/* `count` panels, the first of which holds row `row` of the matrix, by n tokens. Panels are the outer loop: they come from
 * memory, once, and the tokens from the cache. Tokens are cut into tiles as even as can be. */
INLINE void multiply_as(int type, const matrix *m, const uint8_t *panels, int row, int count, const operand *x, int n, float *y, int y_stride, int mode) {
    const int tiles = (n + BATCH_TOKENS - 1) / BATCH_TOKENS;
    if (n == 1) {               /* one stream of weights is quicker than two */
        for (int panel = 0; panel < count; panel++) tile(type, 1, 1, m, panels + (size_t)panel * m->panel_bytes, row + panel * LANES, x, 0, false, y + panel * LANES, y_stride, mode);
        return;
    }
    for (int panel = 0, step; panel < count; panel += step) {
        step = count - panel < BATCH_PANELS ? 1 : BATCH_PANELS;
        const uint8_t *from = panels + (size_t)panel * m->panel_bytes;
        for (int i = 0, t = 0, T; i < tiles; i++, t += T) {
            T = (n - t) / (tiles - i);
#define TILE(P, T) tile(type, P, T, m, from, row + panel * LANES, x, t, i == 0, y + panel * LANES, y_stride, mode)
#define TILES(T) if (step == 1) TILE(1, T); else TILE(BATCH_PANELS, T); break;
            switch (T) {
                case 1: TILES(1)
                case 2: TILES(2)
#ifdef AVX2
                case 3: TILES(3)
#endif
#ifdef AVX512
                case 4: TILES(4)
                case 5: TILES(5)
                case 6: TILES(6)
                case 7: TILES(7)
                case 8: TILES(8)
#endif
            }
        }
    }
}

/* y: n rows, y_stride floats apart, of which this writes count * 16 from y on (fewer at the end of the matrix). */
typedef void product(const matrix *m, const uint8_t *panels, int row, int count, const operand *x, int n, float *y, int y_stride, int mode);
#define PRODUCT(type) static void multiply_##type(const matrix *m, const uint8_t *panels, int row, int count, const operand *x, int n, float *y, int y_stride, int mode) { \
    multiply_as(type, m, panels, row, count, x, n, y, y_stride, mode); }
EACH_TYPE(PRODUCT)
#define ENTRY(type) [type] = multiply_##type,
static product *const MULTIPLY[TYPES] = {EACH_TYPE(ENTRY)};

/* ==== transformer =========================================================================================
 * Llama, Qwen2 and Qwen3: x += attention(norm(x)); x += down(silu(gate(norm(x))) * up(norm(x))), layer after layer.
 * All threads walk through `forward` together, each does its share of each phase, and a barrier stands between phases. */

typedef void (*job)(void *argument, int thread);

enum { MAX_THREADS = 64 };

typedef struct {
    int threads;
    pthread_t *workers;                 /* threads - 1 of them; the caller is thread 0 */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool quit;
    job work;
    void *argument;
    _Alignas(LINE) atomic_uint posted;  /* jobs handed out so far */
    struct {
        _Alignas(LINE) atomic_uint reached;     /* barriers so far */
        _Alignas(LINE) atomic_int claimed[3];   /* pieces of its work that were taken: since the last barrier, before, and next */
    } at[MAX_THREADS];
} pool;

/* Spin for some two microseconds, then let others run: on a busy machine the thread that is waited for may stand in line
 * for this very core, and each microsecond spun is one that it does not get (measured: docs/LOG.md). */
static void relax(int *spins) {
    if (++*spins > 128) { sched_yield(); return; }
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void barrier(pool *p, int thread) {
    const unsigned now = atomic_load_explicit(&p->at[thread].reached, memory_order_relaxed) + 1;
    atomic_store_explicit(&p->at[thread].claimed[(now + 1) % 3], 0, memory_order_relaxed);    /* all are past the phase that used it */
    atomic_store_explicit(&p->at[thread].reached, now, memory_order_release);
    for (int i = 0; i < p->threads; i++)        /* the others are there, or already at the next one */
        for (int spins = 0; (int)(atomic_load_explicit(&p->at[i].reached, memory_order_acquire) - now) < 0;) relax(&spins);
}

/* The next piece of `owner`'s work of this phase, for whichever thread asks. */
static int claim(pool *p, int thread, int owner) {
    const unsigned phase = atomic_load_explicit(&p->at[thread].reached, memory_order_relaxed);
    return atomic_fetch_add_explicit(&p->at[owner].claimed[phase % 3], 1, memory_order_relaxed);
}

typedef struct { pool *pool; int thread; } worker_start;

static void *worker(void *argument) {
    worker_start start = *(worker_start *)argument;
    free(argument);
    pool *p = start.pool;
    for (unsigned done = 0;; done++) {
        for (int spins = 0; spins < 4096 && atomic_load_explicit(&p->posted, memory_order_acquire) == done;) relax(&spins);
        if (atomic_load_explicit(&p->posted, memory_order_acquire) == done) {  /* nothing for a while: sleep */
            pthread_mutex_lock(&p->lock);
            while (!p->quit && atomic_load_explicit(&p->posted, memory_order_acquire) == done) pthread_cond_wait(&p->wake, &p->lock);
            bool quit = p->quit;
            pthread_mutex_unlock(&p->lock);
            if (quit) return NULL;
        }
        p->work(p->argument, start.thread);
        barrier(p, start.thread);
    }
}

static void pool_run(pool *p, job work, void *argument) {
    p->work = work;
    p->argument = argument;
    if (p->threads > 1) {
        pthread_mutex_lock(&p->lock);
        atomic_fetch_add_explicit(&p->posted, 1, memory_order_release);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
    work(argument, 0);
    barrier(p, 0);
}

static void pool_close(pool *p) {
    if (!p->workers) return;
    pthread_mutex_lock(&p->lock);
    p->quit = true;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->threads - 1; i++) pthread_join(p->workers[i], NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    free(p->workers);
    p->workers = NULL;
}

static bool pool_open(pool *p, int threads, complaint e) {
    p->threads = 1;
    if (!(p->workers = calloc((size_t)threads, sizeof *p->workers))) return fail(e, "out of memory for the threads");
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    for (int i = 1; i < threads; i++) {
        worker_start *start = malloc(sizeof *start);
        if (start) *start = (worker_start){p, i};
        if (!start || pthread_create(&p->workers[i - 1], NULL, worker, start)) {
            free(start);
            break;                      /* fewer threads than asked are still enough */
        }
        p->threads = i + 1;             /* no job is out yet, so no worker reads it before it is final */
    }
    return true;
}

/* The part of n items that falls to a thread. */
static void share(int n, int thread, int threads, int *first, int *last) {
    *first = (int)((int64_t)n * thread / threads);
    *last = (int)((int64_t)n * (thread + 1) / threads);
}

enum { HELP_FROM = 16 };        /* tokens in a pass from which on threads help each other */
enum { BLOCK = 16 };     /* positions in a block of the KV cache: the lanes of a vector of scores */

typedef struct {                /* keys and values of 16 positions, all layers and heads; shared by forks, never written while shared */
    atomic_int references;
    _Alignas(LINE) uint8_t data[];      /* [layer][kv head]: keys, then values. f32: [head_pad][16], [16][head_pad];
                                           bf16: [head_pad / 2][16][2], [8][head_pad][2], in pairs as products want them */
} block;

struct tf_session {
    tf_model *model;
    int length, blocks, room;
    block **block;
    bool listed;                /* in the steps being checked: a session may stand there once */
};

typedef struct {
    const float *attention_norm, *ffn_norm, *q_norm, *k_norm;
    matrix q, k, v, o, gate, up, down;
    struct low_rank *adapter;   /* SHARED of them, or NULL */
} layer;

/* What an adapter does to the matrices that are multiplied by one x: z = down x, few numbers, then y += change z for each. A
 * change has zeros where z belongs to another of them. */
enum { OF_INPUT, OF_FOUND, OF_NORMAL, OF_HIDDEN, SHARED };     /* q, k, v; o; gate, up; down */
typedef struct low_rank { matrix down, change[3]; } low_rank;

typedef struct { tf_session *session; int token, position; } row;     /* one token of the batch being evaluated */

typedef struct {                /* what the matrices of a layer are multiplied by */
    operand normal, found;      /* of q, k, v, gate, up and the output; of o. One memory for both */
} inputs;

typedef struct {                /* what one thread has to itself */
    inputs in;                  /* one row: decoding one token, each thread prepares its own, which is quicker than to wait */
    float *glu;                 /* rows x 64: gates and ups of 32 rows of the matrices */
    float *q, *scores, *sums;   /* see `meeting` */
    uint8_t *panels;            /* where the weights are not repacked: a few panels made for now */
} desk;

typedef struct {                /* working memory of one pass, for at most `rows` rows and `length` positions */
    int rows_room, length_room, n, wanted;
    uint8_t *memory;            /* all of it */
    row *rows;
    int *wanted_rows;           /* rows whose logits are asked */
    float *logits;              /* the caller's: wanted x vocab */
    float *x, *q, *k, *v, *z;   /* the residual stream; queries, later what they found; keys; values; see `low_rank` */
    inputs in;
    operand hidden;             /* of down */
    desk desks[MAX_THREADS];
} scratch;

struct tf_model {
    gguf_file file, adapter;    /* the second may be none */
    tokenizer tokenizer;
    tf_info info;
    bool has_tokenizer, has_weights, half_cache;
    bool own_heads;             /* each thread has whole heads, as many as the others */
    uint8_t *ends;              /* one flag a token */
    float eps, *frequency;      /* rotated / 2 angles a position */
    float *rotation;            /* of positions 0 to turns - 1: rotated / 2 cosines, then sines */
    int input_forms, hidden_forms;
    int rotated, head_pad, turns;       /* dimensions that rotary positions turn; head_dim rounded up to whole vectors */
    layer *layers;
    low_rank *low_ranks;        /* of all layers, or NULL */
    const float *output_norm;
    const tensor *embedding;
    matrix output;
    float **vectors;            /* every norm and bias, to be freed */
    int n_vectors;
    uint8_t *panels, **parts;   /* all packed matrices; where each thread's part of each begins */
    size_t panels_size, widest; /* widest: bytes of the largest panel */
    int most_low;               /* numbers in the longest z */
    pool pool;
    scratch scratch;
    pthread_mutex_t lock;       /* one evaluation at a time */
    atomic_int references;      /* the opener's, and one for each session */
    atomic_llong blocks;        /* of KV cache, in all sessions */
    pthread_mutex_t spare_lock;
    block *spare[64];           /* blocks to use again: a new one costs a fault for each page, a sixth of a prefill */
    int n_spare;
    pid_t process;              /* that opened it: a fork of it has the memory, but not the threads */
};

INLINE size_t cache_item(const tf_model *m) { return m->half_cache ? 2 : 4; }

static uint8_t *head_keys(const tf_model *m, const block *b, int l, int kv_head) {
    return (uint8_t *)b->data + ((size_t)l * (size_t)m->info.kv_heads + (size_t)kv_head) * 2 * BLOCK * (size_t)m->head_pad * cache_item(m);
}

static size_t block_bytes(const tf_model *m) {
    return sizeof(block) + (size_t)m->info.layers * (size_t)m->info.kv_heads * 2 * BLOCK * (size_t)m->head_pad * cache_item(m);
}

/* Rotary positions: pairs stand half of the rotated dimensions apart (source_row has seen to it). */
static void rotate(const tf_model *m, float *head, int position) {
    const int half = m->rotated / 2;
    const float *cosines = m->rotation + (size_t)position * (size_t)m->rotated, *sines = cosines + half;
    float *a = head, *b = head + half;
    int i = 0;
    for (; i + WIDTH <= half; i += WIDTH) {
        const vec c = load(cosines + i), s = load(sines + i), a0 = load(a + i), b0 = load(b + i);
        store(a + i, a0 * c - b0 * s);
        store(b + i, a0 * s + b0 * c);
    }
    for (; i < half; i++) {
        const float c = cosines[i], s = sines[i], a0 = a[i], b0 = b[i];
        a[i] = a0 * c - b0 * s;
        b[i] = a0 * s + b0 * c;
    }
}

/* Turn and store: item 0..heads-1 is a query head of row i, the rest are its key and value heads. */
static void place(const tf_model *m, int l, int i, int item) {
    const scratch *s = &m->scratch;
    const int heads = m->info.heads, kv_heads = m->info.kv_heads, hd = m->info.head_dim, pad = m->head_pad;
    const int position = s->rows[i].position, lane = position % BLOCK, kv = item - heads;
    const layer *weights = &m->layers[l];
    float *head = item < heads ? s->q + ((size_t)i * (size_t)heads + (size_t)item) * (size_t)hd : s->k + ((size_t)i * (size_t)kv_heads + (size_t)kv) * (size_t)hd;
    const float *norm = item < heads ? weights->q_norm : weights->k_norm;
    if (norm) normalise(head, norm, hd, m->eps, head);
    rotate(m, head, position);
    if (item < heads) return;
    const float *v = s->v + ((size_t)i * (size_t)kv_heads + (size_t)kv) * (size_t)hd;
    uint8_t *keys = head_keys(m, s->rows[i].session->block[position / BLOCK], l, kv), *values = keys + (size_t)pad * BLOCK * cache_item(m);
    if (!m->half_cache) {
        for (int d = 0; d < hd; d++) ((float *)(void *)keys)[d * BLOCK + lane] = head[d];
        memcpy(values + (size_t)(lane * pad) * sizeof *v, v, (size_t)hd * sizeof *v);
        return;
    }
    uint8_t *to = values + 4 * (size_t)(lane / 2 * pad);
    for (int d = 0; d < hd; d += 2 * LANES) {
        uint16_t halves[2 * LANES];
        const int n = hd - d < 2 * LANES ? hd - d : 2 * LANES;
        to_bf16(head + d, n, halves);
        for (int i = 0; i < n; i += 2) memcpy(keys + 4 * ((d + i) / 2 * BLOCK + lane), halves + i, 4);
    }
    for (int d = 0; d < hd; d += WIDTH) {
        float last[WIDTH] = {0};
        const float *from = hd - d < WIDTH ? memcpy(last, v + d, (size_t)(hd - d) * sizeof *v) : v + d;
        const ivec bits = round_bf16(load(from)), other = load_words(to + 4 * d);   /* its neighbour's half stays */
        store(to + 4 * d, lane % 2 ? (vec)(bits | (other & 0xffff)) : (vec)((bits >> 16 & 0xffff) | (other & (int32_t)0xffff0000)));
    }
}

/* ---- attention: up to QUERIES queries of one kv head at once, of any sessions ---- */

typedef struct { float *q; block *const *blocks; int n; } query;     /* attends to positions 0 to n - 1 */

typedef struct {                /* what the functions below work on; the compiler sees `half` as a constant */
    const tf_model *m;
    int l, kv;                  /* of this layer, this kv head */
    query query[QUERIES];
    float *q, *scores, *sums;   /* [head_dim][QUERIES]; [block][QUERIES][16], later weights; [QUERIES][head_pad] */
} meeting;                      /* for dot2, q and weights are pairs of bf16: [head_dim / 2][QUERIES], and the first half of each 16 */

/* Scores of T queries from `t` on with the keys of B blocks: T * B * head_dim * 16 multiply-adds, each key loaded once. */
INLINE void score(bool half, int T, int B, const meeting *it, int t, int b) {
    vec sum[QUERIES][2 * ATTEND_BLOCKS][PARTS];
    const uint8_t *keys[2 * ATTEND_BLOCKS];
    const int hd = it->m->info.head_dim;
    const float *q = it->q + t;
    float *to = it->scores + ((size_t)b * QUERIES + (size_t)t) * BLOCK;
    const vec scale = splat(1 / sqrtf((float)hd));
    UNROLL for (int k = 0; k < B; k++) keys[k] = head_keys(it->m, it->query[t].blocks[b + k], it->l, it->kv);
    UNROLL for (int i = 0; i < T; i++) UNROLL for (int k = 0; k < B; k++) UNROLL for (int v = 0; v < PARTS; v++) sum[i][k][v] = splat(0);
    for (int d = 0; d < hd; d += half ? 2 : 1) {
        ivec key[2 * ATTEND_BLOCKS][PARTS];
        UNROLL for (int k = 0; k < B; k++) UNROLL for (int v = 0; v < PARTS; v++) key[k][v] = load_words(keys[k] + 4 * ((half ? d / 2 : d) * BLOCK + v * WIDTH));
        UNROLL for (int i = 0; i < T; i++) UNROLL for (int k = 0; k < B; k++) UNROLL for (int v = 0; v < PARTS; v++) {
            vec *to_sum = &sum[i][k][v];
            if (half && BF16_DOT) *to_sum = dot2(*to_sum, key[k][v], splat_word(q + d / 2 * QUERIES + i));
            else if (half) *to_sum = multiply_add(second_of(key[k][v]), splat(q[(d + 1) * QUERIES + i]), multiply_add(first_of(key[k][v]), splat(q[d * QUERIES + i]), *to_sum));
            else *to_sum = multiply_add((vec)key[k][v], splat(q[d * QUERIES + i]), *to_sum);
        }
    }
    UNROLL for (int i = 0; i < T; i++) UNROLL for (int k = 0; k < B; k++) UNROLL for (int v = 0; v < PARTS; v++)
        store(to + (k * QUERIES + i) * BLOCK + v * WIDTH, sum[i][k][v] * scale);
}

/* Scores of a query to weights that are to be divided by the sum returned; those up to `padded` that are none of its own become 0. */
INLINE float soften(bool half, const meeting *it, int t, int padded) {
    float *blocks = it->scores + t * BLOCK, lanes[LANES], peak = -INFINITY, total = 0;
    const int n = it->query[t].n, end = (padded + BLOCK - 1) / BLOCK;
    vec most[PARTS], sum[PARTS];
    for (int p = n; p < end * BLOCK; p++) blocks[p / BLOCK * QUERIES * BLOCK + p % BLOCK] = -INFINITY;
    UNROLL for (int v = 0; v < PARTS; v++) { most[v] = splat(-INFINITY); sum[v] = splat(0); }
    for (int b = 0; b < end; b++) UNROLL for (int v = 0; v < PARTS; v++) most[v] = larger(most[v], load(blocks + (size_t)b * QUERIES * BLOCK + v * WIDTH));
    UNROLL for (int v = 0; v < PARTS; v++) { const float high = largest(most[v]); peak = high > peak ? high : peak; }
    for (int b = 0; b < end; b++) UNROLL for (int v = 0; v < PARTS; v++) {
        float *at = blocks + (size_t)b * QUERIES * BLOCK + v * WIDTH;
        const vec weight = exponential(load(at) - splat(peak));
        sum[v] += weight;
        if (half && BF16_DOT) to_bf16((const float *)&weight, WIDTH, (uint16_t *)(void *)at);
        else store(at, weight);
    }
    UNROLL for (int v = 0; v < PARTS; v++) store(lanes + v * WIDTH, sum[v]);
    for (int lane = 0; lane < LANES; lane++) total += lanes[lane];
    return total;
}

/* Add the values of positions [from, to), weighed, to the sums of T queries, C vectors of 16 columns from `column` on. */
INLINE void weigh(bool half, int T, int C, const meeting *it, int t, int from, int to, int column) {
    vec sum[QUERIES][ATTEND_COLUMNS][PARTS];
    const int pad = it->m->head_pad;
    float *sums = it->sums + (size_t)t * (size_t)pad + column;
    UNROLL for (int i = 0; i < T; i++) UNROLL for (int c = 0; c < C; c++) UNROLL for (int v = 0; v < PARTS; v++)
        sum[i][c][v] = load(sums + i * pad + c * LANES + v * WIDTH);
    for (int p = from; p < to;) {
        const uint8_t *values = head_keys(it->m, it->query[t].blocks[p / BLOCK], it->l, it->kv) + (size_t)pad * BLOCK * cache_item(it->m);
        const float *weights = it->scores + ((size_t)(p / BLOCK) * QUERIES + (size_t)t) * BLOCK;
        for (const int end = p / BLOCK * BLOCK + BLOCK < to ? p / BLOCK * BLOCK + BLOCK : to; p < end; p += half ? 2 : 1) {
            ivec value[ATTEND_COLUMNS][PARTS];
            const int at = p % BLOCK;
            UNROLL for (int c = 0; c < C; c++) UNROLL for (int v = 0; v < PARTS; v++) {
                value[c][v] = load_words(values + 4 * ((half ? at / 2 : at) * pad + column + c * LANES + v * WIDTH));
                if (half && p + 1 == to) value[c][v] &= 0xffff;         /* the second of the pair is nobody's */
            }
            UNROLL for (int i = 0; i < T; i++) UNROLL for (int c = 0; c < C; c++) UNROLL for (int v = 0; v < PARTS; v++) {
                const float *weight = weights + i * BLOCK;
                vec *to_sum = &sum[i][c][v];
                if (half && BF16_DOT) *to_sum = dot2(*to_sum, value[c][v], splat_word(weight + at / 2));
                else if (half) *to_sum = multiply_add(second_of(value[c][v]), splat(weight[at + 1]), multiply_add(first_of(value[c][v]), splat(weight[at]), *to_sum));
                else *to_sum = multiply_add((vec)value[c][v], splat(weight[at]), *to_sum);
            }
        }
    }
    UNROLL for (int i = 0; i < T; i++) UNROLL for (int c = 0; c < C; c++) UNROLL for (int v = 0; v < PARTS; v++)
        store(sums + i * pad + c * LANES + v * WIDTH, sum[i][c][v]);
}

INLINE void score_blocks(bool half, int T, const meeting *it, int t, int b, int end) {
    const int step = T == 1 ? 2 * ATTEND_BLOCKS : ATTEND_BLOCKS;        /* sums enough for the multipliers to be busy */
    for (; b + step <= end; b += step) score(half, T, step, it, t, b);
    for (; b < end; b++) score(half, T, 1, it, t, b);
}

INLINE void weigh_columns(bool half, int T, const meeting *it, int t, int from, int to) {
    for (int column = 0, C; column < it->m->head_pad; column += C * LANES) {
        C = (it->m->head_pad - column) / LANES;
        if (C > ATTEND_COLUMNS) C = C == ATTEND_COLUMNS + 1 ? (C + 1) / 2 : ATTEND_COLUMNS;
        switch (C) {
            case 1: weigh(half, T, 1, it, t, from, to, column); break;
#ifdef AVX512
            case 2: weigh(half, T, 2, it, t, from, to, column); break;
            case 3: weigh(half, T, 3, it, t, from, to, column); break;
#endif
        }
    }
}

/* How many positions, from the first on, T queries can look at together: all of them in one session, later ones weighing
 * nothing for who comes before; in different sessions the whole blocks that were forked from one text. */
static int shared_positions(const query *queries, int T) {
    int least = queries->n, most = queries->n, b = 0;
    bool same = true;
    for (int t = 1; t < T; t++) {
        least = queries[t].n < least ? queries[t].n : least;
        most = queries[t].n > most ? queries[t].n : most;
        same &= queries[t].blocks == queries->blocks;
    }
    if (same) return most;
    for (; (b + 1) * BLOCK <= least; b++)
        for (int t = 1; t < T; t++) if (queries[t].blocks[b] != queries->blocks[b]) return b * BLOCK;
    return b * BLOCK;
}

/* T queries from `t` on, each key and value that they share read once: 2 * positions * head_dim numbers of cache. A query's
 * sums are made in the order of positions, whoever stands beside it. The result takes the query's place. */
INLINE void attend_as(bool half, int T, const meeting *it, int t) {
    const int shared = T > 1 ? shared_positions(it->query + t, T) : 0, blocks = (shared + BLOCK - 1) / BLOCK, pad = it->m->head_pad;
    float total[QUERIES];
    memset(it->sums + (size_t)t * (size_t)pad, 0, (size_t)(T * pad) * sizeof(float));
    if (T > 1) score_blocks(half, T, it, t, 0, blocks);
    for (int i = 0; i < T; i++) {
        const int n = it->query[t + i].n;
        score_blocks(half, 1, it, t + i, blocks, (n + BLOCK - 1) / BLOCK);
        total[i] = soften(half, it, t + i, shared > n ? shared : n);
    }
    if (T > 1) weigh_columns(half, T, it, t, 0, shared);
    for (int i = 0; i < T; i++) {
        const query *one = &it->query[t + i];
        const float *sums = it->sums + (size_t)(t + i) * (size_t)pad;
        if (shared < one->n) weigh_columns(half, 1, it, t + i, shared, one->n);
        for (int d = 0; d < it->m->info.head_dim; d++) one->q[d] = sums[d] / total[i];
    }
}

INLINE void attend_all(bool half, const meeting *it, int n) {
    int t = 0;
    if (n == QUERIES) { attend_as(half, QUERIES, it, 0); return; }
    for (; t + 4 <= n; t += 4) attend_as(half, 4, it, t);
    for (; t < n; t++) attend_as(half, 1, it, t);
}

/* Queries QUERIES * tile and on of a kv head: those of row 0 first. */
static void attend(tf_model *m, int l, int kv, int tile, int thread) {
    const scratch *s = &m->scratch;
    const desk *mine = &s->desks[thread];
    const int group = m->info.heads / m->info.kv_heads, hd = m->info.head_dim;
    meeting it = {.m = m, .l = l, .kv = kv, .q = mine->q, .scores = mine->scores, .sums = mine->sums};
    int n = 0;
    for (int64_t i = (int64_t)tile * QUERIES; n < QUERIES && i < (int64_t)s->n * group; i++, n++) {
        const row *of = &s->rows[i / group];
        float *q = s->q + ((size_t)(i / group) * (size_t)m->info.heads + (size_t)(kv * group + i % group)) * (size_t)hd;
        it.query[n] = (query){q, of->session->block, of->position + 1};
        for (int d = 0; d < hd && !(m->half_cache && BF16_DOT); d++) mine->q[d * QUERIES + n] = q[d];
        for (int d = 0; d < hd && m->half_cache && BF16_DOT; d += 2) {
            uint16_t pair[2];
            to_bf16(q + d, 2, pair);
            memcpy(mine->q + d / 2 * QUERIES + n, pair, sizeof pair);
        }
    }
    if (m->half_cache) attend_all(true, &it, n);
    else attend_all(false, &it, n);
}

/* ---- a pass ---- */

/* Row r of a matrix as it is packed. Queries and keys of llama files have the pairs that turn together side by side; we put
 * them half of the rotated dimensions apart, as the others have them. What a query meets in a key is the same. */
static int source_row(const matrix *m, int r) {
    if (!m->turned) return r;
    const int d = r % m->head_dim, half = m->turned / 2;
    return d >= m->turned ? r : r - d + (d < half ? 2 * d : 2 * (d - half) + 1);
}

static size_t row_bytes(const matrix *m) { return (size_t)m->columns / TYPE[m->type].columns * TYPE[m->type].bytes; }

INLINE void pack_panel_as(int type, const matrix *m, int panel, uint8_t *to) {
    const uint8_t *rows[LANES];
    const int n = m->rows - panel * LANES < LANES ? m->rows - panel * LANES : LANES;
    for (int r = 0; r < n; r++) rows[r] = m->source + (size_t)source_row(m, panel * LANES + r) * row_bytes(m);
    for (int g = 0; g * GROUP < m->columns; g++)
        for (int r = 0; r < n; r++) pack_group(type, rows[r], m->columns, g, r, to);
}

static void pack_panel(const matrix *m, int panel, uint8_t *to) {
#define PACK(type) case type: pack_panel_as(type, m, panel, to); break;
    switch (m->type) { EACH_TYPE(PACK) }
}

/* The panels of a matrix that fall to a thread. */
static void share_panels(const matrix *m, int thread, int threads, int *first, int *last) {
    share((m->panels + m->unit - 1) / m->unit, thread, threads, first, last);
    *first *= m->unit;
    *last = *last * m->unit < m->panels ? *last * m->unit : m->panels;
}

static uint8_t *panel_at(const matrix *m, int owner, int i) { return m->part[owner] + (size_t)i * m->panel_bytes + (size_t)(i / m->unit) * m->gap; }

/* Panels [panel, panel + count) of the part of `owner`, which begins at panel `first`. */
static void multiply_part(const tf_model *m, int thread, int owner, const matrix *w, int first, int panel, int count, const operand *x, int n, float *y, int y_stride, int mode) {
    if (w->part) MULTIPLY[w->type](w, panel_at(w, owner, panel - first), panel * LANES, count, x, n, y, y_stride, mode);
    else for (int done = 0, step; done < count; done += step) {
        uint8_t *panels = m->scratch.desks[thread].panels;
        step = count - done < BATCH_PANELS ? count - done : BATCH_PANELS;
        for (int p = 0; p < step; p++) pack_panel(w, panel + done + p, panels + (size_t)p * w->panel_bytes);
        MULTIPLY[w->type](w, panels, (panel + done) * LANES, step, x, n, y + done * LANES, y_stride, mode);
    }
    if (w->change) multiply_part(m, thread, owner, w->change, first, panel, count, &(operand){.columns = w->change->columns, .x = m->scratch.z}, n, y, y_stride, ADD);
}

/* The forms of an x that matrices want, and an adapter of them. */
static int forms_for(const layer *w, int shared, int forms) { return w->adapter && w->adapter[shared].down.rows ? forms | FLOATS : forms; }

/* y = silu(gate x) * up x in the form that the projection down wants, for 32 rows of the matrices: one group of it. */
static void multiply_glu(const tf_model *m, int thread, int owner, const layer *w, int first, int panel, int count, const operand *x, int n) {
    float *glu = m->scratch.desks[thread].glu;
    const int rows = m->info.ffn - panel * LANES < GROUP ? m->info.ffn - panel * LANES : GROUP;
    multiply_part(m, thread, owner, &w->gate, first, panel, count, x, n, glu, 2 * GROUP, SET);
    multiply_part(m, thread, owner, &w->up, first, panel, count, x, n, glu + GROUP, 2 * GROUP, SET);
    for (int i = 0; i < n; i++) {
        float *gate = glu + (size_t)i * 2 * GROUP;
        for (int c = 0; c < GROUP; c += WIDTH) {
            const vec g = load(gate + c);
            store(gate + c, g / (splat(1) + exponential(-g)) * load(gate + GROUP + c));
        }
        prepare(forms_for(w, OF_HIDDEN, form_of(w->down.type)), gate, rows, &m->scratch.hidden, i, panel * LANES);
    }
}

/* One phase: y[i] = w[i] x, or +=, for a few matrices that share x; or where `glu` is given, its gates and ups. Each thread does
 * its own part. Where there are many tokens it does so piece by piece, and then helps the others: cores are not equally fast. */
static void project(tf_model *m, int thread, int matrices, const matrix *const *w, float *const *y, const layer *glu, const operand *x, int n, int mode) {
    const int threads = m->pool.threads, owners = n < HELP_FROM ? 1 : threads;
    for (int step = 0; step < owners; step++) {
        const int owner = (thread + step) % threads;
        int unit = owners > 1 ? claim(&m->pool, thread, owner) : 0;
        for (int i = 0, before = 0; i < matrices; i++) {
            int first, last;
            share_panels(w[i], owner, threads, &first, &last);
            const int size = owners > 1 || glu ? 2 : last - first > 0 ? last - first : 1, units = (last - first + size - 1) / size;
            while (unit - before < units) {
                const int panel = first + (unit - before) * size, count = last - panel < size ? last - panel : size;
                if (glu) multiply_glu(m, thread, owner, glu, first, panel, count, x, n);
                else multiply_part(m, thread, owner, w[i], first, panel, count, x, n, y[i] + panel * LANES, w[i]->rows, mode);
                unit = owners > 1 ? claim(&m->pool, thread, owner) : unit + 1;
            }
            before += units;
        }
    }
}

/* A phase of its own before matrices that an adapter changes: z = down x. */
static void lower(tf_model *m, int thread, const layer *w, int shared, const operand *x, int n) {
    if (!forms_for(w, shared, 0)) return;
    project(m, thread, 1, (const matrix *const[]){&w->adapter[shared].down}, &m->scratch.z, NULL, x, n, SET);
    barrier(&m->pool, thread);
}

static void embedding_row(const tf_model *m, int32_t token, float *out) {
    const size_t row_bytes = m->embedding->bytes / m->embedding->rows;
    read_row((int)m->embedding->type, m->embedding->data + row_bytes * (size_t)token, m->info.dim, out);
}

static void embed(const tf_model *m, int i) {
    embedding_row(m, m->scratch.rows[i].token, m->scratch.x + (size_t)i * (size_t)m->info.dim);
}

/* Rows of x, normalised where there is a norm, as an operand in the forms asked. Where there is one row each thread makes its own;
 * else they share the rows and wait for each other. rows: which rows of x they are, or NULL for 0 to n - 1. */
static const operand *enter(tf_model *m, int thread, const float *x, const float *norm, const int *rows, int n, int forms) {
    desk *mine = &m->scratch.desks[thread];
    inputs *in = n == 1 ? &mine->in : &m->scratch.in;
    const operand *to = norm ? &in->normal : &in->found;
    int first = 0, last = 1;
    if (n > 1) share(n, thread, m->pool.threads, &first, &last);
    for (int i = first; i < last; i++) {
        const float *from = x + (size_t)(rows ? rows[i] : i) * (size_t)to->columns;
        if (norm) normalise(from, norm, to->columns, m->eps, mine->in.normal.x);
        prepare(forms, norm ? mine->in.normal.x : from, to->columns, to, i, 0);
    }
    if (n > 1) barrier(&m->pool, thread);
    return to;
}

static void forward(void *argument, int thread) {
    tf_model *m = argument;
    scratch *s = &m->scratch;
    pool *p = &m->pool;
    const int n = s->n, heads = m->info.heads, kv_heads = m->info.kv_heads, items = heads + kv_heads;
    const int group = heads / kv_heads, tiles = (int)(((int64_t)n * group + QUERIES - 1) / QUERIES);
    int first, last, first_kv, last_kv;
    share(n, thread, p->threads, &first, &last);
    share(kv_heads, thread, p->threads, &first_kv, &last_kv);
    if (n > 1) for (int i = first; i < last; i++) embed(m, i);      /* one row the caller has embedded */
    if (n > 1) barrier(p, thread);
    for (int l = 0; l < m->info.layers; l++) {
        const layer *w = &m->layers[l];
        const operand *x = enter(m, thread, s->x, w->attention_norm, NULL, n, forms_for(w, OF_INPUT, form_of(w->q.type) | form_of(w->k.type) | form_of(w->v.type)));
        lower(m, thread, w, OF_INPUT, x, n);
        project(m, thread, 3, (const matrix *const[]){&w->q, &w->k, &w->v}, (float *const[]){s->q, s->k, s->v}, NULL, x, n, SET);
        if (m->own_heads && n < HELP_FROM) {         /* queries, keys and values of these heads are all this thread's: there is nobody to wait for */
            for (int i = 0; i < n; i++) for (int item = first_kv * group; item < last_kv * group; item++) place(m, l, i, item);
            for (int i = 0; i < n; i++) for (int item = heads + first_kv; item < heads + last_kv; item++) place(m, l, i, item);
            for (int kv = first_kv; kv < last_kv; kv++) for (int t = 0; t < tiles; t++) attend(m, l, kv, t, thread);
        } else {
            barrier(p, thread);
            for (int item; (item = claim(p, thread, 0)) < items;)           /* a head is one thread's: two positions share each word of its values */
                for (int i = 0; i < n; i++) place(m, l, i, (item + heads) % items);
            barrier(p, thread);
            for (int item; (item = claim(p, thread, 0)) < tiles * kv_heads;) attend(m, l, item / tiles, item % tiles, thread);
        }
        barrier(p, thread);
        x = enter(m, thread, s->q, NULL, NULL, n, forms_for(w, OF_FOUND, form_of(w->o.type)));
        lower(m, thread, w, OF_FOUND, x, n);
        project(m, thread, 1, (const matrix *const[]){&w->o}, &s->x, NULL, x, n, ADD);
        barrier(p, thread);
        x = enter(m, thread, s->x, w->ffn_norm, NULL, n, forms_for(w, OF_NORMAL, form_of(w->gate.type) | form_of(w->up.type)));
        lower(m, thread, w, OF_NORMAL, x, n);
        project(m, thread, 1, (const matrix *const[]){&w->gate}, NULL, w, x, n, SET);
        barrier(p, thread);
        lower(m, thread, w, OF_HIDDEN, &s->hidden, n);
        project(m, thread, 1, (const matrix *const[]){&w->down}, &s->x, NULL, &s->hidden, n, ADD);
        barrier(p, thread);
    }
    if (!s->wanted) return;
    const operand *x = enter(m, thread, s->x, m->output_norm, s->wanted_rows, s->wanted, form_of(m->output.type));
    project(m, thread, 1, (const matrix *const[]){&m->output}, &s->logits, NULL, x, s->wanted, SET);
}

/* ---- from file to model ---------------------------------------------------------------------------------- */

static bool need_vector(tf_model *m, const char *name, int n, bool optional, const float **out, complaint e) {
    tensor *t = find_tensor(&m->file, name);
    *out = NULL;
    if (!t) return optional || fail(e, "tensor %s is missing", name);
    if (t->rows != 1 || t->columns != (uint64_t)n) return fail(e, "tensor %s has %llu x %llu values where %d are needed", name, (unsigned long long)t->rows, (unsigned long long)t->columns, n);
    float *values = malloc((size_t)n * sizeof *values);
    float **vectors = grow(m->vectors, (uint64_t)m->n_vectors, sizeof *vectors);
    if (vectors) m->vectors = vectors;
    if (!values || !vectors) { free(values); return fail(e, "out of memory for tensor %s", name); }
    m->vectors[m->n_vectors++] = values;
    read_row((int)t->type, t->data, n, values);
    t->used = true;
    *out = values;
    return true;
}

static bool need_tensor(tf_model *m, const char *name, int rows, int columns, tensor **out, complaint e) {
    tensor *t = *out = find_tensor(&m->file, name);
    if (!t) return fail(e, "tensor %s is missing", name);
    if (t->rows != (uint64_t)rows || t->columns != (uint64_t)columns)
        return fail(e, "tensor %s is %llu x %llu where %d x %d is needed", name, (unsigned long long)t->rows, (unsigned long long)t->columns, rows, columns);
    return t->used = true;
}

/* turned, head_dim: as in `matrix`; 0 for all but queries and keys of llama files. */
static bool need_matrix(tf_model *m, const char *name, int rows, int columns, int turned, matrix *out, complaint e) {
    tensor *t;
    char bias[96];
    const float *given;
    if (!need_tensor(m, name, rows, columns, &t, e)) return false;
    *out = (matrix){.type = (int)t->type, .rows = rows, .columns = columns, .panels = (rows + LANES - 1) / LANES, .unit = 1, .turned = turned,
                    .head_dim = m->info.head_dim, .panel_bytes = (panel_bytes((int)t->type, columns) + LINE - 1) / LINE * LINE, .source = t->data};
    if (out->panel_bytes > m->widest) m->widest = out->panel_bytes;
    snprintf(bias, sizeof bias, "%.*s.bias", (int)(strlen(name) - strlen(".weight")), name);
    if (!need_vector(m, bias, rows, true, &given, e)) return false;
    out->bias = given;
    if (!given || !turned) return true;
    float *ours = m->vectors[m->n_vectors - 1], *theirs = malloc((size_t)rows * sizeof *theirs);
    if (!theirs) return fail(e, "out of memory for tensor %s", bias);
    memcpy(theirs, ours, (size_t)rows * sizeof *theirs);
    for (int r = 0; r < rows; r++) ours[r] = theirs[source_row(out, r)];
    free(theirs);
    return true;
}

/* Every packed matrix of the model, one after another: for what must be done to each. Those of the layers come first, then
 * the output, then what an adapter brings. */
static int matrices_of(const tf_model *m) { return 7 * m->info.layers + 1 + (m->low_ranks ? 4 * SHARED * m->info.layers : 0); }
static matrix *matrix_at(tf_model *m, int i) {
    if (i == 7 * m->info.layers) return &m->output;
    if (i > 7 * m->info.layers) {
        const int k = i - 7 * m->info.layers - 1;
        return k % 4 < 3 ? &m->low_ranks[k / 4].change[k % 4] : &m->low_ranks[k / 4].down;
    }
    layer *w = &m->layers[i / 7];
    matrix *all[7] = {&w->q, &w->k, &w->v, &w->o, &w->gate, &w->up, &w->down};
    return all[i % 7];
}

/* Whole pages of the mapped file that are not needed for now: the memory is for the panels. */
static void drop(const uint8_t *from, const uint8_t *to) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first = ((uintptr_t)from + page - 1) / page * page, last = (uintptr_t)to / page * page;
    if (first < last) madvise((void *)first, last - first, MADV_DONTNEED);
}

static void pack(void *argument, int thread) {
    tf_model *m = argument;
    for (int i = 0; i < matrices_of(m); i++) {
        const matrix *w = matrix_at(m, i);
        int first, last;
        share_panels(w, thread, m->pool.threads, &first, &last);
        for (int panel = first, dropped = first; panel < last; panel++) {
            pack_panel(w, panel, panel_at(w, thread, panel - first));
            if (panel + 1 < last && row_bytes(w) * (size_t)((panel + 1 - dropped) * LANES) < 1 << 20) continue;
            if (i <= 7 * m->info.layers)        /* what an adapter brings is not in the file, and other panels still read it */
                drop(w->source + row_bytes(w) * (size_t)dropped * LANES, w->source + row_bytes(w) * (size_t)panel * LANES);
            dropped = panel;
        }
    }
}

/* Place the panels of each thread in the order in which it reads them, units of gate and up by turns: one stream, first
 * touched by who reads it. How much it takes; without memory, only that. */
static size_t place_panels(tf_model *m, uint8_t *memory) {
    const int matrices = matrices_of(m), threads = m->pool.threads;
    size_t used = 0;
    for (int thread = 0; thread < threads; thread++)
        for (int i = 0; i < matrices; i++) {
            matrix *w = matrix_at(m, i), *up = i < 7 * m->info.layers && i % 7 == 4 ? matrix_at(m, i + 1) : NULL;
            int first, last;
            share_panels(w, thread, threads, &first, &last);
            w->part = m->parts + (size_t)i * (size_t)threads;
            w->part[thread] = memory ? memory + used : NULL;
            used += (size_t)(last - first) * w->panel_bytes;
            if (!up) continue;
            const size_t units = (size_t)((last - first + w->unit - 1) / w->unit), size = (size_t)w->unit * w->panel_bytes, other = (size_t)w->unit * up->panel_bytes;
            w->gap = other;
            up->gap = size;
            up->part = w->part + threads;
            up->part[thread] = memory ? w->part[thread] + size : NULL;
            used += units * (size + other) - (size_t)(last - first) * w->panel_bytes;
            i++;
        }
    return used;
}

static bool pack_weights(tf_model *m, complaint e) {
    if (!(m->parts = calloc((size_t)matrices_of(m) * (size_t)m->pool.threads, sizeof *m->parts))) return fail(e, "out of memory for the weights");
    m->panels_size = place_panels(m, NULL);
    m->panels = mmap(NULL, m->panels_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m->panels == MAP_FAILED) m->panels = NULL;
    if (!m->panels) return fail(e, "out of memory: the weights need %zu MB", m->panels_size >> 20);
#ifdef MADV_HUGEPAGE
    madvise(m->panels, m->panels_size, MADV_HUGEPAGE);
#endif
    place_panels(m, m->panels);
    pool_run(&m->pool, pack, m);
    return true;
}

static bool load_shape(tf_model *m, const char *family, complaint e) {
    const gguf_file *f = &m->file;
    tf_info *i = &m->info;
    char key[128];
    int32_t experts, window, value_length;
    float scale_linear;
#define KEY(name) (snprintf(key, sizeof key, "%s." name, family), key)
    if (!get_integer(f, KEY("block_count"), 0, 1, 4096, &i->layers, e) || !get_integer(f, KEY("context_length"), 0, 1, 1 << 30, &i->context, e) ||
        !get_integer(f, KEY("embedding_length"), 0, 1, 1 << 24, &i->dim, e) || !get_integer(f, KEY("feed_forward_length"), 0, 1, 1 << 26, &i->ffn, e) ||
        !get_integer(f, KEY("attention.head_count"), 0, 1, 1 << 16, &i->heads, e) ||
        !get_integer(f, KEY("attention.head_count_kv"), i->heads, 1, 1 << 16, &i->kv_heads, e) || !get_integer(f, KEY("expert_count"), 0, 0, 1 << 16, &experts, e)) return false;
    if (!i->layers || !i->context || !i->dim || !i->ffn || !i->heads)
        return fail(e, "metadata: %s.%s is missing", family, !i->layers ? "block_count" : !i->context ? "context_length" : !i->dim ? "embedding_length" : !i->ffn ? "feed_forward_length" : "attention.head_count");
    if (experts) return fail(e, "mixtures of experts (%s.expert_count %d) are not supported", family, experts);
    if (!get_integer(f, KEY("attention.key_length"), i->dim / i->heads, 2, 4096, &i->head_dim, e) ||
        !get_integer(f, KEY("attention.value_length"), i->head_dim, 2, 4096, &value_length, e) || !get_integer(f, KEY("rope.dimension_count"), i->head_dim, 2, 4096, &m->rotated, e) ||
        !get_integer(f, KEY("attention.sliding_window"), 0, 0, INT32_MAX, &window, e)) return false;
    if (i->heads % i->kv_heads) return fail(e, "metadata: %s.attention.head_count %d is not a multiple of head_count_kv %d", family, i->heads, i->kv_heads);
    if (i->head_dim < 2 || i->head_dim % 2 || value_length != i->head_dim) return fail(e, "metadata: heads of %d keys and %d values are not supported", i->head_dim, value_length);
    if (m->rotated > i->head_dim || m->rotated % 2) return fail(e, "metadata: %s.rope.dimension_count %d does not fit heads of %d", family, m->rotated, i->head_dim);
    if (window && window < i->context) return fail(e, "metadata: %s.attention.sliding_window is %d: sliding windows are not supported", family, window);
    float base, factor;
    if (!get_real(f, KEY("attention.layer_norm_rms_epsilon"), 1e-5f, 0, 1, &m->eps, e) || !get_real(f, KEY("rope.freq_base"), 10000, 1, 1e12f, &base, e) ||
        !get_real(f, KEY("rope.scale_linear"), 1, 1e-3f, 1e6f, &scale_linear, e) || !get_real(f, KEY("rope.scaling.factor"), scale_linear, 1e-3f, 1e6f, &factor, e)) return false;
    const char *scaling = get_text(f, KEY("rope.scaling.type"));
    if (scaling && strcmp(scaling, "none") && strcmp(scaling, "linear")) return fail(e, "metadata: rope scaling of type %s is not supported (linear and llama3's factors are)", show((text_view){scaling, strlen(scaling)}).text);
    if (scaling && !strcmp(scaling, "none")) factor = 1;
#undef KEY
    const float *factors;
    if (!need_vector(m, "rope_freqs.weight", m->rotated / 2, true, &factors, e)) return false;
    if (!(m->frequency = malloc((size_t)m->rotated / 2 * sizeof *m->frequency))) return fail(e, "out of memory");
    for (int r = 0; r < m->rotated / 2; r++) m->frequency[r] = (float)(pow(base, -2.0 * r / m->rotated) / factor / (factors ? (double)factors[r] : 1));
    m->head_pad = (i->head_dim + LANES - 1) / LANES * LANES;
    return true;
}

/* The matrix of some tensors of an adapter, in float32, for them to be put into. */
static bool new_low(tf_model *m, int rows, int columns, const matrix *like, matrix *out, float **values, complaint e) {
    float **vectors = grow(m->vectors, (uint64_t)m->n_vectors, sizeof *vectors);
    if (vectors) m->vectors = vectors;
    if (!vectors || !(*values = calloc((size_t)rows * (size_t)columns, sizeof **values))) return fail(e, "out of memory for the adapter");
    m->vectors[m->n_vectors++] = *values;
    *out = (matrix){.type = F32, .rows = rows, .columns = columns, .panels = (rows + LANES - 1) / LANES, .unit = like ? like->unit : 1, .turned = like ? like->turned : 0,
                    .head_dim = m->info.head_dim, .panel_bytes = (panel_bytes(F32, columns) + LINE - 1) / LINE * LINE, .source = (const uint8_t *)*values};
    if (out->panel_bytes > m->widest) m->widest = out->panel_bytes;
    return true;
}

/* What an adapter says of the matrices that share an x: lora_a, r x columns, and lora_b, rows x r, for some of them; a
 * change of alpha / r * lora_b lora_a (arXiv:2106.09685). */
static bool load_low_rank(tf_model *m, int l, const char *const *names, matrix *const *of, float alpha, low_rank *it, complaint e) {
    tensor *a[3] = {0}, *b[3] = {0};
    char name[64];
    int total = 0;
    for (int i = 0; i < 3 && names[i]; i++) {
        snprintf(name, sizeof name, "blk.%d.%s.weight.lora_a", l, names[i]);
        a[i] = find_tensor(&m->adapter, name);
        name[strlen(name) - 1] = 'b';
        b[i] = find_tensor(&m->adapter, name);
        if (!a[i] && !b[i]) continue;
        if (!a[i] || !b[i]) return fail(e, "adapter: tensor %.*s%c is missing", (int)strlen(name) - 1, name, a[i] ? 'b' : 'a');
        if (a[i]->columns != (uint64_t)of[i]->columns || b[i]->rows != (uint64_t)of[i]->rows || a[i]->rows != b[i]->columns || a[i]->rows > 4096)
            return fail(e, "adapter: tensor %s: %llu x %llu times %llu x %llu is no change of a matrix of %d x %d", name, (unsigned long long)b[i]->rows,
                        (unsigned long long)b[i]->columns, (unsigned long long)a[i]->rows, (unsigned long long)a[i]->columns, of[i]->rows, of[i]->columns);
        a[i]->used = b[i]->used = true;
        total += (int)a[i]->rows;
    }
    if (!total) return true;
    float *down, *change;
    if (total > m->most_low) m->most_low = total;
    if (!new_low(m, total, of[0]->columns, NULL, &it->down, &down, e)) return false;
    for (int i = 0, at = 0; i < 3; i++) {
        if (!a[i]) continue;
        const int rank = (int)a[i]->rows, columns = of[i]->columns, rows = of[i]->rows;
        if (!new_low(m, rows, total, of[i], &it->change[i], &change, e)) return false;
        for (int r = 0; r < rank; r++) read_row((int)a[i]->type, a[i]->data + a[i]->bytes / a[i]->rows * (size_t)r, columns, down + (size_t)(at + r) * (size_t)columns);
        for (int r = 0; r < rows; r++) {
            float *row = change + (size_t)r * (size_t)total + at;
            read_row((int)b[i]->type, b[i]->data + b[i]->bytes / b[i]->rows * (size_t)r, rank, row);
            for (int c = 0; c < rank && alpha != 0; c++) row[c] *= alpha / (float)rank;
        }
        of[i]->change = &it->change[i];
        at += rank;
    }
    return true;
}

static bool load_adapter(tf_model *m, const char *path, const char *family, complaint e) {
    if (!file_open(&m->adapter, path, e)) return false;
    const char *type = get_text(&m->adapter, "general.type"), *kind = get_text(&m->adapter, "adapter.type"), *of = get_text(&m->adapter, "general.architecture");
    float alpha;
    if (!type || strcmp(type, "adapter") || !kind || strcmp(kind, "lora")) return fail(e, "%s is not an adapter: general.type and adapter.type are not adapter and lora", path);
    if (!of || strcmp(of, family)) return fail(e, "the adapter is for the architecture %s, the model is of %s", of ? show((text_view){of, strlen(of)}).text : "(none)", family);
    if (!get_real(&m->adapter, "adapter.lora.alpha", 0, -1e6, 1e6, &alpha, e)) return false;
    const size_t count = (size_t)SHARED * (size_t)m->info.layers;
    if (!(m->low_ranks = calloc(count, sizeof *m->low_ranks))) return fail(e, "out of memory for the adapter");
    for (size_t i = 0; i < count; i++) m->low_ranks[i].down.unit = m->low_ranks[i].change[0].unit = m->low_ranks[i].change[1].unit = m->low_ranks[i].change[2].unit = 1;
    static const char *const names[SHARED][3] = {{"attn_q", "attn_k", "attn_v"}, {"attn_output"}, {"ffn_gate", "ffn_up"}, {"ffn_down"}};
    for (int l = 0; l < m->info.layers; l++) {
        layer *w = &m->layers[l];
        matrix *const all[SHARED][3] = {{&w->q, &w->k, &w->v}, {&w->o}, {&w->gate, &w->up}, {&w->down}};
        w->adapter = m->low_ranks + (size_t)l * SHARED;
        for (int i = 0; i < SHARED; i++) {
            if (!load_low_rank(m, l, names[i], all[i], alpha, &w->adapter[i], e)) return false;
            *(i == OF_HIDDEN ? &m->hidden_forms : &m->input_forms) |= forms_for(w, i, 0);
        }
    }
    for (uint64_t t = 0; t < m->adapter.n_tensors; t++)
        if (!m->adapter.tensors[t].used) return fail(e, "adapter: tensor %s is no change of a matrix of this model's layers", show(m->adapter.tensors[t].name).text);
    return true;
}

static bool load_weights(tf_model *m, const char *family, const char *adapter, bool repack, complaint e) {
    const tf_info *i = &m->info;
    const int q_rows = i->heads * i->head_dim, kv_rows = i->kv_heads * i->head_dim, turned = strcmp(family, "llama") ? 0 : m->rotated;
    tensor *embedding;
    char name[64];
    if ((int64_t)i->heads * i->head_dim > INT32_MAX / 2) return fail(e, "metadata: %d heads of %d are too many", i->heads, i->head_dim);
    if (!need_tensor(m, "token_embd.weight", i->vocab, i->dim, &embedding, e) || !need_vector(m, "output_norm.weight", i->dim, false, &m->output_norm, e) ||
        !need_matrix(m, find_tensor(&m->file, "output.weight") ? "output.weight" : "token_embd.weight", i->vocab, i->dim, 0, &m->output, e)) return false;
    m->embedding = embedding;
    if (m->file.n_tensors / 9 + 1 < (uint64_t)i->layers) return fail(e, "metadata: %s.block_count is %d, but there are only %llu tensors", family, i->layers, (unsigned long long)m->file.n_tensors);
    if (!(m->layers = calloc((size_t)i->layers, sizeof *m->layers))) return fail(e, "out of memory for the layers");
#define NAME(what) (snprintf(name, sizeof name, "blk.%d." what ".weight", l), name)
    for (int l = 0; l < i->layers; l++) {
        layer *w = &m->layers[l];
        bool qk_norm = !strcmp(family, "qwen3");
        if (!need_vector(m, NAME("attn_norm"), i->dim, false, &w->attention_norm, e) || !need_vector(m, NAME("ffn_norm"), i->dim, false, &w->ffn_norm, e) ||
            !need_matrix(m, NAME("attn_q"), q_rows, i->dim, turned, &w->q, e) || !need_matrix(m, NAME("attn_k"), kv_rows, i->dim, turned, &w->k, e) ||
            !need_matrix(m, NAME("attn_v"), kv_rows, i->dim, 0, &w->v, e) || !need_matrix(m, NAME("attn_output"), i->dim, q_rows, 0, &w->o, e) ||
            !need_matrix(m, NAME("ffn_gate"), i->ffn, i->dim, 0, &w->gate, e) || !need_matrix(m, NAME("ffn_up"), i->ffn, i->dim, 0, &w->up, e) ||
            !need_matrix(m, NAME("ffn_down"), i->dim, i->ffn, 0, &w->down, e)) return false;
        if (qk_norm && (!need_vector(m, NAME("attn_q_norm"), i->head_dim, false, &w->q_norm, e) || !need_vector(m, NAME("attn_k_norm"), i->head_dim, false, &w->k_norm, e))) return false;
    }
#undef NAME
    for (int k = 0; k <= 7 * i->layers; k++) {
        const matrix *w = matrix_at(m, k);
        *(k % 7 == 6 ? &m->hidden_forms : &m->input_forms) |= form_of(w->type);
        m->half_cache |= w->type != F32;
    }
    m->own_heads = i->head_dim % LANES == 0 && i->kv_heads % m->pool.threads == 0;
    for (int l = 0; l < i->layers; l++) {
        layer *w = &m->layers[l];
        w->gate.unit = w->up.unit = GROUP / LANES;
        if (m->own_heads) w->k.unit = w->v.unit = i->head_dim / LANES;
        if (m->own_heads) w->q.unit = i->heads / i->kv_heads * i->head_dim / LANES;
    }
    if (block_bytes(m) > 16 * m->file.size + (64u << 20))      /* heads of so few numbers that padding is all there is */
        return fail(e, "metadata: %d layers of %d heads need %zu MB of cache for %d tokens, out of proportion to the file", i->layers, i->kv_heads, block_bytes(m) >> 20, BLOCK);
    for (uint64_t t = 0; t < m->file.n_tensors; t++)
        if (!m->file.tensors[t].used) return fail(e, "tensor %s is not part of the %s family as this program knows it", show(m->file.tensors[t].name).text, family);
    m->info.token_bytes = (block_bytes(m) - sizeof(block)) / BLOCK;
    if (adapter && !load_adapter(m, adapter, family, e)) return false;
    return m->has_weights = !repack || pack_weights(m, e);
}

/* An array of strings as views, or of numbers as they stand; NULL and a complaint when it is not one. */
static bool get_array(const gguf_file *f, const char *key, uint32_t kind, uint64_t count, const entry **out, complaint e) {
    const entry *it = *out = find(f, key);
    if (!it) return true;
    if (it->kind != ARRAY || it->item_kind != kind) return fail(e, "metadata: %s is not an array of %s", key, kind == STRING ? "strings" : kind == I32 ? "32-bit integers" : "32-bit reals");
    if (count != UINT64_MAX && it->count != count) return fail(e, "metadata: %s has %llu items where %llu tokens are", key, (unsigned long long)it->count, (unsigned long long)count);
    return it->count <= INT32_MAX || fail(e, "metadata: %s has too many items", key);
}

static text_view *views_of(const gguf_file *f, const entry *it) {
    text_view *views = malloc((it->count + 1) * sizeof *views);
    cursor c = {it->at, f->size - (uint64_t)(it->at - f->map)};
    for (uint64_t i = 0; views && i < it->count; i++)
        if (!take_text(&c, &views[i])) views[i].size = 0;      /* it was checked: the file was changed under us since */
    return views;
}

static void *copy_of(const entry *it) {         /* 32-bit numbers, aligned */
    void *copy = malloc(4 * (it->count + 1));
    if (copy) memcpy(copy, it->at, 4 * it->count);
    return copy;
}

static bool find_ends(tf_model *m, const text_view *tokens, const int32_t *types) {
    static const char *const words[] = {"</s>", "<|im_end|>", "<|end|>", "<|eot_id|>", "<|eom_id|>", "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>", "<|end_of_turn|>", "<EOT>", "<|EOT|>"};
    if (!(m->ends = calloc((size_t)m->info.vocab, 1))) return false;
    for (int t = 0; t < m->info.vocab; t++)
        for (size_t w = 0; types && types[t] == TF_CONTROL && w < sizeof words / sizeof *words; w++) m->ends[t] |= same(tokens[t], words[w]);
    if (m->info.eos >= 0) m->ends[m->info.eos] = 1;
    if (m->info.eot >= 0) m->ends[m->info.eot] = 1;
    return true;
}

static bool load_tokenizer(tf_model *m, complaint e) {
    const gguf_file *f = &m->file;
    const entry *tokens, *scores, *types, *merges;
    if (!get_array(f, "tokenizer.ggml.tokens", STRING, UINT64_MAX, &tokens, e)) return false;
    const char *model = get_text(f, "tokenizer.ggml.model"), *pre = get_text(f, "tokenizer.ggml.pre");
    if (!model || !tokens || !tokens->count) return fail(e, "metadata: %s is missing: the file has no vocabulary", model ? "tokenizer.ggml.tokens" : "tokenizer.ggml.model");
    tf_info *i = &m->info;
    i->vocab = (int32_t)tokens->count;
    if (!get_array(f, "tokenizer.ggml.scores", REAL32, tokens->count, &scores, e) || !get_array(f, "tokenizer.ggml.token_type", I32, tokens->count, &types, e) ||
        !get_array(f, "tokenizer.ggml.merges", STRING, UINT64_MAX, &merges, e)) return false;
    const struct { const char *key; int32_t *id; } ids[] = {{"bos", &i->bos}, {"eos", &i->eos}, {"eot", &i->eot}, {"unknown", &i->unk}, {"padding", &i->pad}};
    for (size_t k = 0; k < sizeof ids / sizeof *ids; k++) {
        char key[64];
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", ids[k].key);
        const entry *none = find(f, key);
        *ids[k].id = -1;                                        /* 2^32 - 1 is how converters write "there is none" */
        if (!(none && none->kind == U32 && get_u32(none->at) == UINT32_MAX) && !get_integer(f, key, -1, -1, i->vocab - 1, ids[k].id, e)) return false;
    }
    bool spm = !strcmp(model, "llama"), llama3 = pre && (!strcmp(pre, "llama-bpe") || !strcmp(pre, "llama3") || !strcmp(pre, "llama-v3"));
    int32_t add_space;
    if (!get_integer(f, "tokenizer.ggml.add_bos_token", spm || llama3, 0, 1, &i->add_bos, e) || !get_integer(f, "tokenizer.ggml.add_eos_token", 0, 0, 1, &i->add_eos, e) ||
        !get_integer(f, "tokenizer.ggml.add_space_prefix", spm, 0, 1, &add_space, e)) return false;
    if (i->bos < 0) i->add_bos = 0;
    if (i->eos < 0) i->add_eos = 0;
    text_view *token_views = views_of(f, tokens), *merge_views = merges ? views_of(f, merges) : NULL;
    float *score = scores ? copy_of(scores) : NULL;
    int32_t *type = types ? copy_of(types) : NULL;
    const char *problem = "out of memory for the vocabulary";
    if (token_views && (merge_views || !merges) && (score || !scores) && (type || !types) && find_ends(m, token_views, type)) {
        problem = tokenizer_open(&m->tokenizer, &(vocabulary_source){
            .model = {model, strlen(model)}, .pre = {pre ? pre : "", pre ? strlen(pre) : 0}, .n_tokens = (uint32_t)i->vocab, .n_merges = merges ? (uint32_t)merges->count : 0,
            .tokens = token_views, .merges = merge_views, .scores = score, .types = type, .bos = i->bos, .eos = i->eos, .eot = i->eot, .unk = i->unk, .add_space_prefix = add_space});
        m->has_tokenizer = !problem;
    }
    free(token_views);
    free(merge_views);
    free(score);
    free(type);
    return !problem || fail(e, "vocabulary: %s%s%s", problem, pre && strstr(problem, "pre-tokenizer") ? ": " : "", pre && strstr(problem, "pre-tokenizer") ? show((text_view){pre, strlen(pre)}).text : "");
}

static int count_cores(void) {
#ifdef __linux__
    cpu_set_t set;
    if (!sched_getaffinity(0, sizeof set, &set)) return CPU_COUNT(&set);
#endif
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

static void model_release(tf_model *m) {
    if (atomic_fetch_sub(&m->references, 1) != 1) return;
    pool_close(&m->pool);
    free(m->scratch.memory);
    if (m->panels) munmap(m->panels, m->panels_size);
    for (int i = 0; i < m->n_vectors; i++) free(m->vectors[i]);
    free(m->vectors);
    free(m->layers);
    free(m->low_ranks);
    free(m->frequency);
    free(m->rotation);
    free(m->parts);
    free(m->ends);
    if (m->has_tokenizer) tokenizer_close(&m->tokenizer);
    file_close(&m->file);
    file_close(&m->adapter);
    while (m->n_spare) free(m->spare[--m->n_spare]);
    pthread_mutex_destroy(&m->spare_lock);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static bool model_load(tf_model *m, const char *path, const char *adapter, int threads, bool repack, complaint e) {
    if (!file_open(&m->file, path, e)) return false;
    const char *type = get_text(&m->file, "general.type");
    if (type && !strcmp(type, "adapter")) return fail(e, "%s is an adapter, which changes a model and is none", path);
    if (!load_tokenizer(m, e)) return false;
    m->info.bytes = m->file.size;
    for (uint64_t t = 0; t < m->file.n_tensors; t++) m->info.parameters += m->file.tensors[t].rows * m->file.tensors[t].columns;
    if (!m->file.n_tensors) return !adapter || fail(e, "%s has no weights that an adapter could change", path);
    const char *family = get_text(&m->file, "general.architecture");
    if (!family) return fail(e, "metadata: general.architecture is missing");
    if (strcmp(family, "llama") && strcmp(family, "qwen2") && strcmp(family, "qwen3"))
        return fail(e, "architecture %s is not supported (llama, qwen2 and qwen3 are)", show((text_view){family, strlen(family)}).text);
    if (threads <= 0) threads = count_cores();
    if (!load_shape(m, family, e) || !pool_open(&m->pool, threads > MAX_THREADS ? MAX_THREADS : threads, e)) return false;
    m->info.threads = m->pool.threads;
    return load_weights(m, family, adapter, repack, e);
}

TF_API tf_model *tf_open(const char *path, const char *adapter, int32_t threads, int32_t repack, char *error, int32_t error_size) {
    tf_model *m = aligned_alloc(_Alignof(tf_model), sizeof *m);        /* the pool's counters stand on lines of their own */
    complaint e = {error, error_size};
    fail(e, "%s", "");
    if (!m) { fail(e, "out of memory"); return NULL; }
    memset(m, 0, sizeof *m);
    m->process = getpid();
    atomic_init(&m->references, 1);
    pthread_mutex_init(&m->lock, NULL);
    pthread_mutex_init(&m->spare_lock, NULL);
    if (model_load(m, path, adapter, threads, repack, e)) return m;
    model_release(m);
    return NULL;
}

TF_API void tf_close(tf_model *m) { if (m) model_release(m); }
TF_API void tf_describe(const tf_model *m, tf_info *info) { *info = m->info; }
TF_API const char *tf_text(const tf_model *m, const char *key) {
    const char *learned = m->adapter.map && !strcmp(key, "tokenizer.chat_template") ? get_text(&m->adapter, key) : NULL;
    return learned ? learned : get_text(&m->file, key);
}
TF_API int64_t tf_held(const tf_model *m) { return atomic_load_explicit(&((tf_model *)m)->blocks, memory_order_relaxed) * (int64_t)m->info.token_bytes * BLOCK; }
TF_API int32_t tf_interface(void) { return TF_INTERFACE; }
TF_API const char *tf_kernels(void) { return KERNELS; }

TF_API int64_t tf_tokenize(const tf_model *m, const char *text, int64_t size, int32_t special, int32_t *tokens, int64_t room) {
    return tokenizer_encode(&m->tokenizer, text, size, special, tokens, room);
}
TF_API int64_t tf_detokenize(const tf_model *m, const int32_t *tokens, int64_t n, int32_t special, int32_t skip_space, char *text, int64_t room) {
    return tokenizer_decode(&m->tokenizer, tokens, n, special, skip_space, text, room);
}
TF_API int32_t tf_attribute(const tf_model *m, int32_t token) { return token >= 0 && token < m->info.vocab ? m->tokenizer.attributes[token] : -1; }
TF_API int32_t tf_ends(const tf_model *m, int32_t token) { return token >= 0 && token < m->info.vocab && m->ends[token]; }

/* ==== session =============================================================================================
 * A session is a list of blocks. A fork takes the same blocks and counts one more reference on each; whoever appends to
 * a half-filled block that others hold too works on a copy of that one block. */

static void block_release(tf_model *m, block *b) {
    if (atomic_fetch_sub(&b->references, 1) != 1) return;
    atomic_fetch_sub_explicit(&m->blocks, 1, memory_order_relaxed);
    pthread_mutex_lock(&m->spare_lock);
    const bool keep = (size_t)m->n_spare < sizeof m->spare / sizeof *m->spare;
    if (keep) m->spare[m->n_spare++] = b;
    pthread_mutex_unlock(&m->spare_lock);
    if (!keep) free(b);
}

static block *block_new(tf_model *m, const block *from) {
    pthread_mutex_lock(&m->spare_lock);
    block *b = m->n_spare ? m->spare[--m->n_spare] : NULL;
    pthread_mutex_unlock(&m->spare_lock);
    if (!b) b = aligned_alloc(LINE, (block_bytes(m) + LINE - 1) / LINE * LINE);
    if (!b) return NULL;
    if (from) memcpy(b->data, from->data, block_bytes(m) - sizeof(block));
    atomic_init(&b->references, 1);
    atomic_fetch_add_explicit(&m->blocks, 1, memory_order_relaxed);
    return b;
}

static int blocks_for(int length) { return (length + BLOCK - 1) / BLOCK; }

static bool session_room(tf_session *s, int blocks) {
    if (blocks <= s->room) return true;
    int room = blocks > 2 * s->room ? blocks : 2 * s->room;
    block **list = realloc(s->block, (size_t)room * sizeof *list);
    if (!list) return false;
    s->block = list;
    s->room = room;
    return true;
}

TF_API tf_session *tf_session_new(tf_model *m, char *error, int32_t error_size) {
    complaint e = {error, error_size};
    if (!m->has_weights) { fail(e, "this file is a vocabulary without weights: there is nothing to run"); return NULL; }
    tf_session *s = calloc(1, sizeof *s);
    if (!s) { fail(e, "out of memory for a session"); return NULL; }
    s->model = m;
    atomic_fetch_add(&m->references, 1);
    return s;
}

TF_API tf_session *tf_session_fork(const tf_session *from, char *error, int32_t error_size) {
    tf_session *s = tf_session_new(from->model, error, error_size);
    if (!s) return NULL;
    if (!session_room(s, blocks_for(from->length))) {
        fail((complaint){error, error_size}, "out of memory for a session");
        tf_session_free(s);
        return NULL;
    }
    s->length = from->length;
    s->blocks = blocks_for(from->length);
    for (int b = 0; b < s->blocks; b++) {
        s->block[b] = from->block[b];
        atomic_fetch_add_explicit(&s->block[b]->references, 1, memory_order_relaxed);
    }
    return s;
}

TF_API void tf_session_free(tf_session *s) {
    if (!s) return;
    for (int b = 0; b < s->blocks; b++) block_release(s->model, s->block[b]);
    free(s->block);
    model_release(s->model);
    free(s);
}

TF_API int32_t tf_session_length(const tf_session *s) { return s->length; }

TF_API int32_t tf_session_rewind(tf_session *s, int32_t length) {
    if (length < 0 || length > s->length) return -1;
    s->length = length;
    while (s->blocks > blocks_for(length)) block_release(s->model, s->block[--s->blocks]);
    return 0;
}

/* Blocks for n more tokens, the one that is half full among them, ours alone. Invisible until the length grows. */
static bool session_reserve(tf_session *s, int n) {
    int needed = blocks_for(s->length + n), half = s->length / BLOCK;
    if (!session_room(s, needed)) return false;
    if (s->length % BLOCK && atomic_load_explicit(&s->block[half]->references, memory_order_acquire) > 1) {
        block *own = block_new(s->model, s->block[half]);
        if (!own) return false;
        block_release(s->model, s->block[half]);
        s->block[half] = own;
    }
    for (; s->blocks < needed; s->blocks++)
        if (!(s->block[s->blocks] = block_new(s->model, NULL))) return false;
    return true;
}

static void *carve(uint8_t *memory, size_t *used, size_t bytes) {
    void *at = memory ? memory + *used : NULL;
    *used += (bytes + LINE - 1) / LINE * LINE;
    return at;
}

static operand carve_operand(uint8_t *memory, size_t *used, int forms, int rows, int columns) {
    const size_t n = (size_t)rows * (size_t)(columns + columns % 2);
    return (operand){
        .columns = columns,
        .x = carve(memory, used, forms & FLOATS ? n * sizeof(float) : 0),
        .halves = carve(memory, used, forms & HALVES ? n * sizeof(uint16_t) : 0),
        .codes = carve(memory, used, forms & CODES ? n : 0),
        .spans = carve(memory, used, forms & CODES ? n / GROUP * sizeof(span) : 0),
    };
}

static inputs carve_inputs(const tf_model *m, uint8_t *memory, size_t *used, int forms, int rows) {
    const int found = m->info.heads * m->info.head_dim, widest = found > m->info.dim ? found : m->info.dim;
    const operand it = carve_operand(memory, used, forms, rows, widest);
    inputs in = {it, it};
    in.normal.columns = m->info.dim;
    in.found.columns = found;
    return in;
}

/* Cut working memory into parts; how much it takes. Without memory, only that. */
static size_t scratch_carve(const tf_model *m, scratch *s, int rows, int length, uint8_t *memory) {
    const tf_info *i = &m->info;
    const size_t n = (size_t)rows * sizeof(float);
    size_t used = 0;
    s->memory = memory;
    s->rows_room = rows;
    s->length_room = length;
    s->rows = carve(memory, &used, (size_t)rows * sizeof *s->rows);
    s->wanted_rows = carve(memory, &used, (size_t)rows * sizeof *s->wanted_rows);
    s->x = carve(memory, &used, n * (size_t)i->dim);
    s->q = carve(memory, &used, n * (size_t)i->heads * (size_t)i->head_dim);
    s->k = carve(memory, &used, n * (size_t)i->kv_heads * (size_t)i->head_dim);
    s->v = carve(memory, &used, n * (size_t)i->kv_heads * (size_t)i->head_dim);
    s->z = carve(memory, &used, n * (size_t)m->most_low);
    s->in = carve_inputs(m, memory, &used, m->input_forms, rows);
    s->hidden = carve_operand(memory, &used, m->hidden_forms, rows, i->ffn);
    for (int thread = 0; thread < m->pool.threads; thread++) {
        desk *d = &s->desks[thread];
        d->in = carve_inputs(m, memory, &used, m->input_forms | FLOATS, 1);
        d->glu = carve(memory, &used, n * 2 * GROUP);
        d->q = carve(memory, &used, QUERIES * sizeof(float) * (size_t)i->head_dim);
        d->scores = carve(memory, &used, QUERIES * sizeof(float) * (size_t)(length + BLOCK));
        d->sums = carve(memory, &used, QUERIES * sizeof(float) * (size_t)m->head_pad);
        d->panels = carve(memory, &used, m->panels ? 0 : BATCH_PANELS * m->widest);
    }
    return used;
}

/* Working memory for passes of `rows` rows and sessions of `length`, and the angles of so many positions. */
static bool scratch_reserve(tf_model *m, int rows, int length) {
    scratch *s = &m->scratch, bigger = *s;
    if (rows > s->rows_room || length > s->length_room) {
        const int rows_room = rows > s->rows_room ? rows : s->rows_room;
        int length_room = s->length_room ? s->length_room : 16 * BLOCK;
        while (length_room < length) length_room = length_room < INT32_MAX / 2 ? 2 * length_room : INT32_MAX - LANES;
        uint8_t *memory = aligned_alloc(LINE, scratch_carve(m, &bigger, rows_room, length_room, NULL));
        if (!memory) return false;
        free(s->memory);
        scratch_carve(m, s, rows_room, length_room, memory);
    }
    if (length > m->turns) {
        const int half = m->rotated / 2, turns = s->length_room < m->info.context ? s->length_room : m->info.context;
        float *rotation = realloc(m->rotation, (size_t)turns * (size_t)m->rotated * sizeof *rotation);
        if (!rotation) return false;
        m->rotation = rotation;
        for (int p = m->turns; p < turns; p++)
            for (int r = 0; r < half; r++) {
                const float angle = (float)p * m->frequency[r];
                rotation[(size_t)p * (size_t)m->rotated + (size_t)r] = cosf(angle);
                rotation[(size_t)p * (size_t)m->rotated + (size_t)(half + r)] = sinf(angle);
            }
        m->turns = turns;
    }
    return true;
}

/* Most rows in one pass: 512, fewer where a row is so wide that they would take more than 64 MB. */
static int most_rows(const tf_model *m) {
    int64_t row_bytes = 4 * (2 * (int64_t)m->info.dim + (int64_t)m->info.ffn + (2 * (int64_t)m->info.heads + 2 * m->info.kv_heads) * m->info.head_dim + 2 * GROUP * m->pool.threads);
    int64_t rows = (64 << 20) / row_bytes;
    return rows < 1 ? 1 : rows > 512 ? 512 : (int)rows;
}

static bool check_steps(tf_model *m, const tf_step *steps, int n_steps, const float *logits, complaint e) {
    for (int i = 0; i < n_steps; i++) {
        const tf_step *it = &steps[i];
        if (!it->session || it->session->model != m) return fail(e, "step %d: its session belongs to another model", i);
        if (it->n < 1 || !it->tokens) return fail(e, "step %d: has no tokens", i);
        if (it->want && !logits) return fail(e, "step %d: asks for logits, but there is no place for them", i);
        if (it->session->listed) return fail(e, "step %d: its session already stands in an earlier step", i);
        it->session->listed = true;
        if (it->n > m->info.context - it->session->length)
            return fail(e, "the context is full: %d tokens are held and %d more were given, but it has room for %d in all", it->session->length, it->n, m->info.context);
        for (int k = 0; k < it->n; k++)
            if (it->tokens[k] < 0 || it->tokens[k] >= m->info.vocab) return fail(e, "token %d is not in the vocabulary of %d", it->tokens[k], m->info.vocab);
    }
    return true;
}

static int64_t evaluate(tf_model *m, const tf_step *steps, int n_steps, float *logits, complaint e) {
    int64_t total = 0, written = 0;
    int longest = 0;
    for (int i = 0; i < n_steps; i++) {
        total += steps[i].n;
        if (steps[i].session->length + steps[i].n > longest) longest = steps[i].session->length + steps[i].n;
        if (!session_reserve(steps[i].session, steps[i].n)) { fail(e, "out of memory for the KV cache"); return -1; }
    }
    const int most = most_rows(m);
    if (!scratch_reserve(m, total < most ? (int)total : most, longest)) { fail(e, "out of memory for the working memory"); return -1; }
    scratch *s = &m->scratch;
    for (int i = 0, done = 0; i < n_steps;) {                   /* fill a pass with rows, then run it */
        s->logits = logits ? logits + written * m->info.vocab : NULL;
        for (s->n = s->wanted = 0; i < n_steps && s->n < most;) {
            const tf_step *it = &steps[i];
            s->rows[s->n] = (row){it->session, it->tokens[done], it->session->length + done};
            done++;
            if (it->want == 2 || (it->want == 1 && done == it->n)) s->wanted_rows[s->wanted++] = s->n;
            s->n++;
            if (done == it->n) { i++; done = 0; }
        }
        if (s->n == 1) embed(m, 0);
        pool_run(&m->pool, forward, m);
        written += s->wanted;
    }
    for (int i = 0; i < n_steps; i++) steps[i].session->length += steps[i].n;
    return written;
}

TF_API int64_t tf_evaluate(tf_model *m, const tf_step *steps, int32_t n_steps, float *logits, char *error, int32_t error_size) {
    complaint e = {error, error_size};
    int64_t written = -1;
    if (getpid() != m->process) {
        fail(e, "the model was opened before this process was forked, and its threads stayed behind: open it anew");
        return -1;
    }
    pthread_mutex_lock(&m->lock);
    if (check_steps(m, steps, n_steps, logits, e)) written = evaluate(m, steps, n_steps, logits, e);
    for (int i = 0; i < n_steps; i++)
        if (steps[i].session && steps[i].session->model == m) steps[i].session->listed = false;
    pthread_mutex_unlock(&m->lock);
    return written;
}

TF_API int32_t tf_embed(tf_model *m, const int32_t *tokens, int32_t n, float *out, char *error, int32_t error_size) {
    const int dim = m->info.dim, most = m->has_weights ? most_rows(m) : 1;
    complaint e = {error, error_size};
    tf_session *s = tf_session_new(m, error, error_size);
    float *one = malloc((size_t)dim * sizeof *one);
    bool good = s && one && n > 0;
    if (s && !good) fail(e, n > 0 ? "out of memory" : "there are no tokens");
    for (int i = 0; good && i < dim; i++) out[i] = 0;
    for (int done = 0, count; good && done < n; done += count) {
        count = n - done < most ? n - done : most;
        const tf_step step = {s, tokens + done, count, 0};
        if (getpid() != m->process) good = fail(e, "the model was opened before this process was forked: open it anew");
        pthread_mutex_lock(&m->lock);
        good = good && check_steps(m, &step, 1, NULL, e) && evaluate(m, &step, 1, NULL, e) >= 0;
        s->listed = false;
        for (int i = 0; good && i < count; i++) {       /* one pass: its rows are still there */
            normalise(m->scratch.x + (size_t)i * (size_t)dim, m->output_norm, dim, m->eps, one);
            for (int c = 0; c < dim; c++) out[c] += one[c] / (float)n;
        }
        pthread_mutex_unlock(&m->lock);
    }
    free(one);
    tf_session_free(s);
    return good ? 0 : -1;
}

TF_API void tf_rows(const tf_model *m, const int32_t *tokens, int32_t n, float *out) {
    for (int32_t i = 0; i < n; i++) embedding_row(m, tokens[i], out + (size_t)i * (size_t)m->info.dim);
}

TF_API int64_t tf_session_save(const tf_session *s, void *out, int64_t room) {
    const size_t bytes = block_bytes(s->model) - sizeof(block);
    const int64_t size = (int64_t)bytes * blocks_for(s->length);
    for (int b = 0; room >= size && b < blocks_for(s->length); b++) memcpy((uint8_t *)out + (size_t)b * bytes, s->block[b]->data, bytes);
    return size;
}

TF_API int32_t tf_session_load(tf_session *s, int32_t length, const void *data, int64_t size) {
    const size_t bytes = block_bytes(s->model) - sizeof(block);
    if (s->length || length < 0 || length > s->model->info.context || size != (int64_t)bytes * blocks_for(length) || !session_reserve(s, length)) return -1;
    for (int b = 0; b < blocks_for(length); b++) memcpy(s->block[b]->data, (const uint8_t *)data + (size_t)b * bytes, bytes);
    s->length = length;
    return 0;
}

/* ==== sampler =============================================================================================
 * Logits to one token, without sorting. A token may stand if fewer than top_k are ahead of it, those hold less than top_p of the
 * whole, and it is at least min_p times as likely as the first. One is drawn from all; if it may not stand, another from those
 * ahead of it, and so on: the chances are those of a draw from all that may stand, and mostly the first does. Weights are whole
 * numbers, made by operations that every machine and NumPy round alike: no sum depends on its order, no token on the machine. */

enum { WINDOW = 4096, CHUNK = 256, MOST = 1 << 30 };    /* MOST: the weight of the most likely token */

struct tf_sampler {
    int vocab, chunks;          /* of 256 tokens; what stands behind the vocabulary weighs nothing */
    tf_sampling settings;
    uint64_t random;
    bool biased;
    int history[WINDOW];        /* a ring of the last tokens */
    int64_t accepted;
    float *bias, *changed;      /* changed: logits with bias and penalties, the last chunk always */
    int32_t *weight;
    int64_t sums[];             /* of the weights that may be drawn, one a chunk */
};

static double next_random(uint64_t *state) {    /* splitmix64 (Steele, Lea, Flood 2014): [0, 1) with 53 bits */
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

TF_API void tf_sampler_free(tf_sampler *s) { free(s); }
TF_API tf_sampler *tf_sampler_new(int32_t vocab, const tf_sampling *settings, uint64_t seed) {
    if (vocab <= 0) return NULL;
    const int chunks = (vocab - 1) / CHUNK + 1;
    const size_t room = (size_t)chunks * CHUNK;
    tf_sampler *s = calloc(1, sizeof *s + (size_t)chunks * sizeof *s->sums + room * (sizeof *s->weight + sizeof *s->changed + sizeof *s->bias));
    if (!s) return NULL;
    *s = (tf_sampler){.vocab = vocab, .chunks = chunks, .settings = *settings, .random = seed, .weight = (int32_t *)(s->sums + chunks)};
    if (s->settings.window > WINDOW) s->settings.window = WINDOW;
    s->changed = (float *)(s->weight + room);
    s->bias = s->changed + room;
    for (size_t t = (size_t)vocab; t < room; t++) s->changed[t] = -INFINITY;
    return s;
}

TF_API int32_t tf_sampler_bias(tf_sampler *s, int32_t token, float bias) {
    if (token < 0 || token >= s->vocab) return -1;
    s->bias[token] += bias;
    s->biased = true;
    return 0;
}

TF_API void tf_sampler_accept(tf_sampler *s, int32_t token) {
    if (token >= 0 && token < s->vocab) s->history[s->accepted++ % WINDOW] = token;
}

/* Bias and penalties. A token seen twice is penalised once, because each time it starts from what it was. */
static const float *change(tf_sampler *s, const float *logits) {
    const tf_sampling *o = &s->settings;
    const int64_t seen = o->repetition == 1 && o->presence == 0 ? 0 : s->accepted < o->window ? s->accepted : o->window;
    int t = s->biased || seen > 0 ? 0 : (s->chunks - 1) * CHUNK;
    for (; t + WIDTH <= s->vocab; t += WIDTH) store(s->changed + t, load(logits + t) + load(s->bias + t));
    for (; t < s->vocab; t++) s->changed[t] = logits[t] + s->bias[t];
    for (int64_t i = s->accepted - seen; i < s->accepted; i++) {
        t = s->history[i % WINDOW];
        const float x = logits[t] + s->bias[t];
        s->changed[t] = (float)((x > 0 ? (double)x / (double)o->repetition : (double)x * (double)o->repetition) - (double)o->presence);
    }
    return s->biased || seen > 0 ? s->changed : logits;
}

static int first_largest(const tf_sampler *s, const float *x) {    /* what is not a number is never larger */
    float most = -INFINITY;
    int first = 0;
    for (int c = 0; c < s->chunks; c++) {
        const float *from = (c + 1 < s->chunks ? x : s->changed) + c * CHUNK;
        vec top = splat(-INFINITY);
        for (int i = 0; i < CHUNK; i += WIDTH) {
            const vec a = load(from + i);
            const ivec more = a > top;
            top = (vec)((more & (ivec)a) | (~more & (ivec)top));
        }
        if (largest(top) > most) { most = largest(top); first = c * CHUNK; }
    }
    while (most > -INFINITY && x[first] != most) first++;
    return first;
}

typedef struct { int64_t sum, count; } amount;

/* Add up the weights of a chunk that are `least` or more: by lane, in two parts of 15 bits each, which do not overflow. */
INLINE void add_up(tf_sampler *s, int c, int32_t least, amount *all) {
    ivec high = {0}, low = {0}, count = {0};
    for (int i = 0; i < CHUNK; i += WIDTH) {
        const ivec w = load_words(s->weight + c * CHUNK + i), in = w >= least;
        high += (w & in) >> 15;
        low += w & in & 0x7fff;
        count -= in;
    }
    s->sums[c] = 0;
    for (int i = 0; i < WIDTH; i++) { s->sums[c] += ((int64_t)high[i] << 15) + low[i]; all->count += count[i]; }
    all->sum += s->sums[c];
}

/* Weights: 2^30 exp((x - most) / temperature) to within 2 in a million, cut to whole numbers. A step is 2^-20 of a halving. Steps
 * are a power of two and 20 bits of a fraction: the high 12 go into the square of a polynomial in two factors, which are exact
 * as integers, and the low 8 into a line, whose product is exact too, so that a compiler may fuse it with the subtraction. */
static amount weigh_tokens(tf_sampler *s, const float *x, float most) {
    const vec scale = splat((float)fmin(0x1p20 * 1.4426950408889634 / (double)s->settings.temperature, 1e38)), end = splat(34 * 0x1p20f);
    amount all = {0, 0};
    for (int c = 0; c < s->chunks; c++) {
        const float *from = (c + 1 < s->chunks ? x : s->changed) + c * CHUNK;
        for (int i = 0; i < CHUNK; i += WIDTH) {
            const vec d = (splat(most) - load(from + i)) * scale;
            const ivec near = d < end;          /* never for what is not a number, which weighs nothing */
            const ivec steps = __builtin_convertvector((vec)((near & (ivec)d) | (~near & (ivec)end)), ivec), z = steps >> 8 & 0xfff;
            const ivec a = (z - 5282) * (z - 5282) + 874015366, b = (z - 22565) * (z - 22565) + 109896132;
            const vec p = __builtin_convertvector(a, vec) * __builtin_convertvector(b, vec);
            const vec line = splat(0x1.10df9ep-88f) - splat(0x1.7a4p-109f) * __builtin_convertvector(steps & 0xff, vec);
            const ivec w = __builtin_convertvector((vec)((ivec)(p * p * line) - (steps >> 20 << 23)), ivec);
            memcpy(s->weight + c * CHUNK + i, &w, sizeof w);
        }
        add_up(s, c, 1, &all);
    }
    return all;
}

static int draw(tf_sampler *s, amount may) {
    const tf_sampling *o = &s->settings;
    const double share = (double)o->top_p * (double)may.sum, least = (double)o->min_p * MOST;
    for (int token = 0, weight = 0;;) {         /* what may be drawn is ahead of this token, which is at first behind them all */
        int64_t left = (int64_t)fmin(next_random(&s->random) * (double)may.sum, (double)(may.sum - 1));
        int c = 0, t;
        while (left >= s->sums[c]) left -= s->sums[c++];
        for (t = c * CHUNK; left >= 0; t++) if (s->weight[t] > weight || (s->weight[t] == weight && t < token)) left -= s->weight[t];
        weight = s->weight[token = t - 1];
        if (o->top_k <= 0 && o->top_p >= 1 && o->min_p <= 0) return token;
        may = (amount){0, 0};
        for (c = 0; c < s->chunks; c++) add_up(s, c, weight + (c >= token / CHUNK), &may);
        for (t = token / CHUNK * CHUNK; t < token; t++) if (s->weight[t] == weight) { s->sums[t / CHUNK] += weight; may.sum += weight; may.count++; }
        if (!may.count || ((o->top_k <= 0 || may.count < o->top_k) && (double)may.sum < share && weight >= least)) return token;
    }
}

TF_API int32_t tf_sampler_pick(tf_sampler *s, const float *logits) {
    const float *x = change(s, logits);
    int token = first_largest(s, x);
    if (s->settings.temperature > 0 && isfinite(x[token])) token = draw(s, weigh_tokens(s, x, x[token]));
    tf_sampler_accept(s, token);
    return token;
}

/* ==== main ================================================================================================
 * ./run model.gguf chats on a terminal; with -p it completes one prompt. */

#ifndef TF_LIBRARY

/* What stands around the messages of a conversation, where a file's template has the mark: before the system text, between
 * it and the first message, before that without one; between a message and its reply, between that and the next message. */
typedef struct { const char *mark, *name, *system, *after_system, *user, *assistant, *next; } family;
#define ROLES(open, shut, end) open "system" shut, end open "user" shut, open "user" shut, end open "assistant" shut, end open "user" shut
static const family FAMILIES[] = {
    {"<|im_start|>", "chatml", ROLES("<|im_start|>", "\n", "<|im_end|>\n")},
    {"<|start_header_id|>", "llama 3", ROLES("<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>")},
    {"<<SYS>>", "llama 2", "[INST] <<SYS>>\n", "\n<</SYS>>\n\n", "[INST] ", " [/INST]", "</s><s>[INST] "},
    {"[INST]", "mistral", "[INST] ", "\n\n", "[INST] ", " [/INST]", "</s>[INST] "},
    {"<|assistant|>", "zephyr", ROLES("<|", "|>\n", "</s>\n")},
    {"", "a base model, which continues your text", "", "", "", "", ""},        /* each text stands by itself */
};

typedef struct {
    const char *path, *adapter, *prompt, *system;
    int32_t limit, threads;
    bool raw, repack;
    tf_sampling sampling;
    uint64_t seed;
    tf_info info;
    tf_model *model;
    tf_session *session;
    tf_sampler *sampler;
    const family *family;
    float *logits;
    int32_t *pending;           /* tokens that the session has not seen yet; those that no context could hold are only counted */
    int64_t n_pending;
} chat;

static void add_token(chat *c, int32_t token) {
    if (c->n_pending < c->info.context) c->pending[c->n_pending] = token;
    c->n_pending++;
}

static bool add_text(chat *c, const char *text, int64_t size) {
    const int64_t at = c->n_pending < c->info.context ? c->n_pending : c->info.context;
    const int64_t n = tf_tokenize(c->model, text, size, 0, c->pending + at, c->info.context - at);
    c->n_pending += n;
    return n >= 0;
}

/* Add texts that follow one another, every other one a message: in the rest, which is a template's, control tokens are
 * recognised. What stands between two of them is tokenised in one piece, whoever wrote it, as templates mean it. */
static bool add_texts(chat *c, const char *const *texts, int n) {
    int64_t size = 0;
    for (int i = 0; i < n; i++) size += (int64_t)strlen(texts[i]);
    char *plain = malloc((size_t)size + 1);
    bool good = plain != NULL;
    size = 0;
    for (int i = 0; good && i < n; i++)
        for (const char *at = texts[i]; good && *at;) {
            const int32_t literal = i % 2 ? -1 : literal_at(&c->model->tokenizer, at, (int64_t)strlen(at), true);
            if (literal < 0) { plain[size++] = *at++; continue; }
            good = add_text(c, plain, size);
            add_token(c, literal);
            at += c->model->tokenizer.pieces[literal].size;
            size = 0;
        }
    good = good && add_text(c, plain, size);
    free(plain);
    return good;
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Evaluate what is pending, then write tokens to standard output until the model ends, or the limit (0: none) is reached. */
static bool reply(chat *c, complaint e) {
    char bytes[4096];
    int64_t held = 0, prompt = c->n_pending, made = 0;      /* held: bytes of a character that is not complete yet */
    double start = seconds(), first = 0;
    const bool begins = *c->family->mark || (prompt == 1 && c->pending[0] == c->info.bos);     /* a text begins here: no space in front */
    if (!prompt) return fail(e, "the prompt is empty, and this model has no token to begin with");
    while (!c->limit || made < c->limit) {
        const int32_t room = c->info.context - tf_session_length(c->session);
        if (c->n_pending > room) {
            if (!made) return fail(e, "the prompt has %lld tokens, but the context of %d has room for %d", (long long)prompt, c->info.context, room);
            fprintf(stderr, "\n[the context of %d tokens is full]", c->info.context);
            break;
        }
        if (tf_evaluate(c->model, &(tf_step){c->session, c->pending, (int32_t)c->n_pending, 1}, 1, c->logits, e.text, e.size) < 0) return false;
        c->n_pending = 0;
        if (!made++) first = seconds();
        int32_t token = tf_sampler_pick(c->sampler, c->logits);
        if (tf_ends(c->model, token)) break;
        add_token(c, token);
        int64_t size = tf_detokenize(c->model, &token, 1, 0, begins && made == 1, bytes + held, (int64_t)sizeof bytes - held), done = 0;
        if (size > 0 && size <= (int64_t)sizeof bytes - held) held += size;
        for (uint32_t point = 0; done < held;) {
            const int read = utf8_read(bytes + done, held - done, &point);
            if (point == CUT_SHORT) break;
            done += read;
        }
        fwrite(bytes, 1, (size_t)done, stdout);
        fflush(stdout);
        memmove(bytes, bytes + done, (size_t)(held -= done));
    }
    if (held) fputs("\xEF\xBF\xBD", stdout);
    double end = seconds();
    fprintf(stderr, "\n[%lld tokens read at %.0f/s, %lld written at %.1f/s]\n", (long long)prompt, (double)prompt / (first - start),
            (long long)made, made > 1 ? (double)(made - 1) / (end - first) : 0);
    fputs("\n", stdout);
    return true;
}

/* Say something and write the reply. */
static bool ask(chat *c, const char *message, complaint e) {
    const family *f = c->family;
    const bool base = !*f->mark, begins = base || !tf_session_length(c->session);
    const char *texts[] = {"", "", begins ? f->user : f->next, message, f->assistant};
    if (begins && !base && c->system) texts[0] = f->system, texts[1] = c->system, texts[2] = f->after_system;
    if (base) {
        tf_session_rewind(c->session, 0);
        c->n_pending = 0;
        fputs(message, stdout);
    }
    if (begins && c->info.add_bos) add_token(c, c->info.bos);
    return add_texts(c, texts, 5) && reply(c, e);
}

static bool converse(chat *c, complaint e) {
    if (c->prompt) return ask(c, c->prompt, e);
    fprintf(stderr, "%s: %s. End with Ctrl-D.\n", c->path, c->family->name);
    char *line = NULL;
    size_t room = 0;
    bool good = true;
    while (good && (fputs("> ", stderr), getline(&line, &room, stdin)) > 0) {
        line[strcspn(line, "\n")] = 0;
        if (!*line || ask(c, line, e)) continue;
        good = !*c->family->mark;
        if (good) fprintf(stderr, "run: %s\n", e.text);        /* else main says so */
    }
    free(line);
    return good;
}

static const char USAGE[] =
    "run: chat with the model in a parameters file (GGUF), or complete one prompt\n\n"
    "  ./run model.gguf [options]\n\n"
    "  -p TEXT    complete this prompt, then leave      -S TEXT    system message\n"
    "  -n N       at most N tokens a reply (0: no end)  -t REAL    temperature (0: the most likely), default 0.8\n"
    "  -k N       top-k (0: off)                        --top-p REAL, default 0.95     --min-p REAL (0: off)\n"
    "  -s SEED    the same seed gives the same text     -r REAL    repetition penalty (1: off)\n"
    "  -j N       threads (0: one a core)               --raw      no chat template: continue the text\n"
    "  --lora FILE   an adapter to change the model by\n"
    "  --no-repack   leave the weights in the mapped file: no memory of their own, far slower\n";

static bool read_options(int argc, char **argv, chat *o) {
    for (int i = 1; i < argc; i++) {
        const char *flag = argv[i], *value = argv[i + 1];
        if (!strcmp(flag, "-h") || !strcmp(flag, "--help")) { fputs(USAGE, stdout); exit(0); }
        if (!strcmp(flag, "--raw")) { o->raw = true; continue; }
        if (!strcmp(flag, "--no-repack")) { o->repack = false; continue; }
        if (flag[0] != '-' && !o->path) { o->path = flag; continue; }
        char *end = NULL;
        errno = 0;
        double number = value ? strtod(value, &end) : 0;
        i++;
        bool real = end && end != value && !*end && !errno && isfinite((float)number);
        bool whole = real && number >= 0 && number <= INT32_MAX && number == floor(number);
        if (!strcmp(flag, "-p") && value) o->prompt = value;
        else if (!strcmp(flag, "-S") && value) o->system = value;
        else if (!strcmp(flag, "--lora") && value) o->adapter = value;
        else if (!strcmp(flag, "-t") && real) o->sampling.temperature = (float)number;
        else if (!strcmp(flag, "--top-p") && real) o->sampling.top_p = (float)number;
        else if (!strcmp(flag, "--min-p") && real) o->sampling.min_p = (float)number;
        else if (!strcmp(flag, "-r") && real && number > 0) o->sampling.repetition = (float)number;
        else if (!strcmp(flag, "-n") && whole) o->limit = (int32_t)number;
        else if (!strcmp(flag, "-k") && whole) o->sampling.top_k = (int32_t)number;
        else if (!strcmp(flag, "-j") && whole) o->threads = (int32_t)number;
        else if (!strcmp(flag, "-s") && real) o->seed = strtoull(value, NULL, 10);
        else {
            fprintf(stderr, "run: %s %s is not understood; run -h lists the options\n", flag, value ? value : "");
            return false;
        }
    }
    if (!o->path) fputs(USAGE, stderr);
    return o->path != NULL;
}

int main(int argc, char **argv) {
    chat c = {.limit = 512, .repack = true, .sampling = {.temperature = 0.8f, .top_p = 0.95f, .repetition = 1, .window = 256}, .seed = (uint64_t)time(NULL)};
    char error[512];
    if (!read_options(argc, argv, &c)) return 2;
    c.model = tf_open(c.path, c.adapter, c.threads, c.repack, error, sizeof error);
    bool good = c.model && (c.session = tf_session_new(c.model, error, sizeof error));
    if (good) {
        tf_describe(c.model, &c.info);
        const char *template = c.raw ? NULL : tf_text(c.model, "tokenizer.chat_template");
        for (c.family = FAMILIES; !strstr(template ? template : "", c.family->mark);) c.family++;
        c.logits = malloc((size_t)c.info.vocab * sizeof *c.logits);
        c.pending = malloc((size_t)c.info.context * sizeof *c.pending);
        c.sampler = tf_sampler_new(c.info.vocab, &c.sampling, c.seed);
        snprintf(error, sizeof error, "out of memory");
        good = c.logits && c.pending && c.sampler && converse(&c, (complaint){error, sizeof error});
    }
    if (!good) fprintf(stderr, "run: %s\n", error);
    free(c.pending);
    free(c.logits);
    tf_sampler_free(c.sampler);
    tf_session_free(c.session);
    tf_close(c.model);
    return good ? 0 : 1;
}

#endif
