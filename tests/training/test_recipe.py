from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from openbook.core.errors import ConfigError, StorageError
from openbook.models.aliases import name_problem
from openbook.models.lineage import TrainingRecord
from openbook.models.manifest import checked_date
from openbook.training.recipe import load_recipe
from tests.conftest import ROOT
from tests.training.examples import small_recipe

SHIPPED = ROOT / "openbook" / "models" / "data"
BASE = f"""[base]
model = "smollm2-135m-instruct"
digest = "{"0" * 64}"
"""
ARCHITECTURE = """[architecture]
vocabulary = 500
width = 32
layers = 2
heads = 4
feed_forward = 64
"""
TEXT = f"""
name = "small"
{BASE}[objective]
kind = "reader"
instruction = "Answer."
abstention = "Not stated."
[[train]]
file = "train.jsonl"
sha256 = "{"0" * 64}"
[optimiser]
learning_rate = 1e-3
[loop]
seed = 1
steps = 10
"""


def loaded(tmp_path: Path, text: str) -> str:
    (tmp_path / "recipe.toml").write_text(text)
    return load_recipe(tmp_path / "recipe.toml").digest


def test_layout_and_comments_do_not_matter_and_every_value_does(tmp_path: Path) -> None:
    digest = loaded(tmp_path, TEXT)
    assert loaded(tmp_path, "# a comment\n" + TEXT.replace(" = ", "=")) == digest
    assert loaded(tmp_path, TEXT.replace("seed = 1", "seed = 2")) != digest
    assert loaded(tmp_path, TEXT.replace("1e-3", "2e-3")) != digest
    with pytest.raises(StorageError, match="Cannot read the recipe"):
        load_recipe(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seed = 1", "seed = 1\nstepz = 3", "unknown key 'loop.stepz'. Did you mean 'steps'?"),
        ('file = "train.jsonl"', 'file = "a"\nsha = "b"', "unknown key 'train.0.sha'. Did you mean 'sha256'?"),
        (BASE, f'{BASE}name = "x"\n', "unknown key 'base.name'."),
        ("seed = 1", "seed = 1\nepochs = 3", "give either epochs or steps"),
        ("steps = 10", "", "give either epochs or steps"),
        ("learning_rate = 1e-3", "learning_rate = 0", "optimiser.learning_rate: input should be greater than 0"),
        ('abstention = "Not stated."', "", "objective.abstention: field required"),
        (
            'kind = "reader"',
            'kind = "writer"',
            "any of the expected tags: 'reader', 'instruction', 'language-modeling'",
        ),
        ('name = "small"', 'name = "../small"', "name:"),
        ("[objective]", ARCHITECTURE + "[objective]", "give either base"),
        (BASE, "", "give either base"),
        (BASE, ARCHITECTURE, 'needs method.kind = "full"'),
        (BASE, ARCHITECTURE.replace("32", "30"), "even multiple"),
        (BASE, ARCHITECTURE + "key_value_heads = 3\n", "multiple of key_value_heads"),
        ("[loop]", '[method]\nkind = "full"\n[export]\nkind = "adapter"\n[loop]', "full training gives no adapter"),
        ('name = "small"', 'name = "small', "is not valid TOML"),
    ],
)
def test_errors_of_a_recipe_are_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        loaded(tmp_path, TEXT.replace(old, new))
    assert said in str(error.value)
    assert not str(error.value).endswith("?.")


@given(
    name=st.text(alphabet="abcXYZ019._-", min_size=1, max_size=100),
    seed=st.integers(-2, 1 << 65),
    cutoff=st.sampled_from(["", "2024-02-29", "2025-02-30", "2025-13-01"]),
    target=st.floats(),
    alpha=st.floats(),
)
def test_every_recipe_that_is_accepted_can_be_recorded(
    name: str, seed: int, cutoff: str, target: float, alpha: float
) -> None:
    parts = {"loop": {"seed": seed}, "method": {"alpha": alpha}, "gate": {"target": {"exact": target}}}
    try:
        recipe = small_recipe(name=name, knowledge_cutoff=cutoff, **parts)
    except ValidationError:
        return
    record = TrainingRecord(recipe.model_dump(mode="json"), None, (), "", recipe.loop.seed, 1, 1, "", {}, None, ())
    assert TrainingRecord.from_json(record.to_json()) == record
    assert record.recipe_digest == recipe.digest
    assert not name_problem(recipe.candidate)
    assert checked_date(cutoff) if cutoff else True


def test_the_default_reader_is_what_its_recipe_says_and_small_enough_to_ship() -> None:
    record = json.loads(gzip.decompress((SHIPPED / "reader-training.json.gz").read_bytes()))
    recipe = load_recipe(ROOT / "recipes" / "reader.toml")
    assert recipe.model_dump(mode="json") == record["recipe"]
    assert recipe.base is not None
    assert record["parent"] == recipe.base.digest
    for data in (*recipe.train, *recipe.dev):
        assert hashlib.sha256((ROOT / "recipes" / data.file).read_bytes()).hexdigest() == data.sha256
    assert (SHIPPED / "reader-adapter.gguf.gz").stat().st_size <= 12_000_000
