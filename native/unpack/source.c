#include "unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Inflating is the slowest part of unpacking, hashing and writing the rest: two threads, one ring of buffers between. */
#define PIECES 8
#define PIECE_BYTES (256 * 1024)

static struct piece {
  size_t length; /* 0: end */
  unsigned char data[PIECE_BYTES];
} ring[PIECES];
static sem_t empty, full, start;
static unsigned head, tail;
static bool holding;

static unsigned char input[PIECE_BYTES];
static EVP_MD_CTX *blob_hash;

static la_ssize_t read_input(struct archive *archive, void *unused, const void **out) {
  (void)unused;
  for (;;) {
    ssize_t n = read(STDIN_FILENO, input, sizeof input);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      archive_set_error(archive, errno, "read of the archive failed");
      return -1;
    }
    if (blob_hash != NULL && n > 0) EVP_DigestUpdate(blob_hash, input, (size_t)n);
    *out = input;
    return n;
  }
}

/* Fills pieces whole, so that the other side is woken a few times a megabyte. */
static struct piece *filling;

static void flush(void) {
  if (filling == NULL) return;
  sem_post(&full);
  head++;
  filling = NULL;
}

static void emit(const unsigned char *data, size_t length) {
  while (length > 0) {
    if (filling == NULL) {
      while (sem_wait(&empty) != 0) {
      }
      filling = &ring[head % PIECES];
      filling->length = 0;
    }
    size_t n = PIECE_BYTES - filling->length;
    if (n > length) n = length;
    memcpy(filling->data + filling->length, data, n);
    filling->length += n;
    data += n;
    length -= n;
    if (filling->length == PIECE_BYTES) flush();
  }
}

static void decompress(struct archive *archive) {
  struct archive_entry *entry;
  int r = archive_read_next_header(archive, &entry);
  if (r == ARCHIVE_EOF) return; /* nothing at all: an archive without entries */
  if (r < ARCHIVE_WARN) {
    fail(0, "cannot read the archive: %s", archive_error_string(archive));
    return;
  }
  for (;;) {
    const void *data;
    size_t length;
    la_int64_t offset;
    r = archive_read_data_block(archive, &data, &length, &offset);
    if (r == ARCHIVE_EOF) break;
    if (r < ARCHIVE_WARN) {
      fail(0, "cannot decompress the archive: %s", archive_error_string(archive));
      return;
    }
    emit(data, length);
    if (failed()) return;
  }
  /* Bytes after the end of the compressed data belong to the blob's digest. */
  if (blob_hash != NULL) {
    const void *rest;
    while (read_input(archive, NULL, &rest) > 0) {
    }
  }
}

static struct archive *reader;

static void *run(void *unused) {
  while (sem_wait(&start) != 0) {
  }
  if (archive_read_open(reader, NULL, NULL, read_input, NULL) != ARCHIVE_OK) {
    fail(0, "cannot read the archive: %s", archive_error_string(reader));
  } else {
    decompress(reader);
  }
  flush();
  while (sem_wait(&empty) != 0) {
  }
  ring[head % PIECES].length = 0;
  sem_post(&full);
  return unused;
}

void source_start(const struct options *options) {
  sem_init(&empty, 0, PIECES);
  sem_init(&full, 0, 0);
  sem_init(&start, 0, 0);
  if (options->blob_digest) {
    blob_hash = EVP_MD_CTX_new();
    if (blob_hash == NULL || EVP_DigestInit_ex(blob_hash, EVP_sha256(), NULL) != 1) die(0, "SHA-256 is not available");
  }
  reader = archive_read_new();
  /* ARCHIVE_WARN would mean: by an external program. There is none in here. */
  if (reader == NULL || archive_read_support_filter_gzip(reader) != ARCHIVE_OK || archive_read_support_filter_zstd(reader) != ARCHIVE_OK ||
      archive_read_support_filter_xz(reader) != ARCHIVE_OK || archive_read_support_filter_bzip2(reader) != ARCHIVE_OK ||
      archive_read_support_format_raw(reader) != ARCHIVE_OK || archive_read_support_format_empty(reader) != ARCHIVE_OK) {
    die(0, "libarchive lacks gzip, zstd, xz or bzip2");
  }
  pthread_t thread;
  int r = pthread_create(&thread, NULL, run, NULL);
  if (r != 0) die(r, "pthread_create");
}

void source_go(void) {
  sem_post(&start);
}

int64_t source_next(const void **data) {
  if (holding) {
    tail++;
    sem_post(&empty);
    holding = false;
  }
  if (failed()) return -1;
  while (sem_wait(&full) != 0) {
  }
  struct piece *piece = &ring[tail % PIECES];
  if (piece->length == 0) {
    sem_post(&full); /* the end stays the end */
    return failed() ? -1 : 0;
  }
  holding = true;
  *data = piece->data;
  return (int64_t)piece->length;
}

void source_blob_digest(unsigned char out[SHA256_BYTES]) {
  if (blob_hash != NULL) EVP_DigestFinal_ex(blob_hash, out, NULL);
}
