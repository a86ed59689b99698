/*
 * Pages of the kernel's ring buffer, whole, mutated and random, and what is counted of them (pages.c, tally.c, symbols.c).
 *   check_pages ROUNDS SEED
 */
#include "../check.h"
#include "pages.h"
#include "symbols.h"
#include "tally.h"

#include <stdbool.h>

#define PAGE 4096
#define MOST_CALLS 200

/* Of Linux 6.1 on x86_64. */
static const char header_page[] = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n"
                                  "\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n\tfield: char data;\toffset:16;\tsize:4080;\tsigned:1;\n";
static const char format[] = "name: function\nID: 1\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n"
                             "\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n"
                             "\tfield:unsigned long ip;\toffset:8;\tsize:8;\tsigned:0;\n\tfield:unsigned long parent_ip;\toffset:16;\tsize:8;\tsigned:0;\n\nprint fmt: \" %ps <-- %ps\", (void *)REC->ip, (void *)REC->parent_ip\n";

static struct layout layout;

struct found {
  struct call calls[PAGE];
  size_t count;
};

static void take(void *context, const struct call *call) {
  struct found *found = context;
  CHECK(found->count < PAGE);
  found->calls[found->count++] = *call;
}

static bool read_page(const uint8_t *page, size_t size, struct found *found, bool *lost) {
  uint8_t *copy = exact(page, size);
  found->count = 0;
  *lost = false;
  bool whole = page_calls(&layout, copy, size, take, found, lost);
  free(copy);
  return whole;
}

static size_t put_word(uint8_t *page, size_t at, uint32_t word) {
  memcpy(page + at, &word, 4);
  return at + 4;
}

static size_t put_call(uint8_t *page, size_t at, const struct call *call, bool longer) {
  uint8_t event[24] = {1, 0, call->flags};
  memcpy(event + 8, &call->ip, 8);
  memcpy(event + 16, &call->parent, 8);
  at = put_word(page, at, (any() << 5) | (longer ? 0 : sizeof event / 4));
  if (longer) at = put_word(page, at, sizeof event + 4);
  memcpy(page + at, event, sizeof event);
  return at + sizeof event;
}

static size_t make_page(uint8_t *page, struct call *calls, size_t *count) {
  memset(page, 0, PAGE);
  size_t at = 16;
  *count = 0;
  while (at + 40 < PAGE && *count < MOST_CALLS && below(150) != 0) {
    switch (below(12)) {
      case 0: at = put_word(page, put_word(page, at, (any() << 5) | 30), any()); break;                  /* more time */
      case 1: at = put_word(page, put_word(page, at, (any() << 5) | 31), any()); break;                  /* a time */
      case 2: at = put_word(page, put_word(page, at, (1u << 5) | 29), 12) + 8; break;                     /* an event that was taken back */
      case 3: page[put_word(page, at, (any() << 5) | 6)] = 5, at += 28; break;                            /* another kind of event */
      default:
        calls[*count] = (struct call){.flags = (uint8_t)any(), .ip = (uint64_t)any() << 32 | any(), .parent = (uint64_t)any() << 32 | any()};
        at = put_call(page, at, &calls[(*count)++], below(5) == 0);
    }
  }
  size_t committed = at - 16;
  put_word(page, 8, (uint32_t)committed | (below(4) == 0 ? 1u << 31 : 0));
  return at;
}

static void pages(void) {
  static struct found found;
  uint8_t page[PAGE];
  struct call calls[MOST_CALLS];
  size_t count;
  make_page(page, calls, &count);
  bool lost;
  CHECK(read_page(page, PAGE, &found, &lost));
  CHECK(lost == (page[11] >> 7 != 0));
  CHECK(found.count == count);
  for (size_t i = 0; i < count; i++) CHECK(found.calls[i].flags == calls[i].flags && found.calls[i].ip == calls[i].ip && found.calls[i].parent == calls[i].parent);
  /* Changed, cut off, made of nothing: it ends, within its bounds, with no more calls than fit. */
  for (uint32_t n = 1 + below(6); n > 0; n--) page[below(4) == 0 ? 8 + below(4) : below(PAGE)] = (uint8_t)any();
  read_page(page, below(3) == 0 ? below(PAGE + 1) : PAGE, &found, &lost);
  for (size_t i = 0; i < PAGE; i++) page[i] = (uint8_t)any();
  if (below(2) == 0) page[10] = page[11] = 0, page[9] &= 0x0f;
  read_page(page, PAGE, &found, &lost);
}

