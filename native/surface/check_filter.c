/*
 * The interpreter of filters (filter.c) against another that is simpler: programs that the kernel would take, random and of known meaning, with arguments that are known. What passes there with some arguments has to pass here;
 * and where a program looks at no arguments both say the same. Then programs that no kernel would take: it ends, and looks at nothing beyond them.
 *   check_filter ROUNDS SEED
 */
#include "../check.h"
#include "surface.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>

/* Of calls.c, which is not wanted here: filter.c counts with it. */
bool is_call(int number) { return number >= 0 && number < CALLS; }

#define MOST 60
#define NR offsetof(struct seccomp_data, nr)
#define ARCH offsetof(struct seccomp_data, arch)
#define ARG offsetof(struct seccomp_data, args[0])
#define LOAD(place) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, place)
#define IF(test, k, yes, no) BPF_JUMP(BPF_JMP | (test) | BPF_K, k, yes, no)
#define ANSWER(action) BPF_STMT(BPF_RET | BPF_K, action)
#define PASSES(number, ...) passes((const struct sock_filter[]){__VA_ARGS__}, sizeof((const struct sock_filter[]){__VA_ARGS__}) / sizeof(struct sock_filter), number)

static bool passes(const struct sock_filter *rules, size_t length, int number) {
  struct sock_filter *copy = exact(rules, length * sizeof *rules);
  bool result = filter_passes(copy, length, number);
  free(copy);
  return result;
}

/* As the kernel runs it, for one call. */
static uint32_t run(const struct sock_filter *rules, size_t length, const struct seccomp_data *call) {
  uint32_t a = 0, x = 0, memory[BPF_MEMWORDS] = {0}, word;
  for (size_t at = 0; at < length; at++) {
    const struct sock_filter *rule = &rules[at];
    uint32_t operand = BPF_SRC(rule->code) == BPF_X ? x : rule->k;
    switch (rule->code) {
      case BPF_LD | BPF_W | BPF_ABS:
        memcpy(&word, (const char *)call + rule->k, sizeof word);
        a = word;
        break;
      case BPF_LD | BPF_W | BPF_LEN: a = sizeof *call; break;
      case BPF_LD | BPF_IMM: a = rule->k; break;
      case BPF_LD | BPF_MEM: a = memory[rule->k]; break;
      case BPF_LDX | BPF_IMM: x = rule->k; break;
      case BPF_LDX | BPF_MEM: x = memory[rule->k]; break;
      case BPF_ST: memory[rule->k] = a; break;
      case BPF_STX: memory[rule->k] = x; break;
      case BPF_MISC | BPF_TAX: x = a; break;
      case BPF_MISC | BPF_TXA: a = x; break;
      case BPF_ALU | BPF_ADD | BPF_K: case BPF_ALU | BPF_ADD | BPF_X: a += operand; break;
      case BPF_ALU | BPF_AND | BPF_K: case BPF_ALU | BPF_AND | BPF_X: a &= operand; break;
      case BPF_ALU | BPF_RSH | BPF_K: a >>= operand; break;
      case BPF_ALU | BPF_NEG: a = -a; break;
      case BPF_RET | BPF_K: return rule->k;
      case BPF_RET | BPF_A: return a;
      case BPF_JMP | BPF_JA: at += rule->k; break;
      case BPF_JMP | BPF_JEQ | BPF_K: case BPF_JMP | BPF_JEQ | BPF_X: at += a == operand ? rule->jt : rule->jf; break;
      case BPF_JMP | BPF_JGT | BPF_K: at += a > operand ? rule->jt : rule->jf; break;
      case BPF_JMP | BPF_JGE | BPF_K: at += a >= operand ? rule->jt : rule->jf; break;
      case BPF_JMP | BPF_JSET | BPF_K: at += a & operand ? rule->jt : rule->jf; break;
      default: CHECK(!"a program of ours has a rule that the kernel has not");
    }
  }
  CHECK(!"a program of ours does not end");
  return 0;
}

static bool allows(uint32_t answer) {
  uint32_t action = answer & SECCOMP_RET_ACTION_FULL;
  return action == SECCOMP_RET_ALLOW || action == SECCOMP_RET_LOG || action == SECCOMP_RET_TRACE || action == SECCOMP_RET_USER_NOTIF;
}

static const uint32_t actions[] = {SECCOMP_RET_ALLOW, SECCOMP_RET_LOG, SECCOMP_RET_TRACE | 5, SECCOMP_RET_USER_NOTIF, SECCOMP_RET_ERRNO | 1, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_TRAP};

