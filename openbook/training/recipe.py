"""The recipe: one TOML file that fully determines a training run. Unknown keys are errors.

Law: the same recipe on the same numeric class gives the same model, byte for byte.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from openbook.core.errors import ConfigError, StorageError, did_you_mean
from openbook.core.records import Digest
from openbook.models.aliases import name_problem
from openbook.models.gguf_writer import Quantisation
from openbook.models.lineage import recipe_digest
from openbook.models.manifest import checked_date
from openbook.models.reader_metadata import MAX_READER_PASSAGES

MAX_RECIPE_BYTES = 1 << 20

Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Positive = Annotated[int, Field(gt=0)]
Target: TypeAlias = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Base(Section):
    """The stored model to train. `model` is only a name for people, but `openbook train` fetches it if the catalogue has it."""

    model: str
    digest: Hex


class Architecture(Section):
    """A new model of the Llama family with its own vocabulary. Input and output embeddings are tied."""

    vocabulary: Annotated[int, Field(ge=300, le=65_536)]
    width: Annotated[int, Field(ge=16, le=8192)]
    layers: Annotated[int, Field(ge=1, le=128)]
    heads: Annotated[int, Field(ge=1, le=128)]
    key_value_heads: Annotated[int, Field(ge=1, le=128)] | None = None
    feed_forward: Annotated[int, Field(ge=16, le=65_536)]
    context_tokens: Annotated[int, Field(ge=32, le=1 << 17)] = 1024
    rope_base: Annotated[float, Field(gt=1)] = 10_000.0

    @model_validator(mode="after")
    def _divides(self) -> Architecture:
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} must be an even multiple of heads {self.heads}")
        if self.heads % (self.key_value_heads or self.heads):
            raise ValueError(f"heads {self.heads} must be a multiple of key_value_heads {self.key_value_heads}")
        return self


class Data(Section):
    """A file of examples, relative to the recipe, and its SHA-256 as stored.

    `knowledge_base` is "id@version" if `openbook train --from-kb` wrote the file.
    """

    file: str
    sha256: Hex
    knowledge_base: str | None = None


class ReaderObjective(Section):
    """Answers in the words of passages, or the abstention. `instruction` and `abstention` become part of the model.

    `negatives`: average hard negatives per answered question. `passages`: most passages side by side per question.
    """

    kind: Literal["reader"]
    instruction: Annotated[str, Field(min_length=1)]
    abstention: Annotated[str, Field(pattern=r"^\S(.*\S)?$")]  # one line, because answers are compared by line
    negatives: Annotated[float, Field(ge=0, le=8)] = 0.0
    passages: Annotated[int, Field(ge=1, le=MAX_READER_PASSAGES)] = 1


class InstructionObjective(Section):
    """The assistant's text in conversations, in the model's chat template."""

    kind: Literal["instruction"]


class LanguageObjective(Section):
    """Every token of documents."""

    kind: Literal["language-modeling"]


Objective: TypeAlias = Annotated[
    ReaderObjective | InstructionObjective | LanguageObjective, Field(discriminator="kind")
]


class Method(Section):
    """`lora`: low-rank updates of the `targets` in the layers from `first_layer` on. `full`: all parameters."""

    kind: Literal["lora", "full"] = "lora"
    rank: Annotated[int, Field(ge=1, le=512)] = 32
    alpha: Annotated[float, Field(gt=0)] = 64.0
    first_layer: Annotated[int, Field(ge=0)] = 0
    targets: Annotated[tuple[Target, ...], Field(min_length=1)] = get_args(Target)


class Optimiser(Section):
    """AdamW. The learning rate rises over `warmup_steps`, then falls to the share `floor` of its peak."""

    learning_rate: Annotated[float, Field(gt=0, le=1)]
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    floor: Annotated[float, Field(ge=0, le=1)] = 0.05
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip_norm: Annotated[float, Field(gt=0)] = 1.0


class Loop(Section):
    """A step has about `step_tokens` tokens, in micro-batches of at most `call_tokens`, padding included.

    An example has at most `sequence_tokens`. Give either `epochs` or `steps`.
    """

    seed: Annotated[int, Field(ge=0, le=(1 << 63) - 1)]
    epochs: Annotated[float, Field(gt=0)] | None = None
    steps: Positive | None = None
    sequence_tokens: Annotated[int, Field(ge=16, le=1 << 17)] = 1024
    step_tokens: Positive = 4096
    call_tokens: Positive = 4096
    precision: Literal["bf16", "f32"] = "bf16"

    @model_validator(mode="after")
    def _one_length(self) -> Loop:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps")
        return self


class Evaluation(Section):
    """The dev data is evaluated every `every_steps`. The run keeps the parameters with the best `metric`.

    `patience`: stop after this many evaluations without improvement; 0: never.
    """

    every_steps: Positive = 100
    questions: Positive = 1000
    metric: Literal["loss", "score"] = "loss"
    patience: Annotated[int, Field(ge=0)] = 0


class Export(Section):
    """`adapter` (default for LoRA): the updates alone, which need the base; `merged`: a whole model."""

    kind: Literal["adapter", "merged"] | None = None
    quantisation: Quantisation = "Q8_0"


class Gate(Section):
    """`target`: dev numbers that the result must reach before it may take a name."""

    target: dict[str, float] = Field(default_factory=dict)


class Recipe(Section):
    """`licence` and `knowledge_cutoff` (YYYY-MM-DD) are the result's. Empty: as the base."""

    format: Literal[1] = 1
    name: str
    licence: str = ""
    knowledge_cutoff: Annotated[str, Field(pattern=r"^(\d{4}-\d{2}-\d{2})?$")] = ""
    base: Base | None = None
    architecture: Architecture | None = None
    objective: Objective
    train: tuple[Data, ...] = ()
    dev: tuple[Data, ...] = ()
    method: Method = Method()
    optimiser: Optimiser
    loop: Loop
    evaluation: Evaluation = Evaluation()
    export: Export = Export()
    gate: Gate = Gate()

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if problem := name_problem(self.candidate):
            raise ValueError(f"name: {problem}")
        if self.knowledge_cutoff:
            checked_date(self.knowledge_cutoff)
        if self.objective.kind != "reader" and self.evaluation.metric == "score":
            raise ValueError("evaluation.metric: only a reader has a score; use loss")
        if (self.base is None) == (self.architecture is None):
            raise ValueError("give either base (a model to train further) or architecture (a model from nothing)")
        if self.architecture and (self.method.kind != "full" or self.objective.kind != "language-modeling"):
            raise ValueError('architecture: a model from nothing needs method.kind = "full" and language-modeling')
        if self.method.kind == "full" and self.export.kind == "adapter":
            raise ValueError("export: full training gives no adapter; export merged")
        return self

    @property
    def candidate(self) -> str:
        """The result's name until it is promoted."""
        return f"{self.name}-candidate"

    @property
    def exports_adapter(self) -> bool:
        return (self.export.kind or ("adapter" if self.method.kind == "lora" else "merged")) == "adapter"

    @property
    def digest(self) -> Digest:
        """The digest of every value but the names of data files, layout and comments; see `recipe_digest`."""
        return recipe_digest(self.model_dump(mode="json"))

    def with_documents(self, data: Data) -> Recipe:
        """Add a file of documents. Raises ConfigError if the recipe does not learn from them."""
        if self.objective.kind != "language-modeling":
            raise ConfigError(
                f"The recipe's objective is {self.objective.kind}. Only language-modeling learns from the documents of a "
                "knowledge base."
            )
        return self.model_copy(update={"train": (*self.train, data)})


