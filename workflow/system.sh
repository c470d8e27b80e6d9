#!/bin/sh
# What pip cannot bring: Python's venv module and TeX. As root on Debian or Ubuntu install what is
# missing, otherwise say how, before anything large is downloaded. Usage: system.sh PYTHON [slurm]
# With "slurm" also Slurm, for `make test-slurm`, where that can be done; its test skips elsewhere.
set -eu
python=${1:-python3}
tex="texlive-latex-recommended texlive-latex-extra texlive-fonts-recommended \
texlive-pictures lmodern"
styles="adjustbox.sty titlesec.sty tikz.sty mathptmx.sty lmodern.sty"

has_tex() {
    command -v tectonic >/dev/null 2>&1 && return
    for program in pdflatex bibtex kpsewhich; do
        command -v "$program" >/dev/null 2>&1 || return
    done
    for style in $styles; do
        kpsewhich "$style" >/dev/null || return
    done
}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "error: $python is older than Python 3.11 or missing; try: make PYTHON=python3.12" >&2
    exit 1
fi
missing=""
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing="python3-venv"
has_tex || missing="$missing $tex"
if [ "${2:-}" = slurm ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    command -v slurmctld >/dev/null 2>&1 && command -v slurmd >/dev/null 2>&1 &&
        command -v munged >/dev/null 2>&1 || missing="$missing slurm-wlm munge"
fi
[ -z "$missing" ] && exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing$missing ..."
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    # shellcheck disable=SC2086 # a list of packages
    exec apt-get install -q -y --no-install-recommends $missing
fi
cat >&2 <<MESSAGE
error: the system lacks what pip cannot install. On Debian or Ubuntu run

    sudo apt-get install --no-install-recommends $missing

elsewhere install TeX Live (or tectonic) and a Python with venv; then run make again.
MESSAGE
exit 1