/* Numbers near each other and arguments that are few, so that tests are met. */
static uint32_t likely(void) { return below(4) == 0 ? any() : below(6); }

/* Ends, jumps forward, loads what there is. `open`: looks at arguments and at what the interpreter does not follow, too. */
static size_t make(struct sock_filter *rules, bool open) {
  size_t length = 2 + below(MOST - 2);
  for (size_t at = 0; at < length; at++) {
    size_t left = length - at - 1; /* behind it */
    uint8_t yes = (uint8_t)below((uint32_t)(left > 20 ? 20 : left)), no = (uint8_t)below((uint32_t)(left > 20 ? 20 : left));
    uint32_t kind = left == 0 ? 0 : below(open ? 18 : 9), k = likely();
    if (kind == 0) rules[at] = (struct sock_filter)ANSWER(actions[below(8)]);
    else if (kind <= 2) rules[at] = (struct sock_filter)LOAD(below(5) == 0 ? ARCH : NR);
    else if (kind == 3) rules[at] = (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, yes);
    else if (kind == 4) rules[at] = (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, any());
    else if (kind <= 8) rules[at] = (struct sock_filter)IF(((const uint16_t[]){BPF_JEQ, BPF_JGT, BPF_JGE, BPF_JSET})[kind - 5], below(6) == 0 ? AUDIT_ARCH_X86_64 : k, yes, no);
    else if (kind <= 11) rules[at] = (struct sock_filter)LOAD((uint32_t)(ARG + 4 * below(12)));
    else if (kind == 12) rules[at] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_X, 0, yes, no);
    else if (kind == 13) rules[at] = (struct sock_filter)BPF_STMT(below(2) ? BPF_ST : BPF_STX, below(BPF_MEMWORDS));
    else if (kind == 14) rules[at] = (struct sock_filter)BPF_STMT(BPF_LD | (below(2) ? BPF_MEM : BPF_IMM), below(BPF_MEMWORDS));
    else if (kind == 15) rules[at] = (struct sock_filter)BPF_STMT(BPF_LDX | (below(2) ? BPF_MEM : BPF_IMM), below(BPF_MEMWORDS));
    else if (kind == 16) rules[at] = (struct sock_filter)BPF_STMT(((const uint16_t[]){BPF_ALU | BPF_ADD | BPF_K, BPF_ALU | BPF_ADD | BPF_X, BPF_ALU | BPF_AND | BPF_X, BPF_ALU | BPF_RSH | BPF_K, BPF_ALU | BPF_NEG})[below(5)], below(31));
    else rules[at] = (struct sock_filter)BPF_STMT(below(3) == 0 ? BPF_RET | BPF_A : BPF_MISC | (below(2) ? BPF_TAX : BPF_TXA), 0);
  }
  rules[length - 1] = (struct sock_filter)ANSWER(actions[below(8)]);
  return length;
}

static void compare(void) {
  struct sock_filter rules[MOST];
  bool open = below(2) == 0;
  size_t length = make(rules, open);
  for (int number = 0; number < 8; number++) {
    bool told = passes(rules, length, number), some = false;
    for (int n = 0; n < (open ? 20 : 1); n++) {
      struct seccomp_data call = {.nr = number, .arch = AUDIT_ARCH_X86_64};
      for (int i = 0; i < 6; i++) call.args[i] = below(3) == 0 ? ((uint64_t)any() << 32 | any()) : likely();
      some |= allows(run(rules, length, &call));
    }
    CHECK(open ? told || !some : told == some);
  }
}

/* Rules that are none, jumps to nowhere, no end. */
static void malformed(void) {
  struct sock_filter rules[MOST];
  size_t length = below(MOST);
  for (size_t at = 0; at < length; at++) {
    rules[at] = (struct sock_filter){.code = (uint16_t)(below(2) ? any() : below(256)), .jt = (uint8_t)any(), .jf = (uint8_t)any(), .k = below(3) ? likely() : any()};
    if (below(3) == 0) rules[at].code = (uint16_t)(BPF_JMP | (below(6) << 4) | (below(2) << 3));
  }
  passes(rules, length, (int)below(CALLS));
}

