# SPDX-License-Identifier: GPL-2.0
#
# vtd_shadow. "make help" lists what can be made.
# The module itself is built by Kbuild, through the kernel's build system.

KDIR   ?= $(shell tools/kdir)
PREFIX ?= /usr/local

kdir    = $(or $(KDIR),$(error No kernel headers, see above))
kbuild  = $(MAKE) -C $(kdir) M=$(CURDIR)
release = $(shell $(MAKE) -s --no-print-directory -C $(kdir) kernelrelease)
version = $(shell sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' dkms.conf)

# All that the module is built from
sources = Kbuild Makefile LICENSE dkms.conf tools/kdir \
	$(shell find vtd_shadow include -name '*.[ch]' ! -name '*.mod.c' -o -name Makefile)

.PHONY: modules install uninstall dkms dkms-remove source lab qemu selftests \
	demo bench check check-debug debug-kernel coverage mutation static clean help

modules: ## Build vtd_shadow.ko (the default); KDIR=<kernel headers>
	$(kbuild) modules

install: modules ## Install the module for that kernel, and the uapi header
	@# Debian's kernels would have it signed with a key that nobody has
	$(kbuild) modules_install INSTALL_MOD_PATH=$(DESTDIR) CONFIG_MODULE_SIG_ALL=
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/include/linux include/uapi/linux/vtd_shadow.h
	depmod -b $(DESTDIR)/ $(release)

uninstall: ## Undo "make install"
	rm -f $(DESTDIR)/lib/modules/$(release)/updates/vtd_shadow/vtd_shadow.ko*
	rm -f $(DESTDIR)$(PREFIX)/include/linux/vtd_shadow.h
	depmod -b $(DESTDIR)/ $(release)

dkms: ## Or install with DKMS, which builds it anew for each new kernel
	$(MAKE) source DEST=/usr/src/vtd_shadow-$(version)
	dkms build --force vtd_shadow/$(version) -k $(release)
	dkms install --force vtd_shadow/$(version) -k $(release)

dkms-remove: ## Undo "make dkms"
	dkms remove vtd_shadow/$(version) --all
	rm -rf /usr/src/vtd_shadow-$(version)

source: # Copy what the module is built from to the new directory DEST
	rm -rf $(DEST)
	mkdir -p $(DEST)
	cp --parents $(sources) $(DEST)

qemu: ## Build our QEMU (into build/qemu)
	tools/qemu/build

selftests: ## Build the kselftests (into build/selftests)
	tools/setup selftests
	@# Not left to the makefile that includes it: make -j has lost it there once
	[ -e build/kselftest/lib.mk ] || \
		tools/testing/selftests/vtd_shadow/kselftest.sh build/kselftest
	$(MAKE) -C tools/testing/selftests/vtd_shadow

lab: ## What demo and check use: packages, a kernel, the module for it, our QEMU
	tools/setup build vm qemu
	tools/testing/vm/fetch-kernel host-stock
	tools/testing/vm/fetch-qemu
	$(MAKE) modules qemu KDIR="$$(tools/kdir --stock)"

demo: lab ## Show it: a Linux guest with assigned NVMe and NIC, in an emulated host
	tools/testing/vm/demo

bench: lab ## Measure in instructions, against QEMU's own way; QUICK=1 the main figures
	tools/setup selftests bench
	tools/testing/vm/fetch-kernel guest-6.12
	$(MAKE) selftests
	$(MAKE) -C tools/testing/bench KDIR="$$(tools/kdir --stock)"
	QUICK=$(QUICK) tools/testing/bench/run

check: ## Build and run all tests; ONLY=<regex> some of them
	tools/setup static
	tools/testing/check $(if $(ONLY),--only '$(ONLY)')

check-debug: ## Those of the kernel with all checks, and more of them
	tools/testing/check --matrix tools/testing/vm/matrix tools/testing/vm/matrix-debug \
		--only='(?=.*-debug)$(ONLY)'

debug-kernel: ## Build the kernel with all checks, for tools/testing/vm/run --kernel debug
	tools/testing/vm/debug-kernel

coverage: ## Tell which lines of the module the tests reach (an hour)
	tools/testing/coverage

mutation: ## Tell whether the tests notice mistakes, one by one (half an hour)
	tools/testing/mutation/run

static: ## Only the checks of the source: warnings, sparse, checkpatch, ...
	tools/setup build static
	tools/testing/static/run

clean: ## Remove what was built
	rm -rf build
	$(kbuild) clean

help: ## This list
	@sed -n 's/^\([a-z-]*\):.* ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14
