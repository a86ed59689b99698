# For programs of ours that run in any image and in the guest: static, musl, no library. Set NAME, SOURCES and HEADERS before; LIBRARIES and MORE_WARNINGS where they are needed.
BUILD ?= ../../build
MUSL_CC ?= musl-gcc
CC ?= gcc
WARN = -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wno-missing-field-initializers $(MORE_WARNINGS)
# musl-gcc leaves out the kernel's headers (linux/, asm/); they come last, so that libc's own win.
KERNEL_HEADERS = -idirafter /usr/include -idirafter /usr/include/$(shell $(CC) -print-multiarch)
CFLAGS ?= -O2
COMPILE = $(MUSL_CC) -std=gnu11 -D_GNU_SOURCE -D_FORTIFY_SOURCE=2 -fstack-protector-strong $(CFLAGS) $(WARN) $(KERNEL_HEADERS)

all: $(BUILD)/$(NAME)

# Written beside and renamed: somebody may be running the old one.
$(BUILD)/$(NAME): $(SOURCES) $(HEADERS) Makefile ../static.mk | $(BUILD)
	$(COMPILE) -o $@.tmp $(SOURCES) $(LIBRARIES) -static -s -Wl,--gc-sections -Wl,-z,relro,-z,now
	mv $@.tmp $@

$(BUILD):
	mkdir -p $@

.PHONY: all clean
clean:
	rm -f $(BUILD)/$(NAME)
