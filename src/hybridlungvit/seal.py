"""The seal of a study: checksums of the results that are not computed again for the paper."""

import re
from pathlib import Path

from hybridlungvit.config import Study
from hybridlungvit.explain.cases import focus_variants
from hybridlungvit.io import StudyError, file_sha256, read_json, write_text
from hybridlungvit.paper.contents import GALLERIES
from hybridlungvit.paths import Layout
from hybridlungvit.provenance import code_sha256

LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def sealed_files(study: Study, layout: Layout) -> list[Path]:
    """What the paper takes as it is: it came from images, from weights or from a training."""
    files = [layout.manifest, layout.mask_table, layout.mask_quality, layout.leaks, layout.audit]
    trained = study.trained_variants()
    for seed in study.seeds:
        for variant in trained:
            run = layout.run(variant, seed)
            files += [run / name for name in ("run.json", "history.csv", "timing.csv")]
        for variant in study.variants:
            table = layout.predictions(variant, seed)
            files += [table, table.with_suffix(".json")]
    for variant in focus_variants(study):
        rows = layout.focus(variant)
        files += [rows, rows.with_suffix(".json")]
    files.append(layout.saliency(study.reference))
    files += [layout.generated / "figures" / f"{name}.pdf" for name in GALLERIES]
    benchmark = layout.generated / "tables" / "mask_benchmark.tex"
    annotated = study.data.source == "phantom" or study.data.annotations is not None
    if study.data.masks is None and (annotated or benchmark.is_file()):
        files.append(benchmark)
    return files


def write_seal(study: Study, layout: Layout) -> None:
    """Write ``layout.seal`` for ``sha256sum -c`` in the folder that holds results/ and paper/.

    Raises ``StudyError`` for a file that is missing.
    """
    lines = []
    for path in sealed_files(study, layout):
        if not path.is_file():
            raise StudyError(f"{path}: not found, so the study cannot be sealed. Finish it first.")
        lines.append(f"{file_sha256(path)}  {path.as_posix()}")
    write_text(layout.seal, "\n".join(sorted(lines, key=lambda line: line[64:])) + "\n")


def check_seal(study: Study, layout: Layout) -> None:
    """Raise ``StudyError`` naming every sealed file that is missing, altered or not sealed."""
    if not layout.seal.is_file():
        raise StudyError(
            f"{layout.seal}: not found. A study writes it at its end: finish the study, or, for "
            "results of another version, look at them and call `hybridlungvit seal`."
        )
    lines = layout.seal.read_text(encoding="utf-8", errors="replace").splitlines()
    entries = [LINE.fullmatch(line) for line in lines]
    if None in entries:
        number = entries.index(None) + 1
        raise StudyError(
            f"{layout.seal}: line {number} is none of `sha256sum`. Restore the file, or finish the "
            "study again."
        )
    recorded = {entry[2]: entry[1] for entry in entries if entry}
    wrong = []
    for path in sealed_files(study, layout):
        if not path.is_file():
            wrong.append(f"{path}: missing")
        elif path.as_posix() not in recorded:
            wrong.append(f"{path}: not sealed")
        elif file_sha256(path) != recorded[path.as_posix()]:
            wrong.append(f"{path}: altered")
    if wrong:
        listed = "\n".join(wrong)
        raise StudyError(
            f"{layout.seal}: {len(wrong)} of {len(recorded)} results are not those that the study "
            f"ended with. Restore them, or finish the study again.\n{listed}"
        )


def check_runs(study: Study, layout: Layout) -> None:
    """Raise ``StudyError`` naming every training that this code and config would repeat."""
    current = {"config_sha256": "", "code_sha256": code_sha256("train"),
               "manifest_sha256": file_sha256(layout.manifest)}  # fmt: skip
    outdated = []
    for variant in study.trained_variants():
        current["config_sha256"] = study.training_hash(variant)
        for seed in study.seeds:
            path = layout.run(variant, seed) / "run.json"
            record = read_json(path)
            outdated += [
                f"{path}: {key.removesuffix('_sha256')} {record[key][:12]}, now {digest[:12]}"
                for key, digest in current.items()
                if record[key] != digest
            ]
    if outdated:
        listed = "\n".join(outdated)
        raise StudyError(
            f"{layout.root}: {len(outdated)} runs were made otherwise than they would be now. "
            "Restore that code, config or manifest; or remove these runs, to have them trained "
            f"again.\n{listed}"
        )
