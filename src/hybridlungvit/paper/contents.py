"""The names of all that is generated for a paper."""

TABLES = (
    "data", "masks", "hyperparameters", "variants", "main", "comparisons", "metrics", "operating",
    "points", "prevalence", "calibration", "seeds", "split", "subgroups", "errors", "other_study",
    "classification", "provenance", "environments", "records", "focus", "literature",
    "audit_copies", "audit_balance",
)  # fmt: skip
FIGURES = (
    "roc", "precision_recall", "forest", "seeds", "reliability", "curves", "confusion", "saliency",
    "audit",
)  # fmt: skip
GALLERIES = ("gradcam", "masks", "mask_steps")
"""Figures that show images, which are not among the files that a study publishes."""
CHECKLISTS = ("claim2024", "tripod_ai")
COMPANIONS = (*(f"{name}.md" for name in CHECKLISTS), "model_card.md", "datasheet.md")
