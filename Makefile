# Hull. `make demo` and `make test` set everything up by themselves on a fresh Debian; the other targets are their parts.
#
#   make setup        Debian packages, guest kernel, npm packages, build
#   make build        compile: dist/ (TypeScript), build/ (C: addon, unpacker, guest)
#   make demo         one image behind both walls, and the table of differences
#   make test         build, lint, every test, leak check
#   make test-unit    the tests that need neither root nor a kernel feature
#   make lint         eslint with the import floors, and the type check
#   make chaos        kill -9 of the daemon at random moments of every verb (CHAOS_KILLS=240, CHAOS_SEED)
#   make chaos-parts  kill -9 of the daemon, hull-monitor, hull-vmm, QEMU, the file server, a container's first process in create, start, life, exec, cp, stop, rm (CHAOS_KILLS=200, CHAOS_SEED)
#   make bench        measurements against other engines, if there are any (make bench-peers gets them), into docs/benchmarks.md;
#                     BENCH=run,exec,pull,memory,dns,port,many,cp selects, ROUNDS and MINUTES (13) bound it
#   make bench-density  200 idle VMs, 1000 idle containers, and as many of dockerd's: memory, processor, start of the i-th, into docs/benchmarks.md and a drawing
#                     (DENSITY_VMS, DENSITY_CONTAINERS, DENSITY_PEER, DENSITY_IDLE seconds, DENSITY_TOUCH MiB before each start, DENSITY_OUT directory)
#   make conformance  all checks of Docker's own clients against Hull (make test runs a quarter of those in VMs)
#   make conformance-dockerd   the checks of Docker's own clients against Debian's dockerd, which proves the checks right
#   make spec         measures what SPEC.md promises, and fails where a promise is not kept (half a minute; make test does it too)
#   make docs         docs/examples/compare.html and its screenshots from the measured docs/examples/compare.json, with chromium
#   make fuzz-api     20000 random and mutated requests at a real daemon (FUZZ_REQUESTS, FUZZ_SEED)
#   make fuzz-guest   a million hostile frames each at the agent, at hull-vmm (C, sanitizers) and at the daemon's parser and client (FUZZ_FRAMES, FUZZ_SEED)
#   make hostile      guests that do their worst beside others (floods of 10 GB: HOSTILE_MB), and how long the API and execs took meanwhile
#   make test-kvm     the core on a machine with a KVM that works and cgroup v2 alone: built from Debian packages, in emulation
#   make install      into /usr/local (PREFIX, DESTDIR), with a systemd unit; make uninstall takes it away
#   make clean        removes what build made; make distclean what setup downloaded as well

SHELL = /bin/bash
.SHELLFLAGS = -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PREFIX ?= /usr/local
DESTDIR ?=
LIB = $(DESTDIR)$(PREFIX)/lib/hull
# Tools that setup unpacked for the tests (docker CLI, docker-registry) come last: the machine's own win.
export PATH := $(PATH):$(CURDIR)/.cache/tools/usr/bin
# The versions and checksums of package-lock.json. Not `npm ci`: it refuses a lock file that lacks other platforms' optional binaries, and registry mirrors that
# do not carry those make such files. No package's install script runs: none is needed, and they are the way in for supply-chain attacks.
NPM_INSTALL = npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error
NPM_STAMP = node_modules/.package-lock.json
SOURCES = $(shell find src -name '*.ts')
KERNEL_TREE = $(CURDIR)/.cache/kernel/tree

.PHONY: all bench-density chaos chaos-parts conformance conformance-dockerd docs spec fuzz-api fuzz-guest hostile setup setup-test build native guest kernel lint test test-images test-unit test-kvm demo bench bench-peers install uninstall clean distclean
all: build

setup:
	@scripts/setup

setup-test:
	@scripts/setup --test

build: $(NPM_STAMP) native guest kernel dist/.stamp

$(NPM_STAMP): package.json package-lock.json
	$(NPM_INSTALL)
	@touch $@

# Each C folder knows by itself what is out of date.
native: $(NPM_STAMP)
	@$(MAKE) -C native
	@$(MAKE) -C native/unpack
	@$(MAKE) -C native/files
	@$(MAKE) -C native/crun-wrap
	@$(MAKE) -C native/monitor
	@$(MAKE) -C native/drills
	@$(MAKE) -C native/surface

guest:
	@$(MAKE) -C guest

# The kernel comes with `make setup`; without it everything but VMs works.
kernel: guest native
	@if [ ! -e $(KERNEL_TREE)/.complete ]; then echo 'make: no guest kernel (make setup gets it): VMs will not start'; \
	elif [ build/guest/agent -nt build/guest/.kernel ] || [ build/hull-files -nt build/guest/.kernel ] || [ $(KERNEL_TREE)/.complete -nt build/guest/.kernel ] || [ guest/prepare-kernel -nt build/guest/.kernel ]; then \
	  echo "guest/prepare-kernel $$(readlink $(KERNEL_TREE))"; $(MAKE) -C guest kernel KERNEL_TREE="$$(readlink -f $(KERNEL_TREE))" && touch build/guest/.kernel; fi

