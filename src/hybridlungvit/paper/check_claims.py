"""The check for claims: words that say one thing is better need the comparison that says so."""

import re
from collections.abc import Iterator

from hybridlungvit.evaluation.paired import NEITHER
from hybridlungvit.paths import Layout
from hybridlungvit.paper.manuscript import (
    OF_DIFFERENCE,
    OF_VARIANT,
    Problem,
    Source,
    bibliography_keys,
    cited_keys,
    commands,
    group_end,
    paragraph,
    read_source,
)

CLAIM = re.compile(
    r"\b(?:significan\w*(?!\s+(?:digit|level|figure))|outperform\w*|improvements?\b|improves?\b"
    r"|improved\s+(?:the|on|upon|over|by)\b|superior(?:ity|\s+(?:to|performance))|surpass\w*"
    r"|state[-\s]of[-\s]the[-\s]art|SOTA|(?<!no\s)better[~\\\s]+than|worse[~\\\s]+than"
    r"|beat(?:s|ing)?\s+(?:the|DeiT|it|all)|enhanc(?:es|ed|ement)|non-?inferior\w*"
    r"|on\s+par\s+with)\b",
    re.IGNORECASE,
)
COMPARED = re.compile(r"\\(?:difference|verdict|ifverdict)\b|\\given\{[\w.]*(?:verdict|price)\}")
NEGATED = re.compile(r"\b(?:no|not|nor|neither|cannot|whether)\b", re.IGNORECASE)
OWN = re.compile(r"\\(?:result|referenceresult|variantname)\b|HybridLungViT|\b(?:we|our)\b", re.I)
SENTENCE_END = re.compile(r"(?<!vs)(?<!cf)(?<!i\.e)(?<!e\.g)(?<!Fig)(?<!al)[.!?][)}]*\s")


def check_claims(layout: Layout, sources: list[Source]) -> Iterator[Problem]:
    """Claims without a comparison or against its verdict, and values of another variant.

    A claim may stand in the branches of ``\\ifverdict`` for a difference, in a sentence with the
    ``\\difference`` or ``\\verdict`` of a variant that is distinguishable, or beside the citation
    of the work whose claim it is.
    """
    made = read_source(layout.generated / "macros.tex")
    verdicts = {c.arguments[0]: c.arguments[4] for c in commands(made, ("setdifference",), 5)}
    keys = bibliography_keys(layout.paper)
    for source in sources:
        yield from _claims(source, verdicts, keys)
        yield from _confused(source)


def _claims(source: Source, verdicts: dict[str, str], keys: set[str]) -> Iterator[Problem]:
    guarded = [_branches(source, found.end) for found in commands(source, ("ifverdict",))]
    for found in CLAIM.finditer(source.text):
        where = source.place(found.start())
        if any(start <= found.start() < end for start, end in guarded):
            continue
        sentence = _sentence(source, found.start())
        if not COMPARED.search(sentence):
            cited = cited_keys(sentence)
            if not cited or not cited <= keys or OWN.search(sentence):
                yield Problem(
                    where,
                    f"{found[0]!r} claims a difference without its comparison. Add \\difference or "
                    "\\verdict to the sentence, choose it with \\ifverdict, or cite whose claim it "
                    "is.",
                )
            continue
        inside = Source(source.path, sentence)
        names = {c.arguments[0] for c in commands(inside, OF_DIFFERENCE)} & set(verdicts)
        empty = names and all(verdicts[name] == NEITHER for name in names)
        if empty and not NEGATED.search(sentence):
            yield Problem(
                where,
                f"{found[0]!r} is claimed, but {', '.join(sorted(names))} is {NEITHER} the "
                "reference. Choose the words with \\ifverdict.",
            )


def _branches(source: Source, end: int) -> tuple[int, int]:
    """Start and end of the two branches for a difference, behind ``\\ifverdict{variant}``."""
    start = end
    for _ in range(2):
        opening = re.compile(r"\s*\{").match(source.text, end)
        end = (opening and group_end(source.text, opening.end() - 1)) or end
    return start, end


def _sentence(source: Source, position: int) -> str:
    first, last = paragraph(source, position)
    ends = [first + m.end() for m in SENTENCE_END.finditer(source.text[first:last])]
    cuts = [first, *ends, last]
    place = max(i for i, cut in enumerate(cuts[:-1]) if cut <= position)
    return source.text[cuts[place] : cuts[place + 1]]


def _confused(source: Source) -> Iterator[Problem]:
    """Words for one variant that print values of another: a slip of copying."""
    for found in commands(source, ("ifcompared",), 2):
        variant, inner = found.arguments[0], Source(source.path, found.arguments[1])
        named = {c.arguments[1] for c in commands(inner, OF_VARIANT, 2)}
        single = (*OF_DIFFERENCE, "variantname", "variantdescription")
        named |= {c.arguments[0] for c in commands(inner, single)}
        for other in sorted(named - {variant}):
            yield Problem(
                source.place(found.start),
                f"the words for {variant!r} print values of {other!r}. Name one variant in them.",
            )
