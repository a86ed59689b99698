/* hull-unpack [--layer] [--blob-digest] [--max-entries N] [--max-bytes N] DIRECTORY <archive
 * One JSON line on stdout: {"diffId","blobDigest"?,"size","entries","stream"} with exit code 0, or {"error","code"} with 1. */
#include "unpack.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

static uint64_t number(const char *text) {
  char *end;
  errno = 0;
  unsigned long long value = strtoull(text, &end, 10);
  if (errno != 0 || *end != '\0' || text[0] < '0' || text[0] > '9') die(EINVAL, "bad number");
  return value;
}

int main(int argc, char **argv) {
  struct options options = {.max_entries = 1 << 22, .max_bytes = 1ULL << 38};
  static const struct option names[] = {
      {"layer", no_argument, NULL, 'l'},
      {"blob-digest", no_argument, NULL, 'b'},
      {"max-entries", required_argument, NULL, 'e'},
      {"max-bytes", required_argument, NULL, 's'},
      {NULL, 0, NULL, 0},
  };
  for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
    switch (c) {
      case 'l': options.layer = true; break;
      case 'b': options.blob_digest = true; break;
      case 'e': options.max_entries = number(optarg); break;
      case 's': options.max_bytes = number(optarg); break;
      default: die(EINVAL, "usage: hull-unpack [--layer] [--blob-digest] [--max-entries N] [--max-bytes N] DIRECTORY");
    }
  }
  if (optind + 1 != argc) die(EINVAL, "one directory is needed");
  options.target = argv[optind];

  confine(&options);
  /* No file can be opened any more: neither OpenSSL's configuration nor gconv modules are looked for. The "C" locale
   * keeps names as the bytes that they are. */
  OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
  source_start(&options);
  confine_syscalls();

  static struct result result;
  extract(&options, &result);
  if (failed()) report_failure();
  report_success(&options, &result);
}
