"""`openbook diagnose teach`: what a fact costs by training and by retrieval, and what a skill costs."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openbook.errors import ConfigError

if TYPE_CHECKING:
    from openbook.config import Settings
    from openbook.diagnosis.probes import Probe
    from openbook.diagnosis.teaching.fact_arms import FactPlan
    from openbook.diagnosis.teaching.facts import Fact
    from openbook.diagnosis.teaching.jobs import Job
    from openbook.diagnosis.teaching.page import Measured
    from openbook.diagnosis.teaching.seams import Progress, Seams
    from openbook.diagnosis.teaching.skill_arms import SkillPlan
    from openbook.models import ModelReference

MOST_EXPOSURES = 10_000


@click.command()
@click.option("--facts", "count", type=int, default=20, show_default=True, help="How many facts; 0: none.")
@click.option("--from", "source", type=click.Path(path_type=Path), help="Facts of this file (default: invented ones).")
@click.option("--exposures", default="1,3,10,30,100", show_default=True, help="How often a fact is learned.")
@click.option("--forms", default="verbatim,paraphrased", show_default=True, help="Also: questions (and answers).")
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, 1, min_open=True),
    default=3e-4,
    show_default=True,
    help="Of facts, at the beginning; higher learns more and loses more of what was known.",
)
@click.option("--known", type=click.IntRange(0), default=40, show_default=True, help="Known facts that are asked.")
@click.option("--reading", type=click.IntRange(0), default=20, show_default=True, help="Passages that are read.")
@click.option("--skills", help="Also: adding. Empty: none.  [default: ordering,labelling, or the one of --skill-file]")
@click.option("--skill-file", type=click.Path(path_type=Path), help="A task of yours: passages with questions.")
@click.option("--guide", type=click.Path(path_type=Path), help="A text that says how the task of --skill-file is done.")
@click.option("--skill-examples", type=click.IntRange(1), default=200, show_default=True, help="To learn a skill from.")
@click.option("--skill-tests", type=click.IntRange(1), default=30, show_default=True, help="To measure it with.")
@click.option("--base", help="The model that is taught (default: the one that --model was made of).")
@click.option("--model", help="The model that reads what is found, besides the base.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Other facts and examples.")
@click.option("--budget-minutes", type=click.FloatRange(0, min_open=True), help="Leave out what would take longer.")
@click.option("--dry-run", is_flag=True, help="Say what would be done and how long it takes.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the results (default: in OpenBook's home).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def teach(
    source: Path | None, base: str | None, out: Path | None, as_json: bool, dry_run: bool, **options: Any
) -> None:
    """Measure what a fact costs by training and by retrieval, and what a skill costs.

    \b
    The same facts are taught to the base by training, once and often, and added
    as documents. Asked are questions in wordings that were not taught; measured
    is also what it costs, what becomes of facts that were known, and what is
    left when everything is deleted. A skill is measured on tasks whose facts
    all stand in the passage.

    --from takes questions of `openbook diagnose` whose gold has the quote that
    states the fact, fictional_knowledge.json, or TOFU's questions as JSON Lines.
    --skill-file takes what `openbook train` takes for a reader: JSON Lines with
    title, passage and questions; a question should name its passage's title, so
    that it can be found.

    What was measured is kept: a run that was stopped goes on with the same
    command, and one with more exposures does only what is new. Needs
    pip install "openbook[train]".
    """  # noqa: D301  click keeps the lines after this control character as they are
    from openbook.cli import display, session
    from openbook.cli.train import check_installed
    from openbook.diagnosis.teaching.page import to_json, write_results
    from openbook.diagnosis.teaching.taught import add_taught

    check_installed()
    current = session.settings(model=options.pop("model"), kv_disk=0)
    if current.base_url:
        raise ConfigError("A model behind --base-url cannot be taught. Unset base_url and choose a stored --model.")
    facts, notes = _facts(options.pop("count"), source, options["seed"])
    skills, more = _skills(options)
    folder = (out or current.diagnoses_dir / _name(facts, skills)).absolute()
    reader, taught = _models(current, base)
    with session.add_progress() as progress:
        seams = seams_of(current, reader, taught, folder, options["seed"], progress)
        work = _work(facts, skills, options, seams)
        _announce(work, folder, options["budget_minutes"])
        if dry_run:
            return
        add_taught(folder, _taught(facts, work.skills))
        about = _about(reader, taught, work, source)
        measured = _measured(work, folder, options["budget_minutes"], [*notes, *more], about)
    write_results(folder, measured)
    if as_json:
        display.print_json({**to_json(measured), "folder": str(folder)})
    else:
        from openbook.cli.display_teaching import print_measured

        print_measured(measured, folder)


@dataclass(frozen=True, slots=True)
class _Work:
    facts: FactPlan | None
    skills: tuple[SkillPlan, ...]
    seams: Seams

    @property
    def jobs(self) -> list[Job]:
        """All that is to be done."""
        from openbook.diagnosis.teaching.fact_arms import first_job

        if self.facts is None:
            return self.skill_jobs
        return [first_job(self.facts, self.seams), *self.guessed_jobs(self.facts), *self.skill_jobs]

    def guessed_jobs(self, facts: FactPlan) -> list[Job]:
        """What follows the base alone, as if that answered all known facts that are wanted."""
        from openbook.diagnosis.teaching.fact_arms import other_jobs

        return other_jobs(facts, facts.known[: facts.most_known], self.seams)

    @property
    def skill_jobs(self) -> list[Job]:
        from openbook.diagnosis.teaching.skill_arms import skill_jobs

        return [job for plan in self.skills for job in skill_jobs(plan, self.seams)]


def _facts(count: int, source: Path | None, seed: int) -> tuple[list[Fact], list[str]]:
    """(the facts, what is to be said of them). Raises ConfigError, StorageError."""
    from openbook.diagnosis.teaching.fact_files import load_facts
    from openbook.diagnosis.teaching.facts import generated
    from openbook.knowledge.discovery import check_exists

    if source is None:
        return (generated(count, seed) if count else []), []
    check_exists(source)
    if count < 1:
        raise ConfigError(f"--facts must be at least 1 with --from, not {count}.")
    found = load_facts(source, count)
    notes = [f"{len(found.facts)} facts of {source.name}, {count} were asked for."] if len(found.facts) < count else []
    if found.left_out:
        notes.append(f"Left out, because they state no fact that can be taught: {found.left_out} of {source.name}.")
    if any(len(fact.statements) == 1 for fact in found.facts):
        notes.append("The file gives no paraphrases; those of the form paraphrased were made by rule.")
    return found.facts, notes


def _skills(options: Mapping[str, Any]) -> tuple[list[SkillPlan], list[str]]:
    """(what is to be measured, what is to be said of it). Raises ConfigError, StorageError."""
    from openbook.diagnosis.teaching.skill_arms import SkillPlan
    from openbook.diagnosis.teaching.skill_files import load_skill
    from openbook.diagnosis.teaching.tasks import chosen, examples
    from openbook.knowledge.discovery import check_exists

    source, guide = options["skill_file"], options["guide"]
    if guide and not source:
        raise ConfigError("--guide says how the task of --skill-file is done. Give that file too.")
    named = options["skills"]
    skills = chosen(_words(("" if source else "ordering,labelling") if named is None else named))
    notes = []
    if source:
        check_exists(source)
        own = load_skill(source, guide)
        skills.append(own.skill)
        if own.left_out:
            notes.append(
                f"Left out of {source.name}, because unanswered, too long or there twice: {own.left_out} questions."
            )
    plans = []
    for skill in skills:
        learned, measured = examples(skill, options["skill_examples"], options["skill_tests"], options["seed"])
        plans.append(SkillPlan(skill, len(learned), len(measured), seed=options["seed"]))
        if len(learned) < options["skill_examples"]:
            notes.append(
                f"{skill.name}: {len(learned)} examples to learn from, {options['skill_examples']} were asked for."
            )
    return plans, notes


def _models(current: Settings, base: str | None) -> tuple[ModelReference, ModelReference]:
    """(what reads, what is taught). Raises ConfigError for a base that cannot be."""
    from openbook.cli import session

    reader = session.ready_model(current, current.model)
    taught = session.ready_model(current, base) if base else reader.base or reader
    if taught.manifest.kind != "language-model":
        raise ConfigError(
            f"{taught.name} is an {taught.manifest.kind}, which cannot be taught. Choose a language model with --base."
        )
    return reader, taught


def _work(facts: Sequence[Fact], skills: Sequence[SkillPlan], options: Mapping[str, Any], seams: Seams) -> _Work:
    from openbook.diagnosis.gate import load_sets
    from openbook.diagnosis.teaching.fact_arms import FactPlan
    from openbook.diagnosis.teaching.lessons import checked_forms

    seed = options["seed"]
    exposures, forms = checked_exposures(options["exposures"]), checked_forms(_words(options["forms"]), facts)
    if not facts:
        if not skills:
            raise ConfigError("Nothing is to be measured: give --facts, --skills or --skill-file.")
        return _Work(None, tuple(skills), seams)
    sets = load_sets()
    known = _drawn(sets.known, len(sets.known) if options["known"] else 0, seed)
    by_passage = {probe.passage: probe for probe in reversed(sets.reading) if probe.answers}
    reading = _drawn(list(by_passage.values()), options["reading"], seed)
    plan = FactPlan(tuple(facts), exposures, forms, known, options["known"], reading, seed, options["learning_rate"])
    return _Work(plan, tuple(skills), seams)


def _drawn(probes: Sequence[Probe], count: int, seed: int) -> tuple[Probe, ...]:
    order = sorted(probes, key=lambda probe: (probe.title, probe.question))
    random.Random(seed).shuffle(order)  # noqa: S311  an order, not a secret
    return tuple(order[:count])


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def checked_exposures(text: str) -> tuple[int, ...]:
    """`1,3,10` as numbers, each once, the smallest first. Raises ConfigError."""
    words = _words(text)
    if not words or not all(word.isdecimal() and 1 <= int(word) <= MOST_EXPOSURES for word in words):
        raise ConfigError(
            f"--exposures must be numbers from 1 to {MOST_EXPOSURES} with commas between them, such as 1,3,10, not {text!r}."
        )
    return tuple(sorted({int(word) for word in words}))


def seams_of(
    current: Settings, reader: ModelReference, taught: ModelReference, folder: Path, seed: int, progress: Progress
) -> Seams:
    """The real ones. The base is linked into a store of the run's own, where what is trained goes as well."""
    from openbook.cli import session
    from openbook.cli.training_process import ProcessTrainer
    from openbook.diagnosis.teaching.seams import Seams
    from openbook.inference import FrozenModel, load_model
    from openbook.models import ModelStore

    store = ModelStore(folder / "models")
    sizes = session.engine_sizes(current)

    def opener(reference: ModelReference) -> Callable[[], FrozenModel]:
        return lambda: load_model(reference, **sizes)

    return Seams(
        trainer=ProcessTrainer(store, taught, folder / "training", current.threads, seed),
        base=taught.digest,
        reader=reader.digest,
        open_base=opener(taught),
        open_reader=None if reader.digest == taught.digest else opener(reader),
        open_trained=lambda digest: load_model(store.resolve(digest), **sizes),
        embedder=session.open_embedder(current),
        progress=progress,
    )


