"""Where every file of a study lies: the one place that spells a path."""

from dataclasses import dataclass
from pathlib import Path


def _result(*names: str) -> property:
    """A file or folder below ``root``."""
    return property(lambda layout: layout.root.joinpath(*names))


def _paper(template: str) -> property:
    """A file or folder below ``paper``, in whose name {} stands for the study."""
    return property(lambda layout: layout.paper / template.format(layout.study))


@dataclass(frozen=True)
class Layout:
    """Paths of a study, relative to the folder the workflow runs in.

    ``variant`` and ``seed`` may be Snakemake wildcards in braces, hence strings are welcome.
    """

    study: str
    results: Path = Path("results")
    paper: Path = Path("paper")
    downloads: Path = Path("data")
    """Shared by all studies: what was fetched once need not be fetched again."""

    root = property(lambda layout: layout.results / layout.study)
    phantom = _result("phantom")
    download = _result("download.json")
    """The record of what was downloaded; the images themselves are below ``downloads``."""
    manifest = _result("manifest.csv")
    images = _result("cache", "images.npy")
    masks = _result("cache", "masks.npy")
    cache_record = _result("cache", "record.json")
    """What the cache was made from."""
    mask_table = _result("masks.csv")
    mask_quality = _result("mask_quality.json")
    mask_examples = _result("mask_examples.npz")
    leaks = _result("leaks.json")
    audit = _result("audit.json")
    audit_results = _result("audit_results.json")
    comparisons = _result("metrics", "comparisons.json")
    seal = _result("SHA256SUMS")
    """Checksums of what `make paper` does not compute again."""

    generated = _paper("generated/{}")
    companions = _paper("generated/{}/companions")
    """Checklists, model card and datasheet, made from the same records."""
    check = _paper("generated/{}/check.json")
    pdf = _paper("{}.pdf")
    page = _paper("{}.html")
    """All results in one HTML file."""
    tarball = _paper("{}-arxiv.tar.gz")

    def run(self, variant: str, seed: int | str) -> Path:
        return self.root / "runs" / variant / f"seed-{seed}"

    def work(self, variant: str, seed: int | str) -> Path:
        """Checkpoints of a run under way: outside ``run``, which Snakemake empties on failure."""
        return self.root / "work" / variant / f"seed-{seed}"

    def features(self, variant: str) -> Path:
        """What a frozen stem makes of the images, kept for the trainings of its head."""
        return self.root / "features" / variant

    def predictions(self, variant: str, seed: int | str) -> Path:
        return self.root / "predictions" / variant / f"seed-{seed}.csv"

    def metrics(self, variant: str) -> Path:
        return self.root / "metrics" / f"{variant}.json"

    def gradcam(self, variant: str) -> Path:
        return self.root / "gradcam" / f"{variant}.npz"

    def focus(self, variant: str) -> Path:
        return self.root / "gradcam" / f"{variant}-focus.csv"

    def saliency(self, variant: str) -> Path:
        return self.root / "gradcam" / f"{variant}-checks.json"
