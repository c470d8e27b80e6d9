"""Where every file of a study lies: the one place that spells a path."""

from dataclasses import dataclass
from pathlib import Path


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

    @property
    def root(self) -> Path:
        return self.results / self.study

    @property
    def phantom(self) -> Path:
        return self.root / "phantom"

    @property
    def download(self) -> Path:
        """The record of what was downloaded; the images themselves are below ``downloads``."""
        return self.root / "download.json"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.csv"

    @property
    def images(self) -> Path:
        return self.root / "cache" / "images.npy"

    @property
    def masks(self) -> Path:
        return self.root / "cache" / "masks.npy"

    @property
    def mask_table(self) -> Path:
        return self.root / "masks.csv"

    @property
    def mask_quality(self) -> Path:
        return self.root / "mask_quality.json"

    @property
    def leaks(self) -> Path:
        return self.root / "leaks.json"

    @property
    def audit(self) -> Path:
        return self.root / "audit.json"

    @property
    def audit_results(self) -> Path:
        return self.root / "audit_results.json"

    @property
    def generated(self) -> Path:
        return self.paper / "generated" / self.study

    @property
    def companions(self) -> Path:
        """Checklists, model card and datasheet, made from the same records."""
        return self.generated / "companions"

    @property
    def pdf(self) -> Path:
        return self.paper / f"{self.study}.pdf"

    @property
    def tarball(self) -> Path:
        return self.paper / f"{self.study}-arxiv.tar.gz"

    @property
    def check(self) -> Path:
        return self.generated / "check.json"

    @property
    def seal(self) -> Path:
        """Checksums of what `make paper` does not compute again."""
        return self.root / "SHA256SUMS"

    def run(self, variant: str, seed: int | str) -> Path:
        return self.root / "runs" / variant / f"seed-{seed}"

    def work(self, variant: str, seed: int | str) -> Path:
        """Checkpoints of a run under way: outside ``run``, which Snakemake empties on failure."""
        return self.root / "work" / variant / f"seed-{seed}"

    def features(self, variant: str) -> Path:
        """What a frozen stem makes of the images, kept for the trainings of its head."""
        return self.root / "features" / variant

    def events(self, variant: str, seed: int | str) -> Path:
        """TensorBoard's folder of a run."""
        return self.root / "tensorboard" / variant / f"seed-{seed}"

    def predictions(self, variant: str, seed: int | str) -> Path:
        return self.root / "predictions" / variant / f"seed-{seed}.csv"

    def metrics(self, variant: str) -> Path:
        return self.root / "metrics" / f"{variant}.json"

    @property
    def comparisons(self) -> Path:
        return self.root / "metrics" / "comparisons.json"

    def gradcam(self, variant: str) -> Path:
        return self.root / "gradcam" / f"{variant}.npz"

    def focus(self, variant: str) -> Path:
        return self.root / "gradcam" / f"{variant}-focus.csv"

    def saliency(self, variant: str) -> Path:
        return self.root / "gradcam" / f"{variant}-checks.json"

    @property
    def mask_examples(self) -> Path:
        return self.root / "mask_examples.npz"