def _announce(work: _Work, folder: Path, budget: float | None) -> None:
    from openbook.diagnosis.teaching.jobs import kept

    jobs = work.jobs
    missing = [job for job in jobs if kept(job, folder) is None]
    minutes = sum(job.seconds for job in missing) / 60
    done = f", {len(jobs) - len(missing)} of them measured before" if len(missing) < len(jobs) else ""
    limit = f", of which {budget:g} may be used" if budget is not None and budget < minutes else ""
    click.echo(
        f"{len(jobs)} parts{done}; about {minutes:.0f} minutes on two cores{limit}. Results: {folder}",
        err=True,
    )


def _measured(
    work: _Work, folder: Path, minutes: float | None, notes: Sequence[str], about: Mapping[str, str]
) -> Measured:
    """Do what was not done before; the base first, which says what it knows."""
    from openbook.diagnosis.teaching.fact_arms import FactArm, first_job, other_jobs
    from openbook.diagnosis.teaching.jobs import Budget, done_within
    from openbook.diagnosis.teaching.page import Measured
    from openbook.diagnosis.teaching.skill_arms import SkillArm

    budget = Budget(None if minutes is None else 60 * minutes)
    total, finished = len(work.jobs), 0

    def say(name: str, seconds: float) -> None:
        nonlocal finished
        finished += 1
        work.seams.progress("teach", finished, total)
        click.echo(f"{name} ({finished} of {total}){f': {seconds:.0f} s' if seconds else ''}", err=True)

    arms, left_out = list[FactArm](), list[str]()
    if work.facts is not None:
        found, left = done_within([first_job(work.facts, work.seams)], folder, budget, say)
        arms, left_out = [FactArm.of(value) for value in found.values()], list(left)
        if left_out:  # what follows is measured against it
            left_out += [job.name for job in work.guessed_jobs(work.facts)]
        for alone in arms[:1]:
            asked = [probe for probe in work.facts.known if probe.question in set(alone.known_questions)]
            found, left = done_within(other_jobs(work.facts, asked, work.seams), folder, budget, say)
            arms += [FactArm.of(value) for value in found.values()]
            left_out += left
    found, left = done_within(work.skill_jobs, folder, budget, say)
    skills = [SkillArm.of(value) for values in found.values() for value in values]
    order = {"none": 0, "retrieval": 1, "training": 2}
    arms.sort(key=lambda arm: (order[arm.remedy], arm.form != "verbatim", arm.form, arm.exposures))
    return Measured(about, arms, skills, (*left_out, *left), notes)


