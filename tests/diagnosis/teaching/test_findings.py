"""What the numbers say, and the page that shows them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from openbook.diagnosis.noise import paired
from openbook.diagnosis.teaching.asking import Told
from openbook.diagnosis.teaching.fact_arms import FactArm
from openbook.diagnosis.teaching.findings import (
    ALLEN_ZHU,
    GEKHMAN,
    NO_SKILL,
    OVADIA,
    SKILL,
    best,
    difference,
    fact_findings,
    mean_of,
    points,
    skill_findings,
)
from openbook.diagnosis.teaching.page import Measured, fact_rows, skill_rows, to_json, write_results
from openbook.diagnosis.teaching.plot import facts_legend, facts_svg, skills_svg
from openbook.diagnosis.teaching.seams import NOT_MEASURED, Cost
from openbook.diagnosis.teaching.skill_arms import SkillArm

N = 20
EVIL = "<script>alert(1)</script>\x00"


def fact_arm(remedy: str, recall: float, form: str = "", exposures: int = 0, known: float = 1.0) -> FactArm:
    scores = [1.0] * round(N * recall) + [0.0] * round(N * (1 - recall))
    kept = [1.0] * round(N * known) + [0.0] * round(N * (1 - known))
    left = scores if remedy != "retrieval" else [0.0] * N
    cost = Cost(exposures * 2.0, exposures * 4.0) if remedy == "training" else Cost(0.2, 0.3)
    said = [Told(EVIL, EVIL, 0.0, 0.1)]
    known_after, reading = ([], []) if remedy == "retrieval" else (kept, [1.0, 0.0])
    return FactArm(remedy, "base", scores, left, known_after, reading, cost, 0.1, said, form, exposures)


def outcomes(arms: list[FactArm]) -> dict[str, str]:
    return {finding.claim: finding.outcome for finding in fact_findings(arms)}


def test_the_difference_is_that_of_agresti_and_min() -> None:
    ones = [1.0, 1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0, 0.0]
    found, expected = difference(*ones), paired(2, 1, 5)
    assert (found.mean, found.low, found.high) == pytest.approx((expected.mean, expected.low, expected.high))
    assert difference([1.0] * 5, [1.0] * 5).high > 0.2  # nothing differs, and five cases prove little
    assert difference([], []).n == 0
    with pytest.raises(ValueError, match="shorter"):
        difference([1.0], [])


def test_what_was_found_is_confirmed_or_contradicted_or_left_open() -> None:
    arms = [
        fact_arm("none", 0.0),
        fact_arm("retrieval", 0.9),
        fact_arm("training", 0.1, "verbatim", 10),
        fact_arm("training", 0.6, "paraphrased", 10, known=0.5),
    ]
    assert outcomes(arms) == {OVADIA: "confirmed", ALLEN_ZHU: "confirmed", GEKHMAN: "confirmed"}
    arms = [
        fact_arm("none", 0.0),
        fact_arm("retrieval", 0.2),
        fact_arm("training", 0.9, "verbatim", 10),
        fact_arm("training", 0.3, "paraphrased", 10),
    ]
    assert outcomes(arms) == {OVADIA: "contradicted", ALLEN_ZHU: "contradicted", GEKHMAN: "not decided"}
    same = [fact_arm("retrieval", 0.5), *(fact_arm("training", 0.5, f, 3) for f in ("verbatim", "paraphrased"))]
    assert outcomes(same) == {OVADIA: "not decided", ALLEN_ZHU: "not decided", GEKHMAN: "not decided"}


def test_one_exposure_says_nothing_about_paraphrases() -> None:
    arms = [fact_arm("training", share, form, 1) for share, form in ((0.9, "paraphrased"), (0.1, "verbatim"))]
    assert outcomes(arms)[ALLEN_ZHU] == "no data"
    assert outcomes([fact_arm("none", 0.0)]) == {ALLEN_ZHU: "no data", GEKHMAN: "no data"}


def skill_arm(model: str, given: str, right: float) -> SkillArm:
    return SkillArm("adding", model, given, [1.0] * round(N * right) + [0.0] * round(N * (1 - right)), [])


def test_skills() -> None:
    arms = [
        skill_arm("base", "passage", 0.1),
        skill_arm("base", "guide", 0.15),
        skill_arm("base", "documents", 0.1),
        skill_arm("trained", "passage", 0.9),
        skill_arm("trained", "documents", 0.85),
    ]
    found = skill_findings(arms)
    assert [(finding.claim, finding.outcome) for finding in found] == [
        (NO_SKILL, "no data"),
        (SKILL, "confirmed"),
        (SKILL, "confirmed"),
    ]
    assert "15 %" in found[0].seen
    assert "Not measured" in skill_findings(arms[:1])[0].seen
    assert skill_findings([]) == []


def test_shares_and_rows() -> None:
    assert points(mean_of([0.5, 0.5])) == "50 % [9, 91]"
    assert points(mean_of([])) == "no data"
    assert points(difference([1.0] * 30, [0.0] * 30), signed=True).startswith("+100 % [+")
    heads, rows = fact_rows(
        [fact_arm("none", 0.0), fact_arm("retrieval", 1.0), fact_arm("training", 0.5, "verbatim", 3)]
    )
    assert [row[0] for row in rows] == [
        "the base alone",
        "retrieval, the base reads",
        "training, verbatim, 3 exposures",
    ]
    assert rows[1][heads.index("known facts")] == "as the base"
    assert rows[2][heads.index("CPU-s a fact")] == "0.60"
    measured = replace(fact_arm("training", 0.5, "verbatim", 3), cost=Cost(1.0, 2.0, 1912.3), asking_mb=401.7)
    heads, rows = fact_rows([fact_arm("none", 0.0), measured])
    columns = [heads.index(head) for head in ("MB to teach", "MB to ask")]
    assert [[row[column] for column in columns] for row in rows] == [["", ""], ["1,912", "402"]]


def test_a_cost_that_was_not_measured_is_not_0(tmp_path: Path) -> None:
    lost, older = (
        replace(fact_arm("training", 0.8, form, 10), cost=cost)
        for form, cost in (("verbatim", NOT_MEASURED), ("paraphrased", Cost(0.0, 0.0)))
    )
    priced, skill = (
        fact_arm("training", 0.5, "verbatim", 3),
        replace(skill_arm("trained", "passage", 0.9), cost=lost.cost),
    )
    arms = [fact_arm("none", 0.0), fact_arm("retrieval", 0.9), priced, lost, older]
    heads, rows = fact_rows(arms)
    for head in ("seconds a fact", "CPU-s a fact"):
        assert [row[heads.index(head)] == "not measured" for row in rows] == [False, False, False, True, True]
    heads, rows = skill_rows([skill_arm("base", "passage", 0.1), skill])
    assert [row[heads.index("CPU-s of training")] for row in rows] == ["", "not measured"]
    assert "for a cost that was not measured. After deletion" in fact_findings(arms)[0].seen
    dear = replace(lost, cost=Cost(1.0, 9.0))
    assert best([lost, dear, older], "training") == dear

    root = ElementTree.fromstring(facts_svg(arms))
    assert [each.text for each in root.findall("text") if "×" in str(each.text)] == ["3×"]
    assert "training, verbatim, 10 exposures; training, paraphrased, 10 exposures" in facts_legend(arms)
    assert facts_svg([lost, older]) == ""
    assert "not shown" not in facts_legend(arms[:3])

    write_results(tmp_path, Measured({}, arms, [skill]))
    value = json.loads((tmp_path / "price.json").read_text())
    assert [arm["cost"]["cpu_seconds"] for arm in value["facts"][2:] + value["skills"]] == [12.0, None, None, None]
    assert "not measured</" in (tmp_path / "price.html").read_text()


def test_figures_are_well_formed_and_show_every_way() -> None:
    arms = [
        fact_arm("none", 0.0),
        fact_arm("retrieval", 0.9),
        *(fact_arm("training", 0.1 * k, "verbatim", k) for k in (1, 3, 10)),
    ]
    root = ElementTree.fromstring(facts_svg(arms))
    assert len(root.findall("circle")) == 3
    assert len(root.findall("polygon")) == 1
    labels = {each.text for each in root.findall("text")}
    assert {"3×", "10×"} <= labels
    assert "1×" not in labels  # so low, the points of all forms lie on each other
    assert facts_svg(arms[:1]) == ""
    heights = [float(each.attrib["cy"]) for each in root.findall("circle")]
    assert heights == sorted(heights, reverse=True)  # more recall is further up
    bars = ElementTree.fromstring(skills_svg([skill_arm("base", "passage", 0.1), skill_arm("trained", "passage", 0.9)]))
    few, many = (float(each.attrib["width"]) for each in bars.findall("rect"))
    assert few < many


def test_the_page_needs_nothing_else_and_escapes_what_was_said(tmp_path: Path) -> None:
    arms = [fact_arm("none", 0.0), fact_arm("retrieval", 0.9), fact_arm("training", 0.5, "verbatim", 3)]
    measured = Measured({"taught": EVIL}, arms, [skill_arm("base", "passage", 0.1)], ("facts-x",), (EVIL,))
    write_results(tmp_path, measured)
    page = (tmp_path / "price.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\x00" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert "Left out, because the time was too short: facts-x" in page
    value = json.loads((tmp_path / "price.json").read_text())
    assert value == json.loads(json.dumps(to_json(measured)))
    assert value["findings"][0]["outcome"] == "confirmed"
