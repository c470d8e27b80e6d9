"""Records of heat maps, made up for tests."""

from types import SimpleNamespace


def interval(estimate, spread=0.1):
    low, high = (None, None) if spread is None else (estimate - spread, estimate + spread)
    return {"estimate": estimate, "low": low, "high": high}


def group(focus, over, name="all", called="all", undefined=0, spread=0.1):
    values = {"focus": focus, "focus_shuffled": 1.0, "focus_box": 0.5}
    values |= {"over_shuffled": over, "over_box": -0.0001}
    counts = {"images": 12, "patients": 9, "undefined": undefined}
    measured = {key: interval(value, spread) for key, value in values.items()}
    return {"class": name, "called": called} | counts | measured


def explained(study, agreement=True):
    """The records of the heat maps, with lone and missing values among them."""
    none = {"estimate": None, "low": None, "high": None}
    empty = group(1, 0, "normal", "wrong") | dict.fromkeys(
        ("focus", "focus_shuffled", "focus_box", "over_shuffled", "over_box"), none
    )
    lone = group(1.234, -0.5, "normal", "right", spread=None)
    groups = [group(1.5, 0.3, undefined=2), lone, empty]
    pair = {"ssim": interval(0.4), "rank": interval(0.2)}
    return SimpleNamespace(
        study=study,
        level="95",
        class_name=str.capitalize,
        focus={
            "no_seg": {
                "groups": groups,
                "threshold": 0.4,
                "lowest_row": {"peaks": interval(0.7), "share": 0.25},
            },
            "plain_deit": {"groups": [group(0.8, -0.3)], "threshold": 0.5},
        },
        saliency={
            "compared": [],
            "images": 8,
            "patients": 6,
            "sanity": {
                "stages": [{"name": "classifier"} | pair, {"name": "embedding"} | pair],
                "others": pair,
                "verdict": "above",
            },
            "faithfulness": {
                "removed": [0.1, 0.25, 0.5],
                "gradcam": [interval(-0.1), interval(-0.2), interval(-0.3)],
                "random": [interval(0.0)] * 3,
                "overall": interval(-0.2),
                "verdict": "below",
            },
            "stability": {
                "radius": 0.02,
                "undefined": 3,
                "draws": 10,
                "noise": interval(0.3),
                "others": interval(0.9),
                "verdict": "below",
            },
            "model_sha256": {"0": "a", "1": "b"},
            "agreement": {"seeds": pair, "others": pair, "verdict": "above"} if agreement else None,
        },
    )
