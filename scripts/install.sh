#!/usr/bin/env bash
# install.sh VENV PIP-ARGUMENTS...: makes the virtual environment when it is not there, then pip-installs into it.
# Prints a line or two instead of pages; the log is shown when something fails.
set -eu

venv=$1
shift

# From the first Python that is new enough and really runs (a pyenv shim may be there and not run).
find_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    echo "Python 3.11 or newer is needed; found: $(python3 --version 2>&1 || true)." >&2
    echo "Install one, or name it:  make demo PYTHON=/path/to/python3.12" >&2
    return 1
}

if ! "$venv/bin/python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
    python=$(find_python)
    echo "Making $venv with $("$python" --version) ..."
    if ! "$python" -m venv --clear "$venv" >"${TMPDIR:-/tmp}/router-venv.$$.log" 2>&1; then
        cat "${TMPDIR:-/tmp}/router-venv.$$.log" >&2
        rm -f "${TMPDIR:-/tmp}/router-venv.$$.log"
        echo "$python cannot make virtual environments; on Debian and Ubuntu:  apt-get install python3-venv" >&2
        exit 1
    fi
    rm -f "${TMPDIR:-/tmp}/router-venv.$$.log"
fi

log=$venv/install.log
started=$SECONDS
echo "Installing: pip install $*  (log in $log)"
"$venv/bin/python" -m pip install --progress-bar off "$@" >"$log" 2>&1 &
pip=$!
trap 'kill "$pip" 2>/dev/null || true' INT TERM
shown=$started
while kill -0 "$pip" 2>/dev/null; do
    sleep 1
    if [ -t 1 ]; then
        step=$(grep -oE '^ *(Collecting|Downloading|Building wheels?|Installing collected packages)[^ ]*( [^ (,]+)?' "$log" | tail -n 1 || true)
        printf '\r\033[K  %4d s  %.60s' $((SECONDS - started)) "$(echo "$step" | tr -s ' ')"
    elif [ $((SECONDS - shown)) -ge 30 ]; then
        shown=$SECONDS
        echo "  still installing after $((SECONDS - started)) s ($(du -sm "$venv" | cut -f 1) MB so far)"
    fi
done
[ -t 1 ] && printf '\r\033[K'
if ! wait "$pip"; then
    cat "$log" >&2
    echo "pip install failed; what it said is above and in $log" >&2
    exit 1
fi
echo "Installed in $((SECONDS - started)) s ($(du -sm "$venv" | cut -f 1) MB)."
