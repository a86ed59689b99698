/* Arguments, values and errors between JavaScript and C. */
#include "common.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void auto_free_string(char **string) { free(*string); }

void close_quietly(int fd) {
  if (fd < 0) return;
  int saved = errno;
  close(fd);
  errno = saved;
}

void auto_close(int *fd) { close_quietly(*fd); }

bool arg_all(napi_env env, napi_callback_info info, size_t count, napi_value *values) {
  size_t given = count; /* N-API fills what is missing with undefined */
  return napi_get_cb_info(env, info, &given, values, NULL, NULL) == napi_ok;
}

bool arg_invalid(napi_env env, const char *name, const char *why) {
  char message[160];
  snprintf(message, sizeof message, "The argument '%s' %s", name, why);
  napi_throw_type_error(env, "ERR_INVALID_ARG_VALUE", message);
  return false;
}

static bool wrong_type(napi_env env, const char *name, const char *expected) {
  char message[160];
  snprintf(message, sizeof message, "The \"%s\" argument must be of type %s", name, expected);
  napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", message);
  return false;
}

static bool has_type(napi_env env, napi_value value, napi_valuetype type) {
  napi_valuetype actual;
  return napi_typeof(env, value, &actual) == napi_ok && actual == type;
}

bool arg_undefined(napi_env env, napi_value value) { return has_type(env, value, napi_undefined); }

bool arg_string(napi_env env, napi_value value, const char *name, char **out) {
  *out = NULL;
  if (!has_type(env, value, napi_string)) return wrong_type(env, name, "string");
  size_t length = 0;
  if (napi_get_value_string_utf8(env, value, NULL, 0, &length) != napi_ok) return wrong_type(env, name, "string");
  char *string = malloc(length + 1);
  if (!string) {
    error_throw(env, ENOMEM, "malloc", NULL);
    return false;
  }
  size_t copied = 0;
  if (napi_get_value_string_utf8(env, value, string, length + 1, &copied) != napi_ok) {
    free(string);
    return wrong_type(env, name, "string");
  }
  if (memchr(string, '\0', copied)) {
    free(string);
    return arg_invalid(env, name, "must be a string without null bytes");
  }
  *out = string;
  return true;
}

bool arg_integer(napi_env env, napi_value value, const char *name, int64_t min, int64_t max, int64_t *out) {
  if (!has_type(env, value, napi_number)) return wrong_type(env, name, "number");
  double number;
  if (napi_get_value_double(env, value, &number) != napi_ok) return wrong_type(env, name, "number");
  if (!(number >= (double)min && number <= (double)max) || floor(number) != number) {
    char message[160];
    snprintf(message, sizeof message, "The value of \"%s\" is out of range. It must be an integer >= %lld && <= %lld",
             name, (long long)min, (long long)max);
    napi_throw_range_error(env, "ERR_OUT_OF_RANGE", message);
    return false;
  }
  *out = (int64_t)number;
  return true;
}

bool arg_int(napi_env env, napi_value value, const char *name, int min, int max, int *out) {
  int64_t wide;
  if (!arg_integer(env, value, name, min, max, &wide)) return false;
  *out = (int)wide;
  return true;
}

bool arg_fd(napi_env env, napi_value value, const char *name, int *out) {
  return arg_int(env, value, name, 0, INT32_MAX, out);
}

bool arg_bool(napi_env env, napi_value value, const char *name, bool *out) {
  if (!has_type(env, value, napi_boolean)) return wrong_type(env, name, "boolean");
  return napi_get_value_bool(env, value, out) == napi_ok;
}

static void set_string(napi_env env, napi_value object, const char *key, const char *text) {
  napi_value value;
  if (napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &value) == napi_ok)
    napi_set_named_property(env, object, key, value);
}

napi_value error_new(napi_env env, int error, const char *syscall, const char *subject) {
  const char *code = strerrorname_np(error);
  if (!code) code = "UNKNOWN";
  char reason[128];
  /* The GNU form: the text may be elsewhere than in the buffer. */
  const char *text = strerror_r(error, reason, sizeof reason);
  size_t room = strlen(syscall) + strlen(code) + strlen(text) + (subject ? strlen(subject) : 0) + 16;
  AUTO_FREE message = malloc(room);
  if (message) {
    int at = snprintf(message, room, "%s: %s: ", syscall, code);
    int start = at;
    at += snprintf(message + at, room - (size_t)at, "%s", text);
    if (isupper((unsigned char)message[start]) && islower((unsigned char)message[start + 1]))
      message[start] = (char)tolower((unsigned char)message[start]);
    if (subject) snprintf(message + at, room - (size_t)at, ", '%s'", subject);
  }
  napi_value code_value, message_value, result = NULL;
  napi_create_string_utf8(env, code, NAPI_AUTO_LENGTH, &code_value);
  napi_create_string_utf8(env, message ? message : code, NAPI_AUTO_LENGTH, &message_value);
  napi_create_error(env, code_value, message_value, &result);
  napi_set_named_property(env, result, "errno", value_int(env, -error));
  set_string(env, result, "syscall", syscall);
  if (subject) set_string(env, result, "path", subject);
  return result;
}

napi_value error_throw(napi_env env, int error, const char *syscall, const char *subject) {
  napi_throw(env, error_new(env, error, syscall, subject));
  return NULL;
}

napi_value value_undefined(napi_env env) {
  napi_value value = NULL;
  napi_get_undefined(env, &value);
  return value;
}

napi_value value_bool(napi_env env, bool boolean) {
  napi_value value = NULL;
  napi_get_boolean(env, boolean, &value);
  return value;
}

napi_value value_int(napi_env env, int64_t integer) {
  napi_value value = NULL;
  napi_create_int64(env, integer, &value);
  return value;
}

int socket_address(const char *path, struct sockaddr_un *out) {
  const char *slash = strrchr(path, '/');
  const char *name = slash ? slash + 1 : path;
  if (!*name) {
    errno = EINVAL;
    return -1;
  }
  AUTO_FREE directory = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
  if (!directory) return -1;
  int fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -1;
  memset(out, 0, sizeof *out);
  out->sun_family = AF_UNIX;
  int length = snprintf(out->sun_path, sizeof out->sun_path, "/proc/self/fd/%d/%s", fd, name);
  if (length < 0 || (size_t)length >= sizeof out->sun_path) {
    close(fd);
    errno = ENAMETOOLONG;
    return -1;
  }
  return fd;
}

int file_put(const char *path, const char *text) {
  AUTO_CLOSE fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  ssize_t n = write(fd, text, strlen(text));
  return n < 0 ? errno : (size_t)n == strlen(text) ? 0 : EIO;
}

bool functions_register(napi_env env, napi_value exports, const struct function *functions, size_t count) {
  for (size_t i = 0; i < count; i++) {
    napi_value function;
    if (napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].callback, NULL, &function) != napi_ok)
      return false;
    if (napi_set_named_property(env, exports, functions[i].name, function) != napi_ok) return false;
  }
  return true;
}
