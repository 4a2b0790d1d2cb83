#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Structure of the module: what only some of its files may do.
. "$(dirname "$0")/lib.sh"

# breaches PATTERN FILE...: matches of the extended regular expression in the
# module's files other than the FILEs (relative to vtd_shadow/)
breaches() {
	local pattern=$1 file
	shift
	files '^vtd_shadow/.*\.[ch]$' | while read -r file; do
		[[ " $* " == *" ${file#vtd_shadow/} "* ]] || grep -HnE "$pattern" "$file"
	done
}

# only "FILE..." WHAT PATTERN
only() {
	# shellcheck disable=SC2086 # a list of names
	result "layers: only $1: $2" silent breaches "$3" $1
}

include='^#\s*include\s*[<"]'

only "kvm.c" "includes KVM headers" "$include(linux|asm|uapi/linux)/kvm"
only "vfio.c" "includes VFIO headers" "${include}linux/vfio"
only "engine.h host.h" "includes IOMMU headers" "${include}linux/iommu"
only "reason.h" "includes the uapi header" "${include}(uapi/)?linux/vtd_shadow\.h"
only "compat.h" "knows kernel versions" '\b(LINUX_VERSION_CODE|KERNEL_VERSION)\b'

# includes FILES: names of those of our own headers that the files include
includes() {
	grep -hoP '^#\s*include\s*"\K[^"]+' "$@" | sort -u
}
fmt_includes() {
	includes vtd_shadow/fmt/* | while read -r name; do
		[[ -e vtd_shadow/fmt/$name ]] || echo "fmt includes $name"
	done
}
engine_includes() {
	includes vtd_shadow/{engine,node,leaf,page}.[ch] | grep -vxE '(engine|node|trace|reason|fmt/.*)\.h'
}
result "layers: fmt/ includes nothing of the rest" silent fmt_includes
result "layers: the engine includes only fmt/ and itself" silent engine_includes

# Nothing that a guest can cause prints, warns or stops the kernel: each line that
# does is listed in prints.allow.
print='printk\w*|pr_[a-z_]+|(dev|pci|netdev)_(emerg|alert|crit|err|warn|notice|info|dbg)\w*'
print+='|(VM_|RCU_LOCKDEP_)?WARN\w*|(VM_)?BUG\w*|panic|dump_stack'
prints() {
	breaches "\b($print)\(" | sed -E 's/:[0-9]+:\s*/: /' | grep -vxF -f $here/prints.allow
}
result "layers: prints only what is in prints.allow" silent prints
