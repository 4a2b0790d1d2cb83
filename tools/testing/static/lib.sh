# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Sourced by each static check. A check runs at the top of the tree, prints one
# TAP line per result and exits with 1 if one of them was "not ok".
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.." || exit

# shellcheck disable=SC2034 # for those who source this
here=tools/testing/static
out=build/static
mkdir -p $out

failed=0
trap 'exit $failed' EXIT

# result NAME COMMAND...: ok if the command succeeds, else with what it printed
result() {
	local name=$1 text
	shift
	if text=$("$@" 2>&1); then
		echo "ok - $name"
	else
		failed=1
		echo "not ok - $name"
		echo "# ${text//$'\n'/$'\n# '}"
	fi
}

# silent COMMAND...: succeeds if the command prints nothing
silent() {
	local text
	text=$("$@" 2>&1)
	[[ -z $text ]] || { echo "$text" && false; }
}

# Our own files (new ones as well) whose path matches the regular expression $1
files() {
	git -c safe.directory="$PWD" ls-files -co --exclude-standard --deduplicate |
		grep -E "$1" | while read -r file; do [[ ! -f $file ]] || echo "$file"; done
}

# Checks of no files at all would pass.
[[ -n $(files '^vtd_shadow/.*\.c$') ]] || { failed=1; echo "not ok - $0: source not found"; exit; }
