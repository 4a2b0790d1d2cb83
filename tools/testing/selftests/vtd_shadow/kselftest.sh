#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# kselftest.sh DIR: puts the kernel's kselftest harness into DIR. It is not
# packaged for user space, so it is taken from the kernel's source: that of
# $KERNEL_SOURCE (a tree), else of Debian's package linux-source-6.12.
set -eu

dir=$1
package=linux-source-6.12
files="kselftest.h kselftest_harness.h lib.mk kselftest/runner.sh kselftest/prefix.pl
	kselftest/ktap_helpers.sh"

mkdir -p "$dir/kselftest"

if [ -n "${KERNEL_SOURCE:-}" ]; then
	for f in $files; do
		cp "$KERNEL_SOURCE/tools/testing/selftests/$f" "$dir/$f"
	done
	exit 0
fi

tarball=/usr/src/$package.tar.xz
if [ ! -e "$tarball" ]; then
	if [ "$(id -u)" != 0 ]; then
		echo "$0: install the package $package, or set KERNEL_SOURCE" >&2
		exit 1
	fi
	echo "$0: installing the package $package (for kselftest_harness.h)"
	apt-get install -y --no-install-recommends "$package"
fi

members=
for f in $files; do
	members="$members $package/tools/testing/selftests/$f"
done
# -m: as new as this extraction, so that make sees the files as up to date.
# shellcheck disable=SC2086 # a list of words
tar -xJmf "$tarball" -C "$dir" --strip-components=4 $members
