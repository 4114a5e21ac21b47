#!/bin/sh
# What the tests need of the system beside Python and a compiler: bubblewrap and Chromium. Root on Debian or Ubuntu has
# them installed here; elsewhere a line says what is missing, and the tests of it are skipped.
missing=""
command -v bwrap >/dev/null || missing="bubblewrap"
command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null ||
	missing="$missing chromium"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	export DEBIAN_FRONTEND=noninteractive
	{ apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing; } >/dev/null 2>&1 && exit 0
fi
echo "not installed, so the tests that need it are skipped: $missing (apt-get install $missing)" >&2
exit 0
