"""The tables of the paper. Those of results say in their heading what their intervals cover."""

import re
from collections.abc import Iterator

import pandas as pd

from hybridlungvit.config import Study
from hybridlungvit.explain.cases import focus_variants
from hybridlungvit.io import Record, file_sha256, write_text
from hybridlungvit.paper import literature  # noqa: F401
from hybridlungvit.paper.booktabs import Table, tabular
from hybridlungvit.paper.contents import MAKERS, table
from hybridlungvit.paper.format import (
    POINT_NAMES,
    SPLIT_NAMES,
    SUBGROUP_NAMES,
    code,
    format_interval,
    format_range,
    heading,
    math_signed,
    metric_name,
    number,
    p_value,
    setting,
    short_verdict,
    tex,
    whole_number,
    whole_signed,
)
from hybridlungvit.paper.results import StudyResults, read_results
from hybridlungvit.paths import Layout

PLACE_NAMES = {
    **SPLIT_NAMES,
    "train-val": "Training and validation",
    "development-test": "Either of these and test",
}
DIGITS = 10  # of a hash in print
PACKAGES = ("torch", "torchvision", "timm", "numpy", "opencv-python-headless", "scikit-learn")


def write_tables(study: Study, layout: Layout) -> None:
    """Write every table of the paper below ``layout.generated / "tables"``."""
    results = read_results(study, layout)
    for name, make in MAKERS["table"].items():
        write_text(layout.generated / "tables" / f"{name}.tex", tabular(*make(results)))


def _label(results: StudyResults, variant: str) -> str:
    """A variant's name at the head of a row."""
    return tex(heading(results.study.variants[variant].label))


def _spaced(rows: list[dict[str, str]]) -> str:
    """What parts a block of rows from those above."""
    return r"\addlinespace " if rows else ""


def _across(columns: int, note: str) -> str:
    """A line below a table."""
    return rf"\multicolumn{{{columns}}}{{l}}{{{note}}}"


def _seed_range(value: Record) -> str:
    return "--" if value["min"] is None else f"{number(value['min'])} to {number(value['max'])}"


def _intervals(values: Record, names: tuple[str, ...]) -> dict[str, str]:
    """Cells of metrics with their intervals, by their headings."""
    return {metric_name(name): format_interval(values[name]) for name in names}


