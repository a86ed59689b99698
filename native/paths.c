/* openat2(2) below a root directory that somebody else controls. */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static napi_value js_open_in_root(napi_env env, napi_callback_info info) {
  napi_value argv[4];
  AUTO_FREE root = NULL;
  AUTO_FREE path = NULL;
  int flags, mode;
  if (!arg_all(env, info, 4, argv) || !arg_string(env, argv[0], "root", &root) ||
      !arg_string(env, argv[1], "path", &path) || !arg_int(env, argv[2], "flags", 0, INT32_MAX, &flags) ||
      !arg_int(env, argv[3], "mode", 0, 07777, &mode))
    return NULL;
  AUTO_CLOSE directory = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return error_throw(env, errno, "open", root);
  struct open_how how;
  memset(&how, 0, sizeof how);
  how.flags = (uint64_t)flags | O_CLOEXEC;
  how.mode = (uint64_t)mode;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  /* EAGAIN: a rename or mount anywhere on the system raced with ".." (openat2(2)); not for ever, the tree may be hostile. */
  for (int attempt = 0; attempt < 128; attempt++) {
    int fd = (int)syscall(SYS_openat2, directory, path, &how, sizeof how);
    if (fd >= 0) return value_int(env, fd);
    if (errno != EAGAIN && errno != EINTR) break;
  }
  return error_throw(env, errno, "openat2", path);
}

bool paths_register(napi_env env, napi_value exports) {
  static const struct function functions[] = {{"openInRoot", js_open_in_root}};
  return functions_register(env, exports, functions, COUNT(functions));
}
