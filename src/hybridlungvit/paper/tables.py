"""The tables of the paper, each a booktabs tabular in a file of its own."""

import sys

import pandas as pd

from hybridlungvit.config import Study, Training
from hybridlungvit.data.manifest import SPLITS
from hybridlungvit.data.sources import CLASSES
from hybridlungvit.paths import Layout
from hybridlungvit.paper import audit_report, error_tables, statistics_tables, trail
from hybridlungvit.paper.booktabs import write_table
from hybridlungvit.paper.contents import TABLES
from hybridlungvit.paper.explanation import focus_table
from hybridlungvit.paper.results import (
    SPLIT_NAMES,
    Facts,
    format_interval,
    gather,
    label_of,
    number,
    omitted_rows,
    tex,
)
from hybridlungvit.paper.literature import Published, literature_table, read_literature
from hybridlungvit.paper.macros import scientific

MODULES = (sys.modules[__name__], statistics_tables, error_tables, trail, audit_report)


def write_tables(study: Study, layout: Layout) -> None:
    """Write every table of the paper below ``layout.generated / "tables"``."""
    facts, published = gather(study, layout), read_literature(layout)
    for name in TABLES:
        make = next(getattr(m, name) for m in MODULES if hasattr(m, name))
        given = (facts, published) if make is literature else (facts,)
        table, columns, *rest = make(*given)
        write_table(layout.generated / "tables" / f"{name}.tex", table, columns, *rest)


def data(facts: Facts) -> tuple[pd.DataFrame, str]:
    """Images and patients by split and class."""
    rows = []
    for split in SPLITS:
        part = facts.manifest[facts.manifest.split == split]
        row = {"Split": SPLIT_NAMES[split]}
        for label, name in enumerate(CLASSES):
            group = part[part.label == label]
            counts = f"{len(group):,} ({group.patient.nunique():,})"
            row[name.capitalize()] = counts
        for subtype in ("bacteria", "virus"):
            group = part[part.subtype == subtype]
            row[subtype.capitalize()] = f"{len(group):,} ({group.patient.nunique():,})"
        row["All"] = f"{len(part):,} ({part.patient.nunique():,})"
        rows.append(row)
    return pd.DataFrame(rows), "lrrrrr"


def masks(facts: Facts) -> tuple[pd.DataFrame, str]:
    """Confidence and geometry of the lung masks by class, and Dice where the lungs are known."""
    known = facts.mask_quality["annotated"]
    rows = []
    for group in facts.mask_quality["groups"]:
        if group["split"] != "all":
            continue
        name = group["class"]
        row = {
            "Class": name.capitalize(),
            "Images": f"{group['images']:,}",
            r"Low confidence (\%)": number(100 * group["low_confidence"], 1),
            r"Area (\%)": number(100 * group["area"], 1),
            r"Cut, mean (SD) (\%)": (
                f"{number(100 * group['cut_mean'], 1)} ({number(100 * group['cut_sd'], 1)})"
            ),
        }
        if known is not None:
            level = f"{100 * facts.study.statistics.level:g}"
            row[rf"Dice ({level}\,\% CI)"] = format_interval(known["dice"][name])
        rows.append(row)
    return pd.DataFrame(rows), "lrrrr" + "c" * (known is not None)


def hyperparameters(facts: Facts) -> tuple[pd.DataFrame, str]:
    """The reference's settings, as they stand in the config."""
    study = facts.study
    recipe = study.recipe(study.reference)
    model, training, view = recipe.model, recipe.training, recipe.augmentation
    settings = [
        ("Stem", rf"\texttt{{{tex(model.stem)}}}"),
        ("Image side (px)", recipe.data.image_size),
        ("Token width $D$", model.d_model),
        ("Token grid $g$", model.token_grid),
        ("Encoder layers / heads", f"{model.encoder_layers} / {model.heads}"),
        ("Dropout", f"{model.dropout:g}"),
        ("Epochs (frozen stem)", f"{training.epochs} ({training.freeze_epochs})"),
        ("Batch size", training.batch_size),
        ("Learning rate", scientific(training.learning_rate)),
        ("Stem learning-rate factor", f"{training.unfreeze_factor:g}"),
        ("Weight decay", scientific(training.weight_decay)),
        ("Loss", classification_loss(training)),
        ("Label smoothing", f"{training.label_smoothing:g}"),
        ("Class weights / balanced sampler",
         f"{yes(training.class_weights)} / {yes(training.sampler)}"),
        ("Patience (epochs)", training.patience),
        (r"$\lambda_\mathrm{seg}$ / $\lambda_\mathrm{att}$",
         f"{training.lambda_seg:g} / {training.lambda_att:g}"),
        ("Crop area", f"{view.crop_scale[0]:g} to {view.crop_scale[1]:g}"),
        ("Flip probability", f"{view.flip:g}"),
        ("Rotation (degrees)", rf"$\pm${view.rotation:g}"),
        ("Brightness / contrast jitter", rf"$\pm${view.brightness:g} / $\pm${view.contrast:g}"),
        ("RandAugment, exposure only", view.randaugment or "off"),
        ("Mixing", "off" if view.mix == "none" else f"{view.mix} ({view.mix_alpha:g})"),
        ("Test-time augmentation", yes(recipe.evaluation.tta)),
    ]  # fmt: skip
    half = -(-len(settings) // 2)
    pairs = settings + [("", "")] * (2 * half - len(settings))
    rows = [(*pairs[i], *pairs[i + half]) for i in range(half)]
    # Two columns of settings side by side; the blank in the second heading keeps names unique.
    columns = ["Setting", "Value", r"Setting\,", r"Value\,"]
    return pd.DataFrame(rows, columns=columns).astype(str), r"ll@{\hspace{2em}}ll"


def classification_loss(training: Training) -> str:
    """The name of the loss in print."""
    if training.loss == "focal":
        return rf"focal, $\gamma = {training.focal_gamma:g}$"
    return "cross-entropy"


def yes(value: bool) -> str:
    """A switch in print."""
    return "on" if value else "off"


def variants(facts: Facts) -> tuple[pd.DataFrame, str, tuple[str, ...]]:
    """What each variant changes, and which are left out and why."""
    rows = [
        {
            "Variant": label_of(facts, name),
            "Name": rf"\texttt{{{tex(name)}}}",
            "What changes": tex(v.description),
        }
        for name, v in facts.study.variants.items()
    ]
    return pd.DataFrame(rows), "lll", omitted_rows(facts, 3)


def classification(facts: Facts) -> tuple[pd.DataFrame, str]:
    """The reference's classification report, for its first seed."""
    study = facts.study
    report = facts.metrics[study.reference]["seeds"][str(study.seeds[0])]["report"]
    rows = []
    for name in (*CLASSES, "macro avg", "weighted avg"):
        values = report[name]
        row = {"Class": name.capitalize().replace("avg", "average")}
        row |= {key.capitalize(): number(values[key]) for key in ("precision", "recall")}
        rows.append(
            row | {"$F_1$": number(values["f1-score"]), "Images": f"{values['support']:.0f}"}
        )
    return pd.DataFrame(rows), "lcccr"


def focus(facts: Facts) -> tuple[pd.DataFrame, str]:
    """Lung focus of Grad-CAM beside its controls."""
    return focus_table(facts)


def literature(
    facts: Facts, published: list[Published]
) -> tuple[pd.DataFrame, str, tuple[str, ...]]:
    """Published results on these images, and the reference's own below them."""
    return literature_table(facts, published)
