"""Recipes: a whole run, from training to the file, as TOML."""

from __future__ import annotations

import difflib
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from dwindle.code import plan as planning
from dwindle.data import PREPROCESSINGS
from dwindle.errors import RecipeError
from dwindle.models import DATA, NAMES
from dwindle.share.kmeans import OPTIMAL_MAX

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Bits = Annotated[int, Field(ge=1, le=16)]
Seed = Annotated[int, Field(ge=0, lt=1 << 63)]


def _known_model(name: str) -> str:
    if name not in NAMES:
        raise ValueError(f"expected one of {', '.join(NAMES)}")
    return name


def _known_preprocessing(name: str | None) -> str | None:
    if name is not None and name not in PREPROCESSINGS:
        raise ValueError(f"expected one of {', '.join(PREPROCESSINGS)}")
    return name


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Training(_Section):
    """Stochastic gradient descent with Nesterov momentum; the rate falls by half a cosine.

    Attributes:
        epochs: passes over the training set.
        lr: learning rate at the start.
        final_lr: learning rate at the end; a hundredth of `lr` if not given.
        momentum: 0 to 1.
        weight_decay: L2 penalty on all that is trained.
        batch: examples a step.
        shift: largest random translation of an image, in pixels; photographs are mirrored half the time too.
    """

    epochs: Annotated[int, Field(ge=0)]
    lr: Positive
    final_lr: Positive | None = None
    momentum: Share = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    batch: Annotated[int, Field(ge=1)] = 128
    shift: Annotated[int, Field(ge=0)] = 0


class Reference(Training):
    """Training the network that is compressed.

    Attributes:
        dropout: rate of the network's dropout.
    """

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Pruning(Training):
    """Removing a little and retraining, again and again; `epochs` follow the last round.

    Attributes:
        sparsity: share of weights gone in the end, by tensor.
        schedule: "gradual" removes most in the first rounds (cubic), "iterative" the same fraction of what is
            left each round.
        rounds: how often weights are removed.
        epochs_between: passes over the training set after each round but the last, at rate `lr`.
        correct_dropout: lower the dropout as connections go (Han et al. 2015, section 3.2).
    """

    sparsity: Annotated[dict[str, Share], Field(min_length=1)]
    schedule: Literal["gradual", "iterative"] = "gradual"
    rounds: Annotated[int, Field(ge=1)] = 1
    epochs_between: Annotated[int, Field(ge=0)] = 1
    correct_dropout: bool = True


class Sharing(Training):
    """Sharing weights, then training the centroids.

    Attributes:
        bits: width of an index, by tensor or layer type.
        budget: bytes for all indices and codebooks; `bits` then only says which tensors are shared.
        init: start of k-means.
    """

    bits: Annotated[dict[str, Bits], Field(min_length=1)]
    budget: Annotated[int, Field(ge=1)] | None = None
    init: Literal["linear", "density", "forgy", "optimal"] = "linear"

    @model_validator(mode="after")
    def _few_enough(self) -> Self:
        most = OPTIMAL_MAX.bit_length() - 1
        if self.init == "optimal" and max(self.bits.values()) > most:
            raise ValueError(f'expected at most {most} bits with init = "optimal"')
        return self


class Coder(_Section):
    """How the file is coded.

    Attributes:
        coder: "huffman", "fixed", "csr" or "csc", the paper's; "rans", "context" or "auto" (`Coding`).
        gap_bits: width of a gap; the best for each tensor if not given.
        dictionary: one Huffman code per layer or for the whole network.
    """

    coder: planning.Coder = "huffman"
    gap_bits: Bits | None = None
    dictionary: Literal["layer", "network"] = "layer"

    @property
    def coding(self) -> planning.Coding:
        """The same as the coder takes it."""
        return planning.Coding(self.coder, self.gap_bits, self.dictionary)


class Recipe(_Section):
    """A run.

    Attributes:
        name: of the run.
        model: one of `models.NAMES`.
        data: the data set: "mnist", or "images", a folder of the user's pictures for a network for ImageNet.
        preprocessing: one of `data.PREPROCESSINGS`, torchvision's if not given; of pictures only.
        seed: of initial weights, data order, dropout and k-means.
        validation: training examples held out and evaluated on after every epoch, to choose settings by.
        reference: how the network is trained; left out, a checkpoint must be given to the run.
        prune: how it is pruned; left out, it is not.
        share: how its weights are shared; left out, they are not.
        code: how the file is coded.
    """

    name: str
    model: Annotated[str, AfterValidator(_known_model)]
    data: Literal["mnist", "images"] = "mnist"
    preprocessing: Annotated[str | None, AfterValidator(_known_preprocessing)] = None
    seed: Seed = 0
    validation: Annotated[int, Field(ge=0, lt=60000)] = 0
    reference: Reference | None = None
    prune: Pruning | None = None
    share: Sharing | None = None
    code: Coder = Coder()

    @model_validator(mode="after")
    def _fitting_data(self) -> Self:
        if self.data != DATA[self.model]:
            raise ValueError(f'expected data = "{DATA[self.model]}" for {self.model}, got "{self.data}"')
        if self.preprocessing is not None and self.data != "images":
            raise ValueError(f'expected preprocessing with data = "images" only, got {self.preprocessing}')
        return self


def read_recipe(path: Path | str) -> Recipe:
    """Read a recipe from a file, or one that comes with the package by its name.

    Args:
        path: a TOML file; where there is none, a name such as "lenet-5-paper", with or without ".toml".

    Raises:
        RecipeError: if there is no such recipe, it is no TOML, or a key or value is wrong.
    """
    file = Path(path)
    name = file.name.removesuffix(".toml")
    try:
        if file.is_file():
            text = file.read_text(encoding="utf-8")
        elif str(file.parent) == "." and name in packaged_recipes():
            text = (resources.files("dwindle") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
        else:
            known = ", ".join(packaged_recipes())
            raise RecipeError(f"{path}: expected a TOML file or one of {known}, got neither")
        return parse_recipe(tomllib.loads(text), str(path))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise RecipeError(f"{path}: expected a recipe in TOML, got: {error}") from error


def packaged_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    found = (resources.files("dwindle") / "recipes").iterdir()
    return sorted(item.name.removesuffix(".toml") for item in found if item.name.endswith(".toml"))


def parse_recipe(content: dict[str, Any], source: str) -> Recipe:
    """A recipe from what TOML says.

    Args:
        content: the parsed file.
        source: where it is from, for errors.

    Raises:
        RecipeError: at the first wrong key or value, with the nearest name that is right.
    """
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(first["loc"][-1]), _keys(first["loc"][:-1]), n=1, cutoff=0)
            text = f"{source}: {place}: expected a known key such as {near[0]}, got another"
            raise RecipeError(text) from error
        wrong = first["msg"].removeprefix("Value error, ")
        wrong = f"{wrong[0].lower()}{wrong[1:]}"
        if not place:  # of keys that do not go together; the message says what is wrong
            raise RecipeError(f"{source}: {wrong}") from error
        got = "" if first["type"] == "missing" else f", got {first['input']!r}"
        raise RecipeError(f"{source}: {place}: {wrong}{got}") from error


def _keys(place: tuple[int | str, ...]) -> list[str]:
    """The keys of the section at `place`."""
    sections: dict[str, type[BaseModel]] = {
        "reference": Reference,
        "prune": Pruning,
        "share": Sharing,
        "code": Coder,
    }
    return list((sections[str(place[0])] if place else Recipe).model_fields)