static void layouts(void) {
  struct layout other;
  CHECK(layout_read(&layout, header_page, format));
  CHECK(layout.commit == 8 && layout.data == 16 && layout.type == 0 && layout.flags == 2 && layout.ip == 8 && layout.parent == 16 && layout.size == 24 && layout.id == 1);
  CHECK(!layout_read(&other, "", format) && !layout_read(&other, header_page, "") && !layout_read(&other, format, header_page));
  CHECK(!layout_read(&other, header_page, "\nID: 0\n") && !layout_read(&other, header_page, "\nID: 70000\n"));
  /* 32 bits; a place beyond all pages. */
  CHECK(!layout_read(&other, "\tfield: local_t commit;\toffset:8;\tsize:4;\tsigned:1;\n\tfield: char data;\toffset:12;\tsize:4080;\tsigned:1;\n", format));
  CHECK(!layout_read(&other, "\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n\tfield: char data;\toffset:99999;\tsize:4080;\tsigned:1;\n", format));
}

/* Texts of the kernel's that somebody changed. */
static void texts(void) {
  char page[sizeof header_page], event[sizeof format];
  memcpy(page, header_page, sizeof page);
  memcpy(event, format, sizeof event);
  for (uint32_t n = below(5); n > 0; n--) {
    page[below(sizeof page - 1)] = (char)(1 + below(127));
    event[below(sizeof event - 1)] = (char)(1 + below(127));
  }
  struct layout other, before = layout;
  if (!layout_read(&other, page, event)) return;
  uint8_t bytes[PAGE];
  for (size_t i = 0; i < PAGE; i++) bytes[i] = (uint8_t)any();
  static struct found found;
  bool lost;
  layout = other;
  read_page(bytes, below(PAGE + 1), &found, &lost);
  layout = before;
}

static const char kallsyms[] = "ffffffff81000000 T _text\nffffffff81000000 T startup_64\nffffffff81001000 t vfs_read\nffffffff81002000 T __do_softirq\nffffffff81002100 T handle_softirqs\n"
                               "ffffffff81003000 t do_softirq.part.0\nffffffff81003100 T __local_bh_enable_ip\nffffffff81003200 T irq_exit_rcu\nffffffff81004000 t net_rx_action\nffffffff81004100 t run_timer_softirq\n"
                               "ffffffff81005000 T tcp_v4_rcv\nffffffff81006000 t call_timer_fn\nffffffff81007000 D a_datum\n0000000000000000 T hidden\nffffffff81008000 T bad name\nffffffff81009000 t\n"
                               "ffffffff8100a000 T evil\033[2J\nffffffffc0000000 t kvm_arch_vcpu_ioctl_run\t[kvm]\nnot a line";

#define FUNCTION(name) (0xffffffff81000000u + (name))
enum { READ = 0x1004, ENTRY = 0x2004, HANDLE = 0x2104, BY_HAND = 0x3010, ENABLE = 0x3110, IRQ_EXIT = 0x3210, NETWORK = 0x4004, TIMER = 0x4104, RECEIVE = 0x5004, CALL_TIMER = 0x6004, IN_ENTRY = 0x2050, IN_HANDLE = 0x2150, IN_NETWORK = 0x4050, IN_TIMER = 0x4150 };

static struct symbols symbols;

/* How many of these calls of one processor count. */
static size_t counted(const struct call *calls, size_t count) {
  struct tally tally;
  CHECK(tally_make(&tally, &symbols));
  struct lane lane = {.tally = &tally};
  for (size_t i = 0; i < count; i++) tally_call(&lane, &calls[i]);
  free(tally.addresses);
  return tally.count;
}
#define COUNTED(...) counted((const struct call[]){__VA_ARGS__}, sizeof((const struct call[]){__VA_ARGS__}) / sizeof(struct call))
#define CALL(flags, ip, parent) {flags, FUNCTION(ip), FUNCTION(parent)}

