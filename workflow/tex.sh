#!/bin/sh
# Make sure a TeX engine is there: as root on Debian or Ubuntu install it, otherwise say how.
set -eu
packages="latexmk texlive-latex-recommended texlive-latex-extra texlive-fonts-recommended \
texlive-pictures texlive-science lmodern"

command -v tectonic >/dev/null 2>&1 && exit 0
if command -v latexmk >/dev/null 2>&1 && command -v kpsewhich >/dev/null 2>&1; then
    missing=""
    for file in siunitx.sty adjustbox.sty titlesec.sty tikz.sty mathptmx.sty lmodern.sty; do
        kpsewhich "$file" >/dev/null || missing="$missing $file"
    done
    [ -z "$missing" ] && exit 0
    echo "TeX lacks:$missing" >&2
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing TeX (about 700 MB on disk) ..."
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    # shellcheck disable=SC2086 # a list of packages
    exec apt-get install -q -y --no-install-recommends $packages
fi
cat >&2 <<MESSAGE
error: no complete TeX installation found, and it cannot be installed from here. On Debian or Ubuntu run

    sudo apt-get install --no-install-recommends $packages

elsewhere install TeX Live or tectonic, then run make again.
MESSAGE
exit 1
