"""Captions of the HTML report: one for each result, and none with a typed number.

Those of tables and figures are the docstrings of their functions: see tests/paper/test_tables.py.
"""

import pytest
from conftest import REPOSITORY

from hybridlungvit.companions.checklists import typed_numbers
from hybridlungvit.paper.contents import COMPANIONS

CAPTIONS = REPOSITORY / "workflow" / "report"
EXPECTED = {
    "tables": {"mask_benchmark"},
    "companions": {name.partition(".")[0] for name in COMPANIONS},
    "metrics": {"metrics", "comparisons", "audit", "audit_results", "mask_quality"},
    "paper": {"paper"},
}


@pytest.mark.parametrize("category", EXPECTED)
def test_every_result_has_a_caption_and_every_caption_a_result(category):
    assert {path.stem for path in (CAPTIONS / category).glob("*.rst")} == EXPECTED[category]


@pytest.mark.parametrize("path", sorted(CAPTIONS.rglob("*.rst")), ids=lambda path: path.stem)
def test_no_caption_has_a_typed_number(path):
    text = path.read_text()
    assert len(text.split()) > 3
    assert typed_numbers(text) == []
