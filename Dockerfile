# The environment with TeX and the pinned packages, for those who want nothing installed. Not built where
# it was written: no Docker was at hand.
#
#   docker build -t hybridlungvit .          without CUDA: add
#       --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
#   docker run --name demo hybridlungvit     the demo; another command: ... hybridlungvit make test
#   docker cp demo:/home/author/hybridlungvit/paper/demo.pdf .
FROM debian:12-slim

# Without versions: those of a Debian release hardly change.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates git latexdiff make poppler-utils procps python3 texlive-plain-generic \
    && rm -rf /var/lib/apt/lists/*

# TeX and Python's venv: the list that `make setup` goes by.
COPY workflow/system.sh /tmp/system.sh
RUN sh /tmp/system.sh python3 && rm -rf /var/lib/apt/lists/* /tmp/system.sh

RUN useradd --create-home author \
    && install -d -o author -g author /home/author/hybridlungvit
USER author
WORKDIR /home/author/hybridlungvit

# Before the sources, so that a change in them downloads nothing again.
ARG PIP_EXTRA_INDEX_URL
COPY --chown=author:author requirements.txt ./
RUN python3 -m venv .venv && .venv/bin/pip install --no-cache-dir -r requirements.txt

COPY --chown=author:author . ./
RUN .venv/bin/pip install --no-cache-dir --no-deps -e . && touch .venv/ready

CMD ["make", "demo"]