dist/.stamp: $(NPM_STAMP) $(SOURCES) tsconfig.json tsconfig.build.json
	npx --no-install tsc -p tsconfig.build.json
	@touch $@

lint: $(NPM_STAMP)
	npx --no-install eslint . --max-warnings 0
	npx --no-install tsc --noEmit -p .

# The tests see no network: what they need from it is fetched here.
test: setup-test test-images
	@$(MAKE) lint
	@CONFORMANCE_VM_SHARE=4 scripts/test unit integration behaviour conformance

test-images: $(NPM_STAMP)
	@npx --no-install tsx test/conformance/lib/images.ts
	@npx --no-install tsx test/lib/probe-image.ts

test-unit: $(NPM_STAMP) native
	@scripts/test unit

demo: setup
	@scripts/demo

# Long (some seconds a kill). The behaviour suite has a taste of it.
chaos: setup-test
	scripts/isolated npx --no-install tsx test/chaos/main.ts

chaos-parts: setup-test
	scripts/isolated npx --no-install tsx test/chaos/parts-main.ts

bench: setup-test
	npx --no-install tsx bench/main.ts

bench-density: setup-test
	npx --no-install tsx bench/density/main.ts

bench-peers:
	@scripts/bench-peers

spec: setup-test
	scripts/isolated npx --no-install tsx bench/spec.ts

docs: setup-test
	npx --no-install tsx scripts/docs.ts

conformance: setup-test test-images
	@scripts/test conformance

# dockerd makes a bridge and rules that the machine's others would feel.
conformance-dockerd: setup-test
	@scripts/bench-peers
	scripts/isolated npx --no-install vitest run --project conformance-dockerd

# Some twelve minutes on two processors, three of them once for the machine.
test-kvm: setup-test
	@scripts/test-kvm

fuzz-api: setup-test
	scripts/isolated npx --no-install tsx test/fuzz/main.ts $(or $(FUZZ_REQUESTS),20000) $(FUZZ_SEED)

# make test has a taste of each (test/unit/vm/fuzz*.test.ts). A round of the unit tests is twelve mutated frames, and one client that gets some ten.
fuzz-guest: $(NPM_STAMP)
	@$(MAKE) -C guest fuzz FUZZ_SECONDS=120 FUZZ_FRAMES=$(or $(FUZZ_FRAMES),1000000) FUZZ_SEED=$(FUZZ_SEED)
	HULL_FUZZ_ROUNDS=$$(( $(or $(FUZZ_FRAMES),1000000) / 10 + 1 )) $(if $(FUZZ_SEED),HULL_FUZZ_SEED=$(FUZZ_SEED)) npx --no-install vitest run --project unit --testTimeout 3600000 test/unit/vm/fuzz.test.ts test/unit/vm/fuzz-client.test.ts

# make test has it with 100 MB.
hostile: setup-test
	HULL_HOSTILE_MB=$(or $(HOSTILE_MB),10240) scripts/isolated npx --no-install vitest run --project behaviour test/behaviour/hostile.vm.test.ts

install: build
	install -d $(LIB)/bin $(LIB)/build $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/systemd/system
	install -m 0755 bin/hull bin/hulld $(LIB)/bin
	install -m 0644 package.json package-lock.json LICENSE $(LIB)
	rm -rf $(LIB)/dist && cp -R dist $(LIB)/dist
	install -m 0755 build/hull.node build/hull-unpack build/hull-extents build/hull-files build/crun-wrap build/runsc-wrap build/hull-gate.so build/hull-monitor build/hull-drills build/hull-surface $(LIB)/build
	rm -rf $(LIB)/build/guest && cp -R build/guest $(LIB)/build/guest
	cd $(LIB) && $(NPM_INSTALL) --omit=dev
	ln -sfn ../lib/hull/bin/hull $(DESTDIR)$(PREFIX)/bin/hull
	ln -sfn ../lib/hull/bin/hulld $(DESTDIR)$(PREFIX)/bin/hulld
	sed 's,@PREFIX@,$(PREFIX),g' packaging/hull.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/hull.service
	@if [ -z '$(DESTDIR)' ]; then \
	  getent group hull > /dev/null || groupadd --system hull; \
	  if [ -d /run/systemd/system ]; then systemctl daemon-reload; echo 'start it: systemctl enable --now hull'; fi; fi

# Containers, images and volumes in /var/lib/hull stay.
uninstall:
	@if [ -z '$(DESTDIR)' ] && [ -d /run/systemd/system ]; then systemctl disable --now hull 2> /dev/null || true; fi
	rm -f $(DESTDIR)$(PREFIX)/bin/hull $(DESTDIR)$(PREFIX)/bin/hulld $(DESTDIR)$(PREFIX)/lib/systemd/system/hull.service
	rm -rf $(LIB)

clean:
	rm -rf dist build

distclean: clean
	rm -rf .cache node_modules