# --- data and settings ---------------------------------------------------------------------------


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
         "--" if training.freeze_epochs == "all"
         or (training.freeze_epochs == 0 and training.unfreeze_lowers == "all")
         else setting(training.unfreeze_factor)),
        ("Weight decay", setting(training.weight_decay)),
        ("Loss", loss if training.loss == "focal" else "cross-entropy"),
        ("Label smoothing", setting(training.label_smoothing)),
        ("Class weights / balanced sampler",
         f"{setting(training.class_weights)} / {setting(training.sampler)}"),
        ("Plateau factor / patience", f"{training.plateau_factor:g} / {training.plateau_patience}"),
        ("Patience (epochs)", setting(training.patience)),
        (r"$\lambda_\mathrm{seg}$ / $\lambda_\mathrm{att}$",
         f"{training.lambda_seg:g} / {training.lambda_att:g}"),
        ("Crop area / aspect", f"{view.crop_scale[0]:g} to {view.crop_scale[1]:g} / "
         f"{view.crop_ratio[0]:g} to {view.crop_ratio[1]:g}"),
        ("Flip probability", setting(view.flip)),
        ("Rotation (degrees)", rf"$\pm${view.rotation:g}"),
        ("Brightness / contrast jitter", rf"$\pm${view.brightness:g} / $\pm${view.contrast:g}"),
        ("RandAugment, exposure only", setting(view.randaugment or False)),
        ("Mixing", "off" if view.mix == "none" else f"{view.mix} ({view.mix_alpha:g})"),
        ("Test-time augmentation", setting(recipe.evaluation.tta)),
    ]  # fmt: skip
    special = {
        "Token pooling": (model.pooling, "side"),
        "Queries of the class token": (model.fusion_layers, 1),
        "Cut": (model.cut, "mask"),
        "Shift of the cut": (model.cut_shift, 0.0),
        "Mask given": (model.mask, "own"),
    }
    settings += [(k, setting(value)) for k, (value, plain) in special.items() if value != plain]
    half = -(-len(settings) // 2)
    settings += [("", "")] * (2 * half - len(settings))
    rows = [(*settings[i], *settings[i + half]) for i in range(half)]
    # Two columns of settings side by side; the blank in the second heading keeps names unique.
    columns = ["Setting", "Value", r"Setting\,", r"Value\,"]
    return pd.DataFrame(rows, columns=columns), r"ll@{\hspace{2em}}ll"


@table
def variants(results: StudyResults) -> Table:
    """The variants and what each of them changes; those left out, and why."""
    study = results.study
    rows = [
        {"Variant": _label(results, name), "What changes": tex(variant.description)}
        for name, variant in study.variants.items()
    ]
    omitted = (f"{code(name)} left out: {tex(why)}" for name, why in study.omitted.items())
    return pd.DataFrame(rows), "ll", tuple(_across(2, note) for note in omitted)


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


# --- comparisons ---------------------------------------------------------------------------------


@table
def main(results: StudyResults) -> Table:
    """AUC of every variant with its interval, and the paired difference from the reference.

    Intervals cover patients and seeds; below the reference stands the ensemble of its seeds.
    """
    covered = rf"({results.level}\,\% CI)"
    columns = ["Variant", f"AUC {covered}", "Seed SD", rf"$\Delta$AUC {covered}", "$p$ (Holm)",
               "Detectable", "AUC is"]  # fmt: skip
    rows = []
    for variant, record in results.metrics.items():
        auc = record["headline"]["auc"]
        row = [_label(results, variant), format_interval(auc), number(auc["sd"])]
        if (difference := results.differences.get(variant)) is None:
            row += ["reference", "", "", ""]
        else:
            row += [
                format_interval(difference, show=math_signed),
                _adjusted(difference),
                number(difference["detectable"]) + _mark(difference),
                short_verdict(difference["verdict"]),
            ]
        rows.append(row)
        if variant == results.study.reference and len(results.study.seeds) > 1:
            ensemble = format_interval(record["ensemble"]["auc"])
            rows.append([r"\quad ensemble of its seeds", ensemble, *[""] * 5])
    notes = (*_exploratory(results, 7), *_at_bound(list(results.differences.values()), 7))
    return pd.DataFrame(rows, columns=columns), "lcccccl", notes


@table
def comparisons(results: StudyResults) -> Table:
    """Every comparison with the reference beside its cross-checks by DeLong and McNemar."""
    rows = []
    for variant, difference in results.differences.items():
        delong, calls = difference["delong"], difference["mcnemar"]["fixed"]
        rows.append(
            {
                "Variant": _label(results, variant),
                "df": _freedom(difference),
                "$p$": p_value(difference["p_value"]),
                "$p$ (Holm)": _adjusted(difference),
                "Equivalence $p$ (Holm)": _adjusted(difference, "p_equivalence"),
                "Ensembles": math_signed(delong["estimate"]),
                "DeLong $p$": p_value(delong["p_value"]),
                "Only right": f"{calls['only_a']} / {calls['only_b']}",
                "Exact $p$": p_value(calls["p_exact"]),
                "Patients $p$": p_value(calls["p_clustered"]),
            }
        )
    notes = _at_bound(list(results.differences.values()), 10)
    return pd.DataFrame(rows), "lccccccccc", (*notes, *_exploratory(results, 10))


def _freedom(value: Record) -> str:
    """Degrees of freedom in print, marked where a component sits at its bound of zero."""
    if value["at_bound"] is None:  # no interval
        return "--"
    freedom = value["degrees_of_freedom"]
    return (r"$\infty$" if freedom is None else number(freedom, 1)) + _mark(value)


def _mark(value: Record) -> str:
    """The mark of a component at its bound, which ``_at_bound`` explains."""
    return r"\rlap{$^\dagger$}" if value["at_bound"] else ""


def _at_bound(values: list[Record], columns: int) -> tuple[str, ...]:
    """A footnote where ``_mark`` stands."""
    marked = any(value["at_bound"] for value in values)
    note = r"$^\dagger$ a component of the variance is estimated as zero"
    return (_across(columns, note),) if marked else ()


def _adjusted(difference: Record, name: str = "p_value") -> str:
    """An adjusted p, or a marked one of a comparison outside the declared family."""
    adjusted = difference[f"{name}_adjusted"]
    return rf"{p_value(difference[name])}\rlap{{$^*$}}" if adjusted is None else p_value(adjusted)


def _exploratory(results: StudyResults, columns: int) -> tuple[str, ...]:
    """A footnote where the mark of ``_adjusted`` stands."""
    marked = any(value["p_value_adjusted"] is None for value in results.differences.values())
    note = "$^*$ exploratory: outside the declared family, not adjusted"
    return (_across(columns, note),) if marked else ()


@table
def split(results: StudyResults) -> Table:
    """How much of the variance of the mean AUC comes from patients and how much from seeds."""
    rows = []
    for variant, record in results.metrics.items():
        auc, ensemble = record["headline"]["auc"], record["ensemble"]["auc"]
        rows.append(
            {
                "Variant": _label(results, variant),
                "Mean": number(auc["estimate"]),
                "Seed SD": number(auc["sd"], 4),
                "Range": _seed_range(auc),
                "SE, patients": number(auc["se_patients"], 4),
                "SE, seeds": number(None if auc["sd"] is None else auc["se_seeds"], 4),
                "df": _freedom(auc),
                r"Seeds' share (\%)": number(seed_share(auc), 0),
                rf"Ensemble ({results.level}\,\% CI)": format_interval(ensemble),
            }
        )
    aucs = [record["headline"]["auc"] for record in results.metrics.values()]
    return pd.DataFrame(rows), "lcccccccc", _at_bound(aucs, 9)


def seed_share(auc: Record) -> float | None:
    """Share of the variance of a mean that is due to seeds, in percent."""
    if auc["se_patients"] is None or auc["sd"] is None:
        return None
    of_seeds, of_patients = auc["se_seeds"] ** 2, auc["se_patients"] ** 2
    return 100 * of_seeds / (of_seeds + of_patients) if of_seeds + of_patients else None


# --- the reference -------------------------------------------------------------------------------


@table
def metrics(results: StudyResults) -> Table:
    """All metrics of the reference: mean over seeds, ensemble and closed forms.

    The closed forms are clustered DeLong's (AUC) and Wilson's.
    """
    ensemble = results.reference["ensemble"]
    closed_forms = {"auc": ensemble["delong"], **ensemble["wilson"]}
    rows = [
        {
            "Metric": metric_name(name),
            "Mean over seeds": format_interval(value),
            "Seed SD": number(value["sd"]),
            "Range": _seed_range(value),
            "Ensemble": format_interval(ensemble[name]),
            "Closed form": format_interval(closed_forms[name]) if name in closed_forms else "",
        }
        for name, value in results.reference["headline"].items()
    ]
    return pd.DataFrame(rows), "lccccc"


@table
def operating(results: StudyResults) -> Table:
    """Every variant at the fixed threshold, with intervals over patients and seeds."""
    names = ("accuracy", "sensitivity", "specificity", "f1")
    rows = [
        {"Variant": _label(results, variant)} | _intervals(record["headline"], names)
        for variant, record in results.metrics.items()
    ]
    return pd.DataFrame(rows), "lcccc"


@table
def points(results: StudyResults) -> Table:
    """The reference at each operating point, its thresholds frozen on validation images."""
    names = ("sensitivity", "specificity", "ppv", "npv")
    rows = []
    for point, values in results.reference["points"].items():
        seeds = results.reference["seeds"].values()
        thresholds = format_range(seed["points"][point]["threshold"] for seed in seeds)
        rows.append(
            {"Point": POINT_NAMES[point], "Thresholds": thresholds} | _intervals(values, names)
        )
    return pd.DataFrame(rows), "lccccc"


@table
def net_benefit(results: StudyResults) -> Table:
    """Net benefit of the reference at each operating point, and minus that of calling all."""
    rows = [
        {"Point": POINT_NAMES[point]} | _intervals(values, ("net_benefit", "net_benefit_over_all"))
        for point, values in results.reference["points"].items()
    ]
    return pd.DataFrame(rows), "lcc"


@table
def prevalence(results: StudyResults) -> Table:
    """Predictive values of the reference over a range of prevalences."""
    rows: list[dict[str, str]] = []
    for point, record in results.reference["points"].items():
        for i, values in enumerate(record["prevalences"]):
            row = {
                "Point": "" if i else _spaced(rows) + POINT_NAMES[point],
                "Prevalence": rf"{100 * values['prevalence']:g}\,\%",
            }
            rows.append(row | _intervals(values, ("ppv", "npv")))
    return pd.DataFrame(rows), "lrcc"


@table
def calibration(results: StudyResults) -> Table:
    """Calibration of the reference before and after temperature scaling."""
    record = results.reference["calibration"]
    layers = {"headline": "Mean over seeds", "ensemble": "Ensemble"}
    rows = [
        {"Measure": metric_name(name)}
        | {
            f"{title}, {state}": format_interval(record[state][layer][name])
            for layer, title in layers.items()
            for state in ("before", "after")
        }
        for name in ("ece", "slope", "intercept", "brier", "log_loss")
    ]
    return pd.DataFrame(rows), "lcccc"


@table
def subgroups(results: StudyResults) -> Table:
    """The reference by kind, series of normal images and image quality: described, not compared."""
    rows: list[dict[str, str]] = []
    above, positive = None, "pos." if results.study.data.own_images else "pn."
    for group in results.reference["subgroups"]:
        by = group["by"]
        rows.append(
            {
                "By": "" if by == above else _spaced(rows) + SUBGROUP_NAMES[by],
                "Group": tex(_three_digits(group["group"])),
                f"Images ({positive})": f"{group['images']:,} ({group['pneumonia']:,})",
                "Patients": f"{group['patients']:,}",
                "AUC": format_interval(group["auc"]),
                # Empty where a group holds the whole class, whose value stands in another table.
                "Sensitivity": "" if by == "series" else format_interval(group["sensitivity"]),
                "Specificity": "" if by == "subtype" else format_interval(group["specificity"]),
            }
        )
        above = by
    return pd.DataFrame(rows), "llrrccc"


def _three_digits(group: str) -> str:
    """The bounds of a quarter with all their digits: "0.15 to 0.167" begins with 0.150."""
    if " to " not in group:
        return group
    return re.sub(r"\d+(?:\.\d+)?", lambda bound: f"{float(bound[0]):#.3g}".rstrip("."), group)


@table
def focus(results: StudyResults) -> Table:
    """How much of Grad-CAM's heat lies in the lungs, beside its controls."""
    measures = {
        rf"Own lungs ({results.level}\,\% CI)": ("focus", whole_number),
        "Another patient's lungs": ("focus_shuffled", whole_number),
        "Central square": ("focus_box", whole_number),
        "Own minus another's": ("over_shuffled", whole_signed),
    }
    rows: list[dict[str, str]] = []
    for variant, record in results.focus.items():
        name = rf"\emph{{{_label(results, variant)}}}"
        rows.append({"Test images": _spaced(rows) + name})
        for group in record["groups"]:
            called = "" if group["called"] == "all" else f", {tex(group['called'])}"
            row = {
                "Test images": r"\enspace " + results.class_name(group["class"]) + called,
                "Images": f"{group['images']:,}",
            }
            values = {
                n: format_interval(group[key], 3 if "over" in key else 2, s)
                for n, (key, s) in measures.items()
            }
            rows.append(row | values)
    return pd.DataFrame(rows).fillna(""), "lrcccc"


# --- provenance: the rows that every number of the text links to ---------------------------------


def run_anchor(variant: str) -> str:
    """The link target of a variant's rows."""
    return f"run:{variant}"


def _target(anchor: str, text: str) -> str:
    """TeX that makes a text the target of links; names may hold underscores."""
    return rf"\hypertarget{{\detokenize{{{anchor}}}}}{{{text}}}"


def _digest(sha256: str | None, digits: int = DIGITS) -> str:
    """The first digits of a hash in print."""
    return code(sha256[:digits]) if sha256 else "none"


@table
def provenance(results: StudyResults) -> Table:
    """The runs behind each variant: hash of the config, epochs, validation AUC and environment."""
    study, letters = results.study, _letters(results)
    rows = []
    for variant in study.variants:
        runs = [results.runs[variant, seed] for seed in study.seeds]
        config = results.predictions[variant, study.seeds[0]]["config_sha256"]
        rows.append(
            {
                "Variant": _target(run_anchor(variant), _label(results, variant)),
                "Name": code(variant),
                "Config": _digest(config),
                "Best epoch": format_range([run["best_epoch"] for run in runs], 0),
                "Validation AUC": format_range([run["best_val_auc"] for run in runs]),
                "Minutes": format_range([run["wall_seconds"] / 60 for run in runs], 1),
                "In": ", ".join(dict.fromkeys(letters[tuple(_environment(run))] for run in runs)),
            }
        )
    return pd.DataFrame(rows), "lllcccc"


@table
def environments(results: StudyResults) -> Table:
    """Code, packages and machine of every training: a column for each that differs."""
    columns = {letter: dict(parts) for parts, letter in _letters(results).items()}
    rows = [
        {"": name} | {letter: parts[name] for letter, parts in columns.items()}
        for name in columns["A"]
    ]
    return pd.DataFrame(rows), "l" + "l" * len(columns)


def _letters(results: StudyResults) -> dict[tuple[tuple[str, str], ...], str]:
    """A letter for each environment, in the order of the runs."""
    distinct = dict.fromkeys(tuple(_environment(run)) for run in results.runs.values())
    return {environment: chr(ord("A") + i) for i, environment in enumerate(distinct)}


def _environment(run: Record) -> Iterator[tuple[str, str]]:
    """What must agree for two runs to share a column of the environments."""
    commit, _, dirty = run["code_commit"].partition("-")
    yield "Code commit", _digest(commit) + (", with uncommitted changes" if dirty else "")
    yield "Training code", _digest(run["code_sha256"])
    yield "Data manifest", _digest(run["manifest_sha256"])
    yield "Stem weights", _digest(run["weights_sha256"])
    yield "Device", tex(run["device"].replace("(R)", "").replace("(TM)", ""))
    yield "Threads", tex(run["threads"])
    yield "Python", f"{tex(run['python'])}, {tex(run['system'])}"
    for package in PACKAGES:
        yield package.removesuffix("-python-headless"), tex(run["packages"].get(package, "unknown"))


@table
def records(results: StudyResults) -> Table:
    """The study's records, from which the numbers of the text come, each with its hash."""
    study, layout = results.study, results.layout
    files = {
        "manifest": [layout.manifest],
        "mask_table": [layout.mask_table],
        "mask_quality": [layout.mask_quality],
        "audit": [layout.audit],
        "audit_results": [layout.audit_results],
        "metrics": [layout.metrics(variant) for variant in study.variants],
        "comparisons": [layout.comparisons],
        "focus": [layout.focus(v).with_suffix(".json") for v in focus_variants(study)],
        "saliency": [layout.saliency(study.reference)],
    }
    config = f"configuration {code(study.study)}, all values but paths"
    rows = [(_target("record:config", config), study.values_sha256())]
    for name, paths in files.items():
        for i, path in enumerate(paths):
            shown = code(path.relative_to(layout.root).as_posix())
            rows.append((shown if i else _target(f"record:{name}", shown), file_sha256(path)))
    cells = [{"Record": text, "SHA-256": _digest(sha256, 2 * DIGITS)} for text, sha256 in rows]
    return pd.DataFrame(cells), "ll"
