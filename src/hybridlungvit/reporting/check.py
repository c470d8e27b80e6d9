"""The paper's check: a number that has drifted, or was never computed, stops the build."""

import logging
from collections.abc import Iterator

from hybridlungvit.config import Study
from hybridlungvit.errors import StudyError
from hybridlungvit.files import file_sha256, read_json, write_json
from hybridlungvit.paths import Layout
from hybridlungvit.provenance import TRAINING_CODE, code_sha256
from hybridlungvit.reporting.check_origins import check_figures, check_origins
from hybridlungvit.reporting.check_records import check_records
from hybridlungvit.reporting.check_results import check_results
from hybridlungvit.reporting.check_text import check_text
from hybridlungvit.reporting.pdf import paper_inputs
from hybridlungvit.reporting.problems import Problem
from hybridlungvit.reporting.readme import check_readme

log = logging.getLogger(__name__)


def check_paper(study: Study, layout: Layout, workers: int = 1) -> None:
    """Check a study's manuscript, generated files and PDF; write ``layout.check`` if all is well.

    Raises ``StudyError`` that lists every problem found, with its file and how to mend it.
    """
    layout.check.unlink(missing_ok=True)  # an earlier verdict must not outlive a problem
    checks = {
        "text": check_text(layout),
        "origins": check_origins(study, layout),
        "results": check_results(study, layout, workers),
        "records": check_records(study, layout),
        "figures": check_figures(study, layout),
        "document": check_document(layout),
        "readme": check_readme(study, layout),
    }
    problems = [problem for found in checks.values() for problem in _all(found)]
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise StudyError(
            "\n".join([f"the paper of {study.study} has {count}:", *map(str, problems)])
        )
    _compare_code(study, layout)
    write_json(layout.check, {"checked": list(checks), "inputs": paper_inputs(layout)})
    log.info("the paper of %s passed: %s", study.study, ", ".join(checks))


def _all(found: Iterator[Problem]) -> Iterator[Problem]:
    """A check's problems; an error that ends the check is the last of them."""
    try:
        yield from found
    except StudyError as error:
        yield Problem("the check stopped", str(error))


def check_document(layout: Layout) -> Iterator[Problem]:
    """A PDF that is older than what it was made from: its inputs are compared by content."""
    record = read_json(layout.pdf_record)
    current = paper_inputs(layout)
    if not layout.pdf.is_file():
        yield Problem(str(layout.pdf), "missing. Run `pdf`.")
    elif file_sha256(layout.pdf) != record["pdf"]:
        yield Problem(str(layout.pdf), "is not the PDF that was built last. Run `pdf` again.")
    for name in sorted({*current, *record["inputs"]}):
        if current.get(name) != record["inputs"].get(name):
            how = "changed" if name in current else "removed"
            yield Problem(str(layout.pdf), f"older than {name}, which was {how}. Run `pdf` again.")


def _compare_code(study: Study, layout: Layout) -> None:
    """Warn when the training code has changed since the runs: another comment, or another model."""
    current = code_sha256(*TRAINING_CODE)
    for variant in study.trained_variants():
        for seed in study.seeds:
            path = layout.run(variant, seed) / "run.json"
            recorded = read_json(path)["code_sha256"]
            if recorded != current:
                log.warning(
                    "%s: trained by code %s, which is now %s. The results are those of the former.",
                    path, recorded[:12], current[:12],
                )  # fmt: skip
