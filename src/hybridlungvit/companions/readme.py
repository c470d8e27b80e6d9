"""The results that open the README: generated from the records, and checked against them."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hybridlungvit.config import Study
from hybridlungvit.data.manifest import read_manifest, unit_of
from hybridlungvit.evaluation.paired import EQUIVALENT, HIGHER, LOWER, POWER, UNDECIDED
from hybridlungvit.io import StudyError, file_sha256, replacing, write_text
from hybridlungvit.paper.format import (
    enumerated,
    format_interval,
    number,
    p_value,
    short_verdict,
    signed,
)
from hybridlungvit.paper.manuscript import Problem
from hybridlungvit.paper.results import current_comparisons, current_metrics
from hybridlungvit.paths import Layout

README = Path("README.md")
BLOCK = re.compile(r"<!-- results: (?P<study>\S+) -->\n.*?<!-- end of results -->\n", re.DOTALL)
MARKED = re.compile(r"<!-- (?P<name>results|benchmarks)\b.*?<!-- end of (?P=name) -->", re.DOTALL)
RESULT = re.compile(r"(?<![\w.])(?:0?[.,]\d{2,}\b|\d{2}\.\d+\s*(?:%|percent))")
PICTURE, WIDTH = "preview.png", 900  # its file below paper/ and its width in pixels

PARTS = {
    "midline": ("the lung cut", "a cut at the image's centre"),
    "plain_deit": ("the fusion", "a linear head"),
    "global_only": ("the split into left and right", "the whole image on both sides"),
    "frozen_stem": ("fine-tuning", "a frozen stem"),
}
"""The part of the reference that a variant goes without, and what stands in its place."""


def write_readme(study: Study, layout: Layout) -> None:
    """Put a study's main table into its block of the README; the first block has the picture too.

    Raises ``StudyError`` when the README has no place for them or pdftoppm is missing.
    """
    text = README.read_text(encoding="utf-8")
    block, first = _block(text, study)
    if block is None:
        raise StudyError(
            f"{README}: has no lines `<!-- results: {study.study} -->` and "
            "`<!-- end of results -->` to write between. Add them."
        )
    if first:
        _draw_first_page(layout)
    fresh = render_block(study, layout, picture=first)
    write_text(README, text[: block.start()] + fresh + text[block.end() :])


def _block(text: str, study: Study) -> tuple[re.Match[str] | None, bool]:
    """The study's block of the README, and whether it is the first."""
    blocks = list(BLOCK.finditer(text))
    own = next((block for block in blocks if block["study"] == study.study), None)
    return own, blocks[:1] == [own]


def check_readme(study: Study, layout: Layout) -> Iterator[Problem]:
    """Results in the README that are not this study's, or that stand outside the marked lines."""
    if not README.is_file():
        return
    text = README.read_text(encoding="utf-8")
    block, first = _block(text, study)
    if block and block[0] != (right := render_block(study, layout, picture=first)):
        stored, fresh = block[0].splitlines(), right.splitlines()
        wrong = next((line for line in stored if line not in fresh), "a line is missing")
        command = f"`hybridlungvit readme --study {study.study}`"
        yield Problem(str(README), f"differs from the results: {wrong!r}. Run {command}.")
    outside = MARKED.sub(lambda marked: re.sub(r"[^\n]", " ", marked[0]), text)
    for typed in RESULT.finditer(outside):
        line = outside.count("\n", 0, typed.start()) + 1
        what = f"the result {typed[0]} is typed by hand. Leave it to the marked lines."
        yield Problem(f"{README}:{line}", what)


