#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Form: checkpatch --strict for C, kernel-doc, licence lines; shellcheck and
# Python's compiler for scripts.
. "$(dirname "$0")/lib.sh"

# checkpatch.pl is not in the headers package: unpack it from the source package.
checkpatch=$out/scripts/checkpatch.pl
if [[ ! -s $checkpatch ]]; then
	tar -xJf /usr/src/linux-source-6.12.tar.xz -C $out --strip-components=1 --wildcards \
		'*/scripts/checkpatch.pl' '*/scripts/spelling.txt' '*/scripts/const_structs.checkpatch'
fi

# Types of complaints that do not apply to file $1
not_for() {
	local types=FILE_PATH_CHANGES # there is no MAINTAINERS file
	case $1 in
	*/compat.h) # asks for the kernel's version; that only it does, layers.sh sees to
		types+=,LINUX_VERSION_CODE,CONSTANT_COMPARISON ;;
	*/trace.h) # TRACE_EVENT() has a layout of its own
		types+=,PARENTHESIS_ALIGNMENT,OPEN_ENDED_LINE ;;
	tools/testing/*) # user space has no BIT(), __printf(), READ_ONCE() ...
		types+=,BIT_MACRO,PREFER_DEFINED_ATTRIBUTE_MACRO,VOLATILE,EMBEDDED_FUNCTION_NAME ;;
	esac
	echo $types
}

run_checkpatch() {
	local file
	for file; do
		perl $checkpatch --no-tree --file --strict --terse --show-types --no-summary \
			--ignore "$(not_for "$file")" "$file"
	done
}

run_kernel_doc() {
	"$(tools/kdir --stock)"/scripts/kernel-doc -none -Werror "$@"
}

without_spdx() {
	local file
	for file; do
		head -n 3 "$file" | grep -q 'SPDX-License-Identifier: ' || echo "$file"
	done
}

# Files whose first line says that they are scripts for $1 (a regular expression)
scripts_for() {
	files . | xargs grep -lE -m 1 "^#!.*\b($1)\b"
}

mapfile -t c < <(files '^(vtd_shadow|include|tools/testing)/.*\.[ch]$')
result "style: checkpatch --strict" silent run_checkpatch "${c[@]}"
mapfile -t kernel < <(files '^(vtd_shadow|include)/.*\.[ch]$')
result "style: kernel-doc" run_kernel_doc "${kernel[@]}"

mapfile -t all < <(files . | grep -vE '^LICENSE$|\.gitignore$|\.(md|svg|png|json)$')
result "style: every file names its licence" silent without_spdx "${all[@]}"

mapfile -t shell < <({ scripts_for 'sh|bash'; files '\.sh$'; } | sort -u)
# SC2054: commas in lists; QEMU's options have them
result "style: shellcheck" shellcheck -x -P SCRIPTDIR -e SC2054 "${shell[@]}"

mapfile -t python < <({ scripts_for python3; files '\.py$'; } | sort -u)
result "style: Python compiles" \
	env PYTHONPYCACHEPREFIX=$out/pycache python3 -m py_compile "${python[@]}"
