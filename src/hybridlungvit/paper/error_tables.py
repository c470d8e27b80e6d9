"""The tables of where the errors lie: in which groups of images, and shared by whom."""

import re
from typing import Any

import pandas as pd

from hybridlungvit.paper.results import Facts, format_interval, label_of, tex
from hybridlungvit.paper.statistics_tables import Table, spaced

BYS = {
    "subtype": "Kind",
    "series": "Normal series",
    "pixels": "Megapixels",
    "bytes_per_pixel": "Bytes/pixel",
    "mask_confidence": "Mask conf.",
}


def subgroups(facts: Facts) -> Table:
    """AUC, sensitivity and specificity of the reference within subgroups, crossed intervals."""
    rows, before = [], None
    for found in facts.metrics[facts.study.reference]["subgroups"]:
        rows.append(
            {
                "By": spaced(rows) + BYS[found["by"]] if found["by"] != before else "",
                "Group": tex(_three_digits(found["group"])),
                "Images (pn.)": f"{found['images']:,} ({found['pneumonia']:,})",
                "Patients": f"{found['patients']:,}",
                "AUC": format_interval(found["auc"]),
                "Sensitivity": _unless(found["by"] == "series", found["sensitivity"]),
                "Specificity": _unless(found["by"] == "subtype", found["specificity"]),
            }
        )
        before = found["by"]
    return pd.DataFrame(rows), "llrrccc"


def errors(facts: Facts) -> Table:
    """Wrong calls of each variant's ensemble, and how far seeds and variants share them."""
    rows = [
        {
            "Variant": label_of(facts, variant),
            "Wrong": f"{found['images']:,}",
            "False pos.": f"{found['false_positives']:,}",
            "False neg.": f"{found['false_negatives']:,}",
            "Patients": f"{found['patients']:,}",
            "With the reference": f"{found['with_reference']:,}",
            "In every seed": f"{found['every_seed']:,}",
            "In some seed": f"{found['some_seed']:,}",
        }
        for variant, found in facts.errors["variants"].items()
    ]
    return pd.DataFrame(rows), "lrrrrrrr"


def _unless(everyone: bool, interval: dict[str, Any]) -> str:
    """Nothing where a subgroup holds the whole class, whose value stands in another table."""
    return "" if everyone else format_interval(interval)


def _three_digits(group: str) -> str:
    """The bounds of a quarter with all their digits: "0.15 to 0.167" begins with 0.150."""
    if " to " not in group:
        return group
    return re.sub(r"\d+(?:\.\d+)?", lambda found: f"{float(found[0]):#.3g}".rstrip("."), group)
