"""``python -m hybridlungvit``: what the workflow calls; no rule needs an installed script."""

from hybridlungvit.cli import main

main()
