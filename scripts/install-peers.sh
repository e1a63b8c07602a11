#!/usr/bin/env bash
# The programs of other projects that the tests start: Orthanc, dcmtk, dicom3tools, PostgreSQL, shellcheck, Chromium, openssl.
# On Debian and Ubuntu as root: installs what is missing from the distribution. Elsewhere: says what is missing, exit 0.
set -eu

PATH=$PATH:/usr/sbin:/usr/local/sbin
missing=()
command -v Orthanc >/dev/null || missing+=(orthanc)
command -v storescu >/dev/null && command -v dcmsend >/dev/null || missing+=(dcmtk)
command -v dciodvfy >/dev/null || missing+=(dicom3tools)
command -v shellcheck >/dev/null || missing+=(shellcheck)
command -v openssl >/dev/null || missing+=(openssl)
# Ubuntu has it only as a snap, which does not run everywhere: there the tests of the pages in a browser are skipped.
command -v chromium >/dev/null || grep -qE '^ID=.*ubuntu' /etc/os-release 2>/dev/null || missing+=(chromium)
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null || missing+=(postgresql)
[ ${#missing[@]} -eq 0 ] && exit 0

debian=no
if [ -r /etc/os-release ] && grep -qE '^(ID|ID_LIKE)=.*(debian|ubuntu)' /etc/os-release; then
    debian=yes
fi
if [ "$debian" = no ]; then
    echo "Not installed here: ${missing[*]}. Tests that need them are skipped and say so."
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "Not installed here: ${missing[*]}. Tests that need them are skipped and say so."
    echo "To run those as well:  sudo scripts/install-peers.sh"
    exit 0
fi

# The packages would start Orthanc and PostgreSQL as services at once; the tests start their own and want nothing else to run.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
echo "Installing from the distribution: ${missing[*]} ..."
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    cat "$log" >&2
    echo "apt-get failed; what it said is above. Tests that need ${missing[*]} will not run." >&2
    rm -f "$log"
    [ -z "${CI:-}" ] || exit 1
    exit 0
fi
rm -f "$log"