static void tallies(void) {
  CHECK(symbols_read(&symbols, exact(kallsyms, sizeof kallsyms)));
  CHECK(strcmp(symbol_name(&symbols, FUNCTION(0x1004)), "vfs_read") == 0 && strcmp(symbol_name(&symbols, FUNCTION(0x1fff)), "vfs_read") == 0);
  CHECK(strcmp(symbol_name(&symbols, FUNCTION(0x10)), "_text") == 0 && strcmp(symbol_name(&symbols, 5), "?") == 0 && strcmp(symbol_name(&symbols, 0xffffffffc0000004u), "kvm_arch_vcpu_ioctl_run") == 0);
  for (size_t i = 0; i < symbols.count; i++) CHECK(strcmp(symbols.all[i].name, "a_datum") != 0 && strncmp(symbols.all[i].name, "evil", 4) != 0 && strcmp(symbols.all[i].name, "hidden") != 0);

  CHECK(COUNTED(CALL(0, READ, READ), CALL(1, READ, READ), CALL(0, RECEIVE, READ)) == 2);
  /* Interrupts are nobody's: neither the hard ones, nor what soft ones do after them. */
  CHECK(COUNTED(CALL(IN_HARDIRQ, READ, READ), CALL(IN_NMI, READ, READ), CALL(IN_HARDIRQ | IN_SOFTIRQ, READ, READ)) == 0);
  CHECK(COUNTED(CALL(1, ENTRY, IRQ_EXIT), CALL(IN_SOFTIRQ, NETWORK, IN_ENTRY), CALL(IN_SOFTIRQ, RECEIVE, IN_NETWORK)) == 1);
  /* What a call of one's own runs at once is one's own: of the network. */
  CHECK(COUNTED(CALL(1, ENTRY, BY_HAND), CALL(IN_SOFTIRQ, NETWORK, IN_ENTRY), CALL(IN_SOFTIRQ, RECEIVE, IN_NETWORK)) == 3);
  CHECK(COUNTED(CALL(1, ENTRY, ENABLE), CALL(1, HANDLE, IN_ENTRY), CALL(IN_SOFTIRQ, NETWORK, IN_HANDLE), CALL(IN_SOFTIRQ, RECEIVE, IN_NETWORK)) == 4);
  CHECK(COUNTED(CALL(1, HANDLE, ENABLE), CALL(IN_SOFTIRQ, TIMER, IN_HANDLE), CALL(IN_SOFTIRQ, CALL_TIMER, IN_TIMER)) == 1);
  CHECK(COUNTED(CALL(1, HANDLE, ENABLE), CALL(IN_SOFTIRQ, TIMER, IN_HANDLE), CALL(IN_SOFTIRQ, NETWORK, IN_HANDLE), CALL(IN_SOFTIRQ, RECEIVE, IN_NETWORK), CALL(IN_SOFTIRQ, TIMER, IN_HANDLE), CALL(IN_SOFTIRQ, CALL_TIMER, IN_TIMER)) == 3);
  /* An interrupt meanwhile changes nothing; what comes after the soft one is another story. */
  CHECK(COUNTED(CALL(1, HANDLE, ENABLE), CALL(IN_SOFTIRQ, NETWORK, IN_HANDLE), CALL(IN_HARDIRQ | IN_SOFTIRQ, READ, READ), CALL(IN_SOFTIRQ, RECEIVE, IN_NETWORK)) == 3);
  CHECK(COUNTED(CALL(1, HANDLE, ENABLE), CALL(IN_SOFTIRQ, NETWORK, IN_HANDLE), CALL(0, READ, READ), CALL(IN_SOFTIRQ, RECEIVE, IN_NETWORK)) == 3);
  /* More than fit. */
  struct tally tally;
  CHECK(tally_make(&tally, &symbols));
  struct lane lane = {.tally = &tally};
  for (uint64_t n = 0; n <= MOST_FUNCTIONS; n++) {
    CHECK(!tally.full);
    tally_call(&lane, &(struct call){0, n * 16 + 16, 0});
  }
  CHECK(tally.full && tally.count == MOST_FUNCTIONS);
  free(tally.addresses);
}

int main(int argc, char **argv) {
  unsigned long rounds = check_arguments(argc, argv);
  layouts();
  tallies();
  for (unsigned long n = 0; n < rounds; n++) {
    pages();
    texts();
  }
  free(symbols.all);
  free(symbols.text);
  printf("pages: %lu rounds, nothing found\n", rounds);
  return 0;
}
