"""What does a fact cost, taught by training or given as a document? And a skill? See README.md in this folder.

python -m studies.price_of_a_fact OUT
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

from studies.price_of_a_fact.experiment import Plan, lab_in, run
from studies.price_of_a_fact.report import figure, tables
from studies.price_of_a_fact.skills import invented_skills


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="Folder for models, measurements and results; the same again continues.")
    out, plan = parser.parse_args().out.absolute(), Plan()
    skills = invented_skills(plan.learned, plan.tests, plan.seed)
    arms = run(out, plan, skills, lab_in(out, plan.seed))
    numbers = [asdict(replace(arm, said={})) for arm in arms]  # every answer is in OUT/arms
    (out / "results.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    (out / "price.svg").write_text(figure(arms, [skill.name for skill in skills]), encoding="utf-8")
    print(tables(arms))


if __name__ == "__main__":
    main()
