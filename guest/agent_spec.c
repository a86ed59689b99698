/* RUN and EXEC: the process to start. */
#include <stdlib.h>
#include <string.h>

#include "agent.h"

/* A NULL-ended array of the values of a repeated key, with `spare` free places behind them. */
static char **values(char *text, size_t size, const char *key, size_t spare) {
  size_t at = 0, count = 0;
  for (const char *entry; (entry = text_next(text, size, &at)) != NULL;)
    if (text_value(entry, key) != NULL) count++;
  char **list = calloc(count + spare + 1, sizeof *list);
  if (list == NULL) return NULL;
  at = count = 0;
  for (const char *entry; (entry = text_next(text, size, &at)) != NULL;) {
    const char *value = text_value(entry, key);
    if (value != NULL) list[count++] = text + (value - text);
  }
  return list;
}

static bool flag(const struct spec *s, const char *key) {
  const char *value = text_find(s->text, s->size, key);
  return value != NULL && strcmp(value, "1") == 0;
}

static uint16_t small_number(const struct spec *s, const char *key) {
  uint64_t number = 0;
  const char *value = text_find(s->text, s->size, key);
  return value != NULL && parse_number(value, UINT16_MAX, &number) ? (uint16_t)number : 0;
}

bool spec_parse(struct spec *s, char *text, size_t size, char *message) {
  *s = (struct spec){.text = text, .size = size};
  s->args = values(text, size, "arg", 0);
  s->env = values(text, size, "env", 1); /* HOME */
  if (s->args == NULL || s->env == NULL) return fail(message, "out of memory");
  if (s->args[0] == NULL) return fail(message, "no command specified");
  s->cwd = text_find(text, size, "cwd");
  if (s->cwd == NULL || *s->cwd == 0) s->cwd = "/";
  if (*s->cwd != '/') return fail(message, "the working directory '%.200s' is invalid, it needs to be an absolute path", s->cwd);
  s->user = text_find(text, size, "user");
  if (s->user == NULL) s->user = "";
  s->files = text_find(text, size, "builtin") != NULL && strcmp(text_find(text, size, "builtin"), "files") == 0;
  s->freeze = s->files && flag(s, "freeze");
  s->tty = !s->files && flag(s, "tty");
  s->in = flag(s, "stdin");
  s->nnp = flag(s, "nnp");
  s->rows = small_number(s, "rows");
  s->columns = small_number(s, "columns");
  const char *adj = text_find(text, size, "oom_score_adj");
  if (adj != NULL && *adj != 0) {
    uint64_t number;
    bool negative = *adj == '-';
    if (!parse_number(adj + negative, 1000, &number)) return fail(message, "invalid oom_score_adj: %.40s", adj);
    s->oom_score_adj = negative ? -(int)number : (int)number;
    s->has_oom_score_adj = true;
  }
  return (list_collect(&s->groups, text, size, "group") && list_collect(&s->caps, text, size, "cap") &&
          list_collect(&s->rlimits, text, size, "rlimit")) ||
         fail(message, "too many entries of one kind");
}

void spec_free(struct spec *s) {
  free(s->args);
  free(s->env);
  free(s->groups.items);
  free(s->caps.items);
  free(s->rlimits.items);
  free(s->text);
  *s = (struct spec){0};
}