def load_recipe(path: Path) -> Recipe:
    """Read a recipe. Raises ConfigError with every problem and its key, StorageError."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_RECIPE_BYTES + 1)
    except OSError as error:
        raise StorageError(f"Cannot read the recipe {path}: {error.strerror or error}.") from error
    if len(content) > MAX_RECIPE_BYTES:
        raise ConfigError(f"{path.name} has more than {MAX_RECIPE_BYTES:,} bytes, so it is not a recipe.")
    try:
        return Recipe.model_validate(tomllib.loads(content.decode("utf-8-sig")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} is not valid TOML: {error}.") from error
    except ValidationError as error:
        lines = [_sentence(problem["loc"], problem["msg"], problem["type"]) for problem in error.errors()]
        said = "; ".join(lines)
        raise ConfigError(f"{path.name} is not a valid recipe: {said}{'' if said.endswith('?') else '.'}") from error


def _sentence(place: tuple[int | str, ...], message: str, kind: str) -> str:
    if len(place) > 2 and place[0] == "objective":  # pydantic adds the kind, which is not a key
        place = (place[0], *place[2:])
    key = ".".join(map(str, place))
    if kind != "extra_forbidden":
        message = message.removeprefix("Value error, ")
        return f"{key}: {message[:1].lower()}{message[1:]}" if key else message
    sections: list[type[BaseModel]] = [Recipe]
    for step in place[:-1]:
        if isinstance(step, str):  # a number is a place in a list
            fields = [section.model_fields[step] for section in sections if step in section.model_fields]
            sections = [found for field in fields for found in _sections_in(field.annotation)]
    known = {name for section in sections for name in section.model_fields}
    return f"unknown key {key!r}.{did_you_mean(str(place[-1]), known)}".rstrip(".")


def _sections_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for each in get_args(annotation) for found in _sections_in(each)]