def render_block(study: Study, layout: Layout, picture: bool) -> str:
    """The marked lines: the answer, the picture, the declared comparisons, what intervals cover."""
    level = f"{100 * study.statistics.level:g} %"
    comparisons = current_comparisons(study, layout)
    lines = [f"<!-- results: {study.study} -->"]
    family = study.comparison_family()
    # In the order of the answer above the table.
    ranked = sorted(family, key=lambda v: [*PARTS].index(v) if v in PARTS else len(PARTS))
    declared = {v: comparisons["differences"][v] for v in ranked}
    if sentence := answer(declared):
        lines += [sentence, ""]
    if picture:
        macros = layout.generated / "macros.tex"  # holds every number that the picture shows
        digest = file_sha256(macros)[:16] if macros.is_file() else "missing"
        lines += [
            f"<!-- picture of the paper with the numbers {digest} -->",
            f"![First page of the paper]({layout.paper / PICTURE})",
            "",
        ]
    lines += [
        f"| {study.title} | test AUC ({level} CI) | control minus reference ({level} CI) | "
        "p of a difference (Holm) |",
        "| --- | --- | --- | --- |",
    ]
    for name in (study.reference, *ranked):
        auc = format_interval(current_metrics(study, name, layout)["headline"]["auc"])
        cells = [f"{study.variants[name].label} (`{name}`)", auc, "reference", ""]
        if name in declared:
            difference = declared[name]
            verdict = short_verdict(difference["verdict"])
            cells[2] = f"{format_interval(difference, show=signed)}, {verdict}"
            cells[3] = p_value(difference["p_value_adjusted"], "<0.001")
        lines.append(f"| {' | '.join(cells)} |")
    reference = current_metrics(study, study.reference, layout)
    unit = unit_of(read_manifest(layout.manifest))
    patients = f" of {reference['patients']:,} patients" if unit == "patient" else ""
    covered = f"{unit}s" if len(study.seeds) == 1 else f"{unit}s and seeds"
    seeds = "1 seed" if len(study.seeds) == 1 else f"{len(study.seeds)} seeds"
    sd = reference["headline"]["auc"]["sd"]
    spread = f"; the reference's seeds have a standard deviation of {number(sd)}"
    others = len(study.variants) - len(family) - 1
    plural = "s" if others > 1 else ""
    elsewhere = f" The paper explores {others} more variant{plural}, unadjusted." if others else ""
    verdicts = {difference["verdict"] for difference in declared.values()}
    margin = f"{study.statistics.margin:g}"
    undecided = f"Undecided: neither a difference nor equivalence within {margin} is shown. "
    lines += [
        "",
        f"Mean over {seeds} on {reference['images']:,} test images{patients}; "
        f"intervals are over {covered}{'' if sd is None else spread}. "
        f"{undecided if UNDECIDED in verdicts else ''}These verdicts are adjusted "
        f"for the number of comparisons; the intervals are not.{elsewhere}",
    ]
    return "\n".join([*lines, "<!-- end of results -->"]) + "\n"


def answer(differences: dict[str, Any]) -> str:
    """What each part of the reference is worth, in a sentence; empty where none was left out.

    ``differences``: of a study's declared comparisons, by variant. As they are variant minus
    reference, a variant that is lower speaks for the part. The least true difference that the study
    would have found stands behind, unless a single seed leaves it unknown.
    """
    clauses, detectable = [], []
    alike = {differences[v]["verdict"] for v in PARTS if v in differences} == {EQUIVALENT}
    alike &= "midline" in differences  # the README asks about the lungs
    for variant, (part, instead) in PARTS.items():
        if variant not in differences:
            continue
        difference = differences[variant]
        words = {
            LOWER: "**better** than",
            HIGHER: "**worse** than",
            EQUIVALENT: f"**equivalent** (within {difference['margin']:g}) to",
            UNDECIDED: "**undecided** against",
        }[difference["verdict"]]
        clause = f"{part} {'' if clauses else 'is '}{words} {instead}"
        clauses.append(f"{instead} in place of {part}" if alike else clause)
        if difference["detectable"] is not None:
            detectable.append(number(difference["detectable"]))
    if not clauses:
        return ""
    bounded = any(difference.get("at_bound") for difference in differences.values())
    optimistic = "; optimistic where a variance is estimated as zero" if bounded else ""
    sentence = f"On this test set {'; '.join(clauses)}."
    if alike:
        sentence = (
            "**No**, as far as this test set can tell. The full model is **equivalent**, within "
            f"{difference['margin']:g} of AUC, to the control with {'; with '.join(clauses)}."
        )
    if detectable:
        several = len(detectable) > 1
        sentence += (
            f" The smallest difference{'s' if several else ''} in AUC that the study can detect "
            f"{'are' if several else 'is'} {enumerated(detectable)} ({100 * POWER:g} % power, "
            f"unadjusted{optimistic})."
        )
    return sentence


def _draw_first_page(layout: Layout) -> None:
    program = shutil.which("pdftoppm")
    if program is None:
        raise StudyError("pdftoppm: not found; it draws the picture. Install poppler-utils.")
    with replacing(layout.paper / PICTURE) as temporary:
        # pdftoppm adds the suffix itself.
        command = [program, "-png", "-singlefile", "-scale-to-x", str(WIDTH), "-scale-to-y", "-1",
                   str(layout.pdf), str(temporary.with_suffix(""))]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise StudyError(f"{layout.pdf}: pdftoppm failed: {done.stderr.strip()}")
