# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# apt with sources of its own, which leaves the system's configuration alone.
# To be sourced; the caller sets apt_dir, where lists and packages go.
: "${apt_dir:?}"

# The mirrors, suites and components that the system takes its packages from:
# apt_suites TYPE PATTERN: sources of TYPE (deb, deb-src) for each suite that matches.
apt_suites() {
	# shellcheck disable=SC2016 # apt expands them
	apt-get indextargets 'Created-By: Packages' 'Origin: Debian' \
		--format '$(REPO_URI) $(RELEASE) $(COMPONENT)' | sort -u |
		awk -v type="$1" -v pattern="$2" '$2 ~ pattern {
			print type, "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]",
				$1, $2, $3 }'
}

# Run a tool of apt, apt-get for instance, with these sources.
apt_private() {
	local tool=$1
	shift
	"$tool" -q -o Dir::Etc::sourcelist="$apt_dir/sources.list" \
		-o Dir::Etc::sourceparts=/dev/null \
		-o Dir::State::lists="$apt_dir/lists" \
		-o Dir::Cache="$apt_dir/cache" -o APT::Sandbox::User=root "$@"
}

# Take the sources from standard input and fetch their lists.
apt_update() {
	mkdir -p "$apt_dir/lists/partial" "$apt_dir/cache/archives/partial"
	cat > "$apt_dir/sources.list"
	[[ -s $apt_dir/sources.list ]] || {
		echo "apt knows no Debian packages; run apt-get update" >&2
		return 1
	}
	apt_private apt-get update >&2
}
