from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from openbook.core.errors import StorageError, TrainingError
from openbook.training.checkpoints import KEPT, Checkpoint, State, load_newest, save
from tests.conftest import flip, full_disk

pytestmark = pytest.mark.laws

RECIPE = "a" * 64


def checkpoint(step: int) -> Checkpoint:
    values = {"w": torch.full((3, 4), float(step))}
    moments = {"w/exp_avg": torch.ones(3, 4), "w/step": torch.tensor(float(step))}
    return Checkpoint(State(RECIPE, step, tokens=10 * step), values, moments, {})


def test_checkpoints_round_trip(tmp_path: Path) -> None:
    (tmp_path / ".step-00000007").mkdir()  # a killed process left it
    for step in range(1, 5):
        save(tmp_path, checkpoint(step))
    found = load_newest(tmp_path, RECIPE, pytest.fail)
    assert found is not None
    assert found.state == State(RECIPE, 4, tokens=40)
    assert torch.equal(found.parameters["w"], torch.full((3, 4), 4.0))
    assert len(list(tmp_path.iterdir())) == KEPT


@pytest.mark.parametrize("name", ["parameters.safetensors", "moments.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_named_and_the_previous_one_used(tmp_path: Path, name: str) -> None:
    save(tmp_path, checkpoint(1))
    path = save(tmp_path, checkpoint(2)) / name
    flip(path, path.stat().st_size // 2)
    said: list[str] = []
    found = load_newest(tmp_path, RECIPE, said.append)
    assert found is not None
    assert found.state.step == 1
    assert "step-00000002 is damaged" in said[0]
    assert name in said[0] or name == "state.json"


def test_missing_and_foreign_checkpoints_are_refused(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "none", RECIPE, pytest.fail) is None
    path = save(tmp_path, checkpoint(1))
    with pytest.raises(TrainingError, match="is of another recipe"):
        load_newest(tmp_path, "b" * 64, pytest.fail)
    (path / "state.json").unlink()  # the run does not begin again by itself
    with pytest.raises(TrainingError, match=r"No checkpoint in .* is whole"):
        load_newest(tmp_path, RECIPE, lambda line: None)


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, checkpoint(1))
    large = replace(checkpoint(2), parameters={"w": torch.ones(1 << 20)})
    with full_disk(), pytest.raises(StorageError, match=r"write the checkpoint .*step-00000002"):
        save(tmp_path, large)
    found = load_newest(tmp_path, RECIPE, pytest.fail)
    assert found is not None
    assert found.state.step == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
