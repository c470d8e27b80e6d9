"""What the paper says of the heat maps: the focus table and macros."""

from collections.abc import Iterator

import pandas as pd

from hybridlungvit.data.sources import CLASSES
from hybridlungvit.evaluation.paired import verdict
from hybridlungvit.explain.cases import RULES, TARGET
from hybridlungvit.paper.results import (
    Facts,
    format_interval,
    label_of,
    number,
    signed,
    tex,
    tex_interval,
)

Interval = dict[str, float | None]
SIMILARITIES = {"rank": "Spearman correlation", "ssim": "SSIM"}


def focus_table(facts: Facts) -> tuple[pd.DataFrame, str]:
    """Lung focus by class and by right or wrong; a line with the name heads each model's rows."""
    study, rows = facts.study, []
    level = f"{100 * study.statistics.level:g}"
    for variant, record in facts.focus.items():
        name = (r"\addlinespace " if rows else "") + rf"\emph{{{label_of(facts, variant)}}}"
        rows.append({"Test images": name})
        for group in record["groups"]:
            called = "" if group["called"] == "all" else f", {group['called']}"
            rows.append(
                {
                    "Test images": r"\enspace " + group["class"].capitalize() + called,
                    "Images": f"{group['images']:,}",
                    rf"Own lungs ({level}\,\% CI)": format_interval(group["focus"], 2, _number),
                    "Another patient's lungs": format_interval(group["focus_shuffled"], 2, _number),
                    "Central square": format_interval(group["focus_box"], 2, _number),
                    "Own minus another's": format_interval(group["over_shuffled"], 2, _signed),
                }
            )
    return pd.DataFrame(rows).fillna(""), "lrcccc"


def _number(value: float, digits: int) -> str:
    """A number whose minus is in math mode, a true one; no minus before a zero."""
    text = number(round(value, digits) + 0.0, digits)
    return f"${text}$" if text.startswith("-") else text


def _signed(value: float, digits: int) -> str:
    return f"${signed(round(value, digits) + 0.0, digits)}$"


def focus_macros(facts: Facts) -> Iterator[tuple[str, str]]:
    """Keys and texts for ``\\given`` about lung focus; the words follow where intervals lie."""
    rules = ", ".join(RULES[:-1]) + f" and {RULES[-1]}"
    yield "gradcam.rules", rules
    yield "gradcam.class", CLASSES[TARGET].lower()
    if facts.study.recipe(facts.study.reference).model.head == "hybrid":
        yield "gradcam.attention", "shown"
    yield "gradcam.threshold", f"{facts.focus[facts.study.reference]['threshold']:g}"
    study, level = facts.study, facts.study.statistics.level
    for key, (variant, record) in zip(("own", "plain"), facts.focus.items(), strict=False):
        group = record["groups"][0]
        yield f"focus.{key}.name", tex(study.variants[variant].label)
        yield f"focus.{key}.undefined", f"{group['undefined']:,}"
        for measure, chance in (
            ("focus", 1), ("focus_shuffled", 1), ("focus_box", 1), ("over_shuffled", 0),
            ("over_box", 0),
        ):  # fmt: skip
            show = _number if chance else _signed
            yield f"focus.{key}.{measure}", tex_interval(group[measure], level, 2, show)
            yield f"focus.{key}.{measure}.verdict", verdict(group[measure], chance)


def saliency_macros(facts: Facts) -> Iterator[tuple[str, str]]:
    """Keys and texts for ``\\given`` about the checks of the heat maps."""
    level, record = facts.study.statistics.level, facts.saliency
    yield "saliency.images", f"{record['images']:,}"
    yield "saliency.patients", f"{record['patients']:,}"
    sanity, faithful, agreement = (record[k] for k in ("sanity", "faithfulness", "agreement"))
    for key in SIMILARITIES:
        yield f"sanity.first.{key}", tex_interval(sanity["stages"][0][key], level, 2, _number)
        yield f"sanity.last.{key}", tex_interval(sanity["stages"][-1][key], level, 2, _number)
        yield f"sanity.others.{key}", tex_interval(sanity["others"][key], level, 2, _number)
    yield "sanity.verdict", sanity["verdict"]
    yield "faithfulness.overall", tex_interval(faithful["overall"], level, 2, _signed)
    yield "faithfulness.verdict", faithful["verdict"]
    shares = [f"{100 * share:g}" for share in faithful["removed"]]
    yield "faithfulness.removed", ", ".join(shares[:-1]) + " and " * (len(shares) > 1) + shares[-1]
    if agreement is not None:
        for key in SIMILARITIES:
            yield f"agreement.seeds.{key}", tex_interval(agreement["seeds"][key], level, 2, _number)
            yield (
                f"agreement.others.{key}",
                tex_interval(agreement["others"][key], level, 2, _number),
            )
        yield "agreement.verdict", agreement["verdict"]
