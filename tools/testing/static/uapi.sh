#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The uapi header: compiles alone in user space, as C and as C++, and its
# structures are laid out alike for 32 and 64 bits, without padding.
. "$(dirname "$0")/lib.sh"

header=include/uapi/linux/vtd_shadow.h
warn='-Wall -Wextra -Wpedantic -Werror'

# layout BITS: offsets of all members. Freestanding, and with the 64-bit asm/
# headers, so that no 32-bit C library is needed.
layout() {
	gcc -x c -m"$1" -g -c -ffreestanding -fno-eliminate-unused-debug-types \
		-idirafter "/usr/include/$(gcc -print-multiarch)" $header -o "$out/uapi$1.o" &&
		pahole --prefix_filter=vtds_ "$out/uapi$1.o" >"$out/uapi$1.txt"
}

same_layout() {
	layout 32 && layout 64 && grep -q '^struct vtds_' $out/uapi64.txt &&
		diff $out/uapi32.txt $out/uapi64.txt
}

# shellcheck disable=SC2086 # a list of options
{
	result "uapi: compiles as C" gcc -x c -std=c99 $warn -fsyntax-only $header
	result "uapi: compiles as C++" g++ -x c++ -std=c++11 $warn -fsyntax-only $header
}
result "uapi: same layout for 32 and 64 bits" same_layout
result "uapi: no implicit padding" silent grep -iE 'hole|padding' $out/uapi64.txt
