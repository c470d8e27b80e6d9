"""The tables of data, masks, settings, heat maps and the audit, and the writing of all tables."""

import pandas as pd

from hybridlungvit.config import Study
from hybridlungvit.paper import literature, provenance_tables, result_tables  # noqa: F401
from hybridlungvit.paper.booktabs import Table, label_of, omitted_rows, spaced, write_table
from hybridlungvit.paper.contents import MAKERS, table
from hybridlungvit.paper.format import (
    SPLIT_NAMES,
    code,
    format_interval,
    number,
    setting,
    tex,
    whole_number,
    whole_signed,
)
from hybridlungvit.paper.macros import SUBTYPES
from hybridlungvit.paper.results import StudyResults, read_results
from hybridlungvit.paths import Layout

PLACE_NAMES = {
    **SPLIT_NAMES,
    "train-val": "Training and validation",
    "development-test": "Either of these and test",
}


def write_tables(study: Study, layout: Layout) -> None:
    """Write every table of the paper below ``layout.generated / "tables"``."""
    results = read_results(study, layout)
    for name, make in MAKERS["table"].items():
        write_table(layout.generated / "tables" / f"{name}.tex", *make(results))


def _kinds(results: StudyResults) -> list[str]:
    """The kinds of pneumonia that the images' names tell."""
    return [kind for kind in SUBTYPES if (results.manifest.subtype == kind).any()]


@table
def masks(results: StudyResults) -> Table:
    """Confidence and geometry of the lung masks by class, and Dice where the lungs are known.

    Dice over both classes stands in the table of the mask benchmark alone.
    """
    annotated = results.mask_quality["annotated"]
    rows = []
    for group in results.mask_quality["groups"]:
        if group["split"] != "all":
            continue
        mean, sd = (number(100 * group[key], 1) for key in ("cut_mean", "cut_sd"))
        row = {
            "Class": results.class_name(group["class"]),
            "Images": f"{group['images']:,}",
            r"Low confidence (\%)": number(100 * group["low_confidence"], 1),
            r"Area (\%)": number(100 * group["area"], 1),
            r"Cut, mean (SD) (\%)": f"{mean} ({sd})",
        }
        if annotated is not None:
            dice = annotated["dice"][group["class"]]
            overall = group["class"] == "all"
            row[rf"Dice ({results.level}\,\% CI)"] = "" if overall else format_interval(dice)
        rows.append(row)
    return pd.DataFrame(rows), "lrrrr" + "c" * (annotated is not None)


@table
def hyperparameters(results: StudyResults) -> Table:
    """Settings of the reference, shared by all variants unless their own row says otherwise."""
    recipe = results.study.recipe(results.study.reference)
    model, training, view = recipe.model, recipe.training, recipe.augmentation
    loss = rf"focal, $\gamma = {training.focal_gamma:g}$"
    settings = [
        ("Stem", code(model.stem)),
        ("Image side (px)", setting(recipe.data.image_size)),
        ("Token width $D$", setting(model.d_model)),
        ("Token grid $g$", setting(model.token_grid)),
        ("Encoder layers / heads", f"{model.encoder_layers} / {model.heads}"),
        ("Dropout", setting(model.dropout)),
        ("Epochs (frozen stem)", f"{training.epochs} ({training.freeze_epochs})"),
        ("Batch size", setting(training.batch_size)),
        ("Learning rate", setting(training.learning_rate)),
        ("Stem learning-rate factor" if training.unfreeze_lowers == "stem"
         else "Learning-rate factor, unfrozen",
         "--" if training.freeze_epochs == "all" else setting(training.unfreeze_factor)),
        ("Weight decay", setting(training.weight_decay)),
        ("Loss", loss if training.loss == "focal" else "cross-entropy"),
        ("Label smoothing", setting(training.label_smoothing)),
        ("Class weights / balanced sampler",
         f"{setting(training.class_weights)} / {setting(training.sampler)}"),
        ("Patience (epochs)", setting(training.patience)),
        (r"$\lambda_\mathrm{seg}$ / $\lambda_\mathrm{att}$",
         f"{training.lambda_seg:g} / {training.lambda_att:g}"),
        ("Crop area", f"{view.crop_scale[0]:g} to {view.crop_scale[1]:g}"),
        ("Flip probability", setting(view.flip)),
        ("Rotation (degrees)", rf"$\pm${view.rotation:g}"),
        ("Brightness / contrast jitter", rf"$\pm${view.brightness:g} / $\pm${view.contrast:g}"),
        ("RandAugment, exposure only", setting(view.randaugment or False)),
        ("Mixing", "off" if view.mix == "none" else f"{view.mix} ({view.mix_alpha:g})"),
        ("Test-time augmentation", setting(recipe.evaluation.tta)),
    ]  # fmt: skip
    half = -(-len(settings) // 2)
    settings += [("", "")] * (2 * half - len(settings))
    rows = [(*settings[i], *settings[i + half]) for i in range(half)]
    # Two columns of settings side by side; the blank in the second heading keeps names unique.
    columns = ["Setting", "Value", r"Setting\,", r"Value\,"]
    return pd.DataFrame(rows, columns=columns), r"ll@{\hspace{2em}}ll"


@table
def variants(results: StudyResults) -> Table:
    """The variants and what each of them changes; those left out, and why."""
    rows = [
        {
            "Variant": label_of(results, name),
            "What changes": tex(variant.description),
        }
        for name, variant in results.study.variants.items()
    ]
    return pd.DataFrame(rows), "ll", omitted_rows(results, 2)


@table
def focus(results: StudyResults) -> Table:
    """How much of Grad-CAM's heat lies in the lungs, beside its controls."""
    rows: list[dict[str, str]] = []
    for variant, record in results.focus.items():
        name = rf"\emph{{{label_of(results, variant)}}}"
        rows.append({"Test images": spaced(rows) + name})
        for group in record["groups"]:
            called = "" if group["called"] == "all" else f", {group['called']}"
            own, another, square = (
                format_interval(group[key], 2, whole_number)
                for key in ("focus", "focus_shuffled", "focus_box")
            )
            rows.append(
                {
                    "Test images": r"\enspace " + results.class_name(group["class"]) + called,
                    "Images": f"{group['images']:,}",
                    rf"Own lungs ({results.level}\,\% CI)": own,
                    "Another patient's lungs": another,
                    "Central square": square,
                    "Own minus another's": format_interval(group["over_shuffled"], 2, whole_signed),
                }
            )
    return pd.DataFrame(rows).fillna(""), "lrcccc"


@table
def audit_copies(results: StudyResults) -> Table:
    """Identical and nearly identical images by place; in parentheses those of two patients."""
    rows = [
        {
            "Within": PLACE_NAMES[place["place"]],
            "Byte-identical groups": f"{place['identical']:,} ({place['identical_other']:,})",
            "Near-identical pairs": f"{place['near']:,} ({place['near_other']:,})",
        }
        for place in results.audit["copies"]["places"]
    ]
    return pd.DataFrame(rows), "lrr"