static void known(void) {
  CHECK(PASSES(1, ANSWER(SECCOMP_RET_ALLOW)));
  for (int i = 0; i < 8; i++) CHECK(PASSES(1, ANSWER(actions[i])) == (i < 4));
  CHECK(PASSES(7, LOAD(NR), IF(BPF_JEQ, 7, 0, 1), ANSWER(SECCOMP_RET_ALLOW), ANSWER(SECCOMP_RET_ERRNO)));
  CHECK(!PASSES(8, LOAD(NR), IF(BPF_JEQ, 7, 0, 1), ANSWER(SECCOMP_RET_ALLOW), ANSWER(SECCOMP_RET_ERRNO)));
  CHECK(!PASSES(7, LOAD(ARCH), IF(BPF_JEQ, AUDIT_ARCH_I386, 0, 1), ANSWER(SECCOMP_RET_ALLOW), ANSWER(SECCOMP_RET_KILL_PROCESS)));
  CHECK(PASSES(7, LOAD(ARCH), IF(BPF_JEQ, AUDIT_ARCH_X86_64, 1, 0), ANSWER(SECCOMP_RET_KILL_PROCESS), ANSWER(SECCOMP_RET_ALLOW)));
  /* With some arguments: clone(2) without new namespaces, an argument whose two halves are looked at, a masked one. */
  CHECK(PASSES(56, LOAD(ARG), IF(BPF_JSET, 0x7e020000, 0, 1), ANSWER(SECCOMP_RET_ERRNO), ANSWER(SECCOMP_RET_ALLOW)));
  CHECK(PASSES(135, LOAD(ARG + 4), IF(BPF_JEQ, 0, 0, 2), LOAD(ARG), IF(BPF_JEQ, 8, 1, 0), ANSWER(SECCOMP_RET_ERRNO), ANSWER(SECCOMP_RET_ALLOW)));
  CHECK(!PASSES(135, LOAD(ARG), IF(BPF_JEQ, 8, 0, 1), ANSWER(SECCOMP_RET_ERRNO), ANSWER(SECCOMP_RET_KILL_THREAD)));
  /* What is loaded after an argument is known again. */
  CHECK(!PASSES(3, LOAD(ARG), IF(BPF_JEQ, 1, 0, 0), LOAD(NR), IF(BPF_JEQ, 3, 1, 0), ANSWER(SECCOMP_RET_ALLOW), ANSWER(SECCOMP_RET_ERRNO)));
  /* What comes out of X or of memory is not followed: it may be anything. */
  CHECK(PASSES(3, LOAD(NR), BPF_STMT(BPF_LDX | BPF_IMM, 4), BPF_STMT(BPF_MISC | BPF_TXA, 0), IF(BPF_JEQ, 4, 0, 1), ANSWER(SECCOMP_RET_ALLOW), ANSWER(SECCOMP_RET_ERRNO)));
  CHECK(PASSES(3, BPF_STMT(BPF_LD | BPF_IMM, 4), BPF_STMT(BPF_ST, 1), LOAD(NR), BPF_STMT(BPF_LD | BPF_MEM, 1), IF(BPF_JEQ, 4, 0, 1), ANSWER(SECCOMP_RET_ALLOW), ANSWER(SECCOMP_RET_ERRNO)));
  /* No end, nothing at all, jumps beyond. */
  CHECK(!PASSES(1, LOAD(NR)));
  CHECK(!passes(NULL, 0, 1));
  CHECK(!PASSES(1, BPF_STMT(BPF_JMP | BPF_JA, 0xffffffff), ANSWER(SECCOMP_RET_ALLOW)));
  CHECK(!PASSES(1, LOAD(NR), IF(BPF_JEQ, 1, 255, 0), ANSWER(SECCOMP_RET_ALLOW)));
  /* Where a program may be gone through in two to the power of its length ways, it still ends. */
  struct sock_filter long_one[LONGEST_FILTER];
  for (size_t at = 0; at < LONGEST_FILTER - 1; at++) long_one[at] = at % 2 == 0 ? (struct sock_filter)LOAD(ARG) : (struct sock_filter)IF(BPF_JEQ, (uint32_t)at, 0, at + 3 < LONGEST_FILTER ? 1 : 0);
  long_one[LONGEST_FILTER - 1] = (struct sock_filter)ANSWER(SECCOMP_RET_ERRNO);
  CHECK(!passes(long_one, LONGEST_FILTER, 1));
}

int main(int argc, char **argv) {
  unsigned long rounds = check_arguments(argc, argv);
  known();
  for (unsigned long n = 0; n < rounds; n++) {
    compare();
    malformed();
  }
  printf("filter: %lu rounds, nothing found\n", rounds);
  return 0;
}
