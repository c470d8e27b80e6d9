"""The sentence to paste into a manuscript, and the BibTeX that goes with it."""

from hybridlungvit import __version__
from hybridlungvit.config import Study
from hybridlungvit.data.manifest import read_manifest, unit_of
from hybridlungvit.paper.format import format_interval, number, p_value, signed, source_names
from hybridlungvit.paper.results import current_comparisons, current_metrics
from hybridlungvit.paths import Layout
from hybridlungvit.provenance import code_commit

# Of type misc, and with everything that is to be printed in a field which plain styles print.
SOFTWARE = """@misc{{hybridlungvit,
  author       = {{{{The HybridLungViT authors}}}},
  title        = {{{{HybridLungViT}}: a reproducible experiment paper on lung-aware vision
                  transformers}},
  howpublished = {{Software, version {version}, commit {commit}, {licence} licence}},
  year         = {{2026}}
}}"""
LICENCE, DATA_LICENCE = "MIT", "CC BY 4.0"
DATA = """@misc{kermany2018data,
  author       = {Kermany, Daniel and Zhang, Kang and Goldbaum, Michael},
  title        = {Labeled Optical Coherence Tomography ({OCT}) and Chest {X}-Ray Images for
                  Classification},
  howpublished = {Mendeley Data, version 2, doi:10.17632/rscbjbr9sj.2},
  year         = {2018}
}"""


def citation(study: Study, variant: str, layout: Layout) -> str:
    """Task, data, AUC with its interval, the difference from the reference, and BibTeX.

    Raises ``StudyError`` when the variant has not been evaluated, or not with this config.
    """
    record = current_metrics(study, variant, layout)
    auc = record["headline"]["auc"]
    count = len(study.seeds)
    unit = unit_of(read_manifest(layout.manifest))
    covers = f"test {unit}s" if count == 1 else f"test {unit}s and {count} training seeds"
    patients = f" of {record['patients']:,} patients" if unit == "patient" else ""
    synthetic = study.data.source == "phantom"
    negative, positive = study.data.class_words
    interval = f"{100 * record['level']:g}% CI {number(auc['low'])} to {number(auc['high'])}"
    if auc["low"] is None:
        interval = "no interval, as no resample differs"
    sentences = [
        f"In telling {positive} from {negative} on {source_names(study.data)[0]}, "
        f"{study.variants[variant].label} (variant {variant} of study {study.study}) reached "
        f"{'an' if count == 1 else 'a mean'} area under the ROC curve of "
        f"{number(auc['estimate'])} on {record['images']:,} "
        f"{'synthetic' if synthetic else 'test'} images{patients} "
        f"({interval}, over {covers}; {unit} bootstrap with {record['resamples']:,} resamples).",
        _against_reference(study, variant, layout),
    ]
    if synthetic:
        sentences.append("The images are synthetic; this is no clinical result.")
    commit, *dirty = code_commit().split("-")
    commit = "-".join([commit[:12], *dirty])
    software = SOFTWARE.format(version=__version__, commit=commit, licence=LICENCE)
    entries = [software, DATA] if not (synthetic or study.data.own_images) else [software]
    return "\n\n".join([" ".join(sentences), *entries])


def _against_reference(study: Study, variant: str, layout: Layout) -> str:
    """The variant's difference from the reference, with its verdict, as a sentence."""
    reference = study.reference
    if variant == reference:
        return "It is the reference of its study."
    current_metrics(study, reference, layout)
    difference = current_comparisons(study, layout)["differences"][variant]
    unadjusted = difference["p_value_adjusted"] is None
    different, equivalent = (
        p_value(difference[name if unadjusted else f"{name}_adjusted"], "below 0.001")
        for name in ("p_value", "p_equivalence")
    )
    interval = format_interval(difference, show=signed).replace(
        "(", f"({100 * study.statistics.level:g}% CI ", 1
    )
    return (
        f"It is {difference['verdict']} the reference, {study.variants[reference].label}, by the "
        f"difference of areas: {interval}, margin {difference['margin']:g}, p of a "
        f"difference {different} and of equivalence {equivalent}, "
        f"{'unadjusted' if unadjusted else 'by Holm'}."
    )
