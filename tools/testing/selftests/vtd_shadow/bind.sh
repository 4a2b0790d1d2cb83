#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# bind.sh [-d DRIVER] [BDF...]: binds PCI devices to DRIVER (default: vtd_shadow).
# Without an address: every "edu" device of QEMU (1234:11e8). With DRIVER "-" the
# device goes back to the host's own driver.
set -eu

driver=vtd_shadow
if [ "${1:-}" = -d ]; then
	driver=$2
	shift 2
fi

pci=/sys/bus/pci

find_edu()
{
	for dev in "$pci"/devices/*; do
		read -r vendor < "$dev/vendor"
		read -r device < "$dev/device"
		if [ "$vendor:$device" = 0x1234:0x11e8 ]; then
			basename "$dev"
		fi
	done
}

bind()
{
	dev=$pci/devices/$1
	if [ ! -d "$dev" ]; then
		echo "$0: no PCI device $1" >&2
		return 1
	fi
	if [ "$driver" = - ]; then
		echo > "$dev/driver_override"
	else
		echo "$driver" > "$dev/driver_override"
	fi
	if [ -e "$dev/driver" ]; then
		echo "$1" > "$dev/driver/unbind"
	fi
	echo "$1" > "$pci/drivers_probe"
	now=$(basename "$(readlink "$dev/driver" || echo none)")
	echo "$1: driver $now"
	[ "$driver" = - ] || [ "$now" = "$driver" ]
}

if [ $# = 0 ]; then
	# shellcheck disable=SC2046 # a list of addresses
	set -- $(find_edu)
fi
if [ $# = 0 ]; then
	echo "$0: no edu device; name a PCI address" >&2
	exit 1
fi
for bdf in "$@"; do
	bind "$bdf"
done