def _about(reader: ModelReference, taught: ModelReference, work: _Work, source: Path | None) -> dict[str, str]:
    from openbook.diagnosis.teaching.lessons import LEARNING_RATE, METHOD

    facts = f"{len(work.facts.facts)}, {source.name if source else 'invented'}" if work.facts else "none"
    skills = ", ".join(f"{p.skill.name} ({p.learned} to learn, {p.measured} to measure)" for p in work.skills)
    return {
        "taught": f"{taught.name} ({taught.digest[:12]})",
        "reader": f"{reader.name} ({reader.digest[:12]})",
        "facts": facts,
        "skills": skills or "none",
        "embedder": work.seams.embedder.identity.name,
        "training": METHOD.format(work.facts.learning_rate if work.facts else LEARNING_RATE),
        "seed": str(work.facts.seed if work.facts else work.skills[0].seed),
    }


def _name(facts: Sequence[Fact], skills: Sequence[SkillPlan]) -> str:
    """Where the results go by default: another place for other facts, and for another task of one's own."""
    from openbook.diagnosis.teaching import facts as of_facts
    from openbook.diagnosis.teaching import tasks
    from openbook.diagnosis.teaching.skill_files import MOST_EXAMPLES

    own = [plan.skill for plan in skills if plan.skill.name not in tasks.SKILLS]
    digests = [of_facts.digest_of(list(facts))]
    digests += [tasks.digest_of(tasks.examples(skill, MOST_EXAMPLES, 0)[0]) for skill in own]
    return "-".join(["price", *(digest[:12] for digest in digests)])


def _taught(facts: Sequence[Fact], skills: Sequence[SkillPlan]) -> Iterator[tuple[str, str]]:
    """(name, text) of what is learned or measured with, in the words in which it may stand in a document."""
    from openbook.diagnosis.teaching.tasks import examples

    yield from ((fact.id, fact.source or fact.statements[0]) for fact in facts)
    for plan in skills:
        both = itertools.chain(*examples(plan.skill, plan.learned, plan.measured, plan.seed))
        texts = [each.text.removeprefix(f"{each.title}\n") for each in both]
        texts += [plan.skill.guide] if plan.skill.guide else []
        yield from ((f"{plan.skill.name}-{number}", text) for number, text in enumerate(texts, 1))
