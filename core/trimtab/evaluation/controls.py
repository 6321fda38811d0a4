"""The controls beside a merge: half of each change, and a random mask like its own."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from trimtab.checkpoints import Lineup
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.masks.entries import MaskEntry
from trimtab.masks.file import MaskAbout, MaskWriter
from trimtab.masks.matched import Over, write_control
from trimtab.masks.scores import TaskVector
from trimtab.masks.stack import MaskStack
from trimtab.merging.recipe import FineTuned, Recipe, open_lineup

#: what the controls are called in tables
LINEAR, RANDOM = "linear ½", "random mask"


def half_linear(recipe: Recipe) -> Recipe:
    """Return the reference plus half of the change of each model that takes part, nothing else.

    A model whose ratio is 0 throughout takes no part in the recipe, and none here.
    """
    plain: dict[str, Any] = {
        "layers": {}, "modules": {}, "weight": None, "parameters": {}, "masks": (),
        "rescale": False,
    }  # fmt: skip
    models = tuple(
        model.model_copy(update={**plain, "ratio": 0.5 if _takes_part(model) else 0.0})
        for model in recipe.finetuned
    )
    return Recipe(base=recipe.base, aligned=recipe.aligned, finetuned=models, output=recipe.output)


def random_masks(recipe: Recipe, folder: Path, control: Control) -> Recipe | None:
    """Return the recipe with masks drawn at random in place of its own; None where it has none.

    Each removes the energy of the one it stands for (`masks.matched`), by the recipe's seed:
    matched tensor by tensor, or over the model where whole tensors are removed. They are kept in
    `folder` under all that they depend on. Raises `UserError` as opening and writing masks does.
    """
    if not any(model.masked for model in recipe.finetuned):
        return None
    lineup = open_lineup(recipe)
    models = tuple(
        _random(recipe, lineup, i, folder, control) if model.masked else model
        for i, model in enumerate(recipe.finetuned)
    )
    return recipe.model_copy(update={"finetuned": models})


def _takes_part(model: FineTuned) -> bool:
    return model.weight is not None or model.ratio != 0 or any(model.layers.values())


def _random(
    recipe: Recipe, lineup: Lineup, number: int, folder: Path, control: Control
) -> FineTuned:
    model = recipe.finetuned[number]
    stack = MaskStack(model.masks, recipe.seed)
    shapes = zip(lineup.names, lineup.reference.checkpoint.index.shapes, strict=True)
    stack.check(dict(shapes))
    key = [lineup.fingerprint, str(number), str(recipe.seed)]
    key += [entry.model_dump_json() for entry in model.masks if entry.on]
    key += [file.fingerprint for file in stack.files]
    digest = hashlib.blake2b("\n".join(key).encode(), digest_size=16).hexdigest()
    path = folder / f"{digest}.mask.safetensors"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with TensorReader() as reader:
            vector = TaskVector(lineup, lineup.finetuned[number], reader)
            try:
                _write(path, stack, vector, recipe.seed, lineup.fingerprint, "tensor", control)
            except UserError as error:
                if error.code != "control_is_the_mask":
                    raise
                _write(path, stack, vector, recipe.seed, lineup.fingerprint, "model", control)
    return model.model_copy(update={"masks": (MaskEntry(path=str(path), name=RANDOM),)})


def _write(
    path: Path,
    stack: MaskStack,
    vector: TaskVector,
    seed: int,
    lineup: str,
    over: Over,
    control: Control,
) -> None:
    used = dict.fromkeys(prompts for file in stack.files for prompts in file.about.prompts)
    about = MaskAbout(
        builder="random control",
        parameters={"match": "energy", "over": over, "of": [f.path.name for f in stack.files]},
        seed=seed,
        lineup=lineup,
        prompts=tuple(used),
    )
    with MaskWriter(path, about) as writer:
        write_control(stack, vector, writer, control, over=over, seed=seed)
        writer.finish()
