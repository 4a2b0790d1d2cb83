#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The module, built from a copy of its source against Debian's 6.12 headers:
# no warnings (W=1), sparse has no complaints, and it uses only kernel symbols
# that are listed in symbols.allow.
. "$(dirname "$0")/lib.sh"

src=$PWD/$out/src
ko=$src/vtd_shadow/vtd_shadow.ko
kdir=$(tools/kdir --stock)

build() {
	make -sk -C "$kdir" M="$src" -j"$(nproc)" W=1 KCFLAGS=-Werror "$@" modules
}

version_is() {
	[[ $(modinfo -F version "$ko") == "$1" ]]
}

# Symbols that the module needs and no line of symbols.allow matches
new_symbols() {
	sed 's/#.*//; s/[[:space:]]*$//; /^$/d; s/\*/.*/g' $here/symbols.allow >$out/symbols
	nm -u "$ko" | awk '{ print $2 }' | grep -vxE -f $out/symbols
}

make -s source DEST="$src"
result "module: builds with W=1 and -Werror" build
result "module: is sparse-clean" build C=2 CF=-Wsparse-error
result "module: has the version of dkms.conf" \
	version_is "$(sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' dkms.conf)"
result "module: uses only the symbols in symbols.allow" silent new_symbols
