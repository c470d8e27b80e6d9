"""The sentence to paste into a manuscript, and the BibTeX that goes with it."""

from hybridlungvit import __version__
from hybridlungvit.config import Study
from hybridlungvit.data.manifest import read_manifest, unit_of
from hybridlungvit.paper.format import number
from hybridlungvit.paper.results import current_metrics
from hybridlungvit.paths import Layout

SOFTWARE = f"""@software{{hybridlungvit,
  author  = {{{{The HybridLungViT authors}}}},
  title   = {{HybridLungViT: a reproducible experiment paper on lung-aware vision transformers}},
  version = {{{__version__}}},
  year    = {{2026}}
}}"""
DATA = """@misc{kermany2018data,
  author = {Kermany, Daniel and Zhang, Kang and Goldbaum, Michael},
  title  = {Labeled Optical Coherence Tomography ({OCT}) and Chest {X}-Ray Images for
            Classification},
  year   = {2018},
  note   = {Mendeley Data, version 2},
  doi    = {10.17632/rscbjbr9sj.2}
}"""


def citation(study: Study, variant: str, layout: Layout) -> str:
    """Metric, interval, what the interval covers, and BibTeX for software and data.

    Raises ``StudyError`` when the variant has not been evaluated, or not with this config.
    """
    record = current_metrics(study, variant, layout)
    auc = record["headline"]["auc"]
    low, high = number(auc["low"]), number(auc["high"])
    count = len(study.seeds)
    unit = unit_of(read_manifest(layout.manifest))
    covers = f"test {unit}s" if count == 1 else f"test {unit}s and {count} training seeds"
    patients = f" of {record['patients']:,} patients" if unit == "patient" else ""
    subject = "synthetic" if study.data.source == "phantom" else "test"
    sentence = (
        f"{study.variants[variant].label} (variant {variant}, study {study.study}) reached "
        f"{'an' if count == 1 else 'a mean'} area under the ROC curve of "
        f"{number(auc['estimate'])} on {record['images']:,} {subject} images"
        f"{patients} ({100 * record['level']:g}% CI {low} to {high}, over "
        f"{covers}; {unit} bootstrap with {record['resamples']:,} resamples)."
    )
    if study.data.source == "phantom":
        return f"{sentence} The images are synthetic; this is no clinical result.\n\n{SOFTWARE}"
    return f"{sentence}\n\n{SOFTWARE}\n\n{DATA}"
