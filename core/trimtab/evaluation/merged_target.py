"""Unsaved merges and the roles of a lineup as targets: a merge's very bits, in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from trimtab.checkpoints.lineup import Member
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.evaluation.preview_weights import MergedWeights
from trimtab.evaluation.targets import Loaded, LocalTarget, ModelTarget, Precision, deciding_files
from trimtab.evaluation.targets_loading import load_model, load_tokenizer
from trimtab.merging.companions import companion_files, written_files
from trimtab.merging.plan import Plan, describe
from trimtab.merging.planner import plan_merge
from trimtab.merging.recipe import FineTuned, ModelRef, Recipe, open_lineup

_TORCH = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


def merge_in_memory(plan: Plan, control: Control) -> dict[str, torch.Tensor]:
    """Carry a plan out and return its tensors by name, the very bits that a saved merge holds.

    In the output's dtypes and shapes. Raises `UserError` as `run_merge` does but for what
    concerns the disk, and with `cannot_run` for dtypes that torch does not know.
    """
    for tensor in plan.tensors:
        if tensor.dtype not in _TORCH:
            raise UserError(
                "cannot_run",
                f"{tensor.name} is stored as {tensor.dtype}.",
                "Weights stored so cannot be run from memory.",
                "Save the merge, and evaluate its folder.",
            )
    weights = MergedWeights(room=0)
    try:
        weights.update(plan, control)
    finally:
        weights.close()
    found = {}
    for tensor in plan.tensors:
        stored, dtype = weights.stored(tensor.name), _TORCH[tensor.dtype]
        if tensor.offset % dtype.itemsize:
            stored = stored.copy()  # torch looks at memory only at multiples of the element's size
        found[tensor.name] = torch.from_numpy(stored).view(dtype).reshape(tensor.shape)
    return found


class MergedTarget(LocalTarget):
    """The model that a recipe makes, without saving it.

    Its weights are computed when it is first asked; config, tokenizer and template are those that
    the saved model would have.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        name: str = "merged",
        device: str = "cpu",
        precision: Precision = "auto",
        role: str = "merged",
    ):
        plan = plan_merge(recipe, open_lineup(recipe))
        reference = plan.lineup.reference.checkpoint
        if reference.kind == "file" or not reference.config:
            raise UserError(
                "cannot_run",
                f"What is merged on {reference.name} cannot be run.",
                "There is no config.json beside the weights, so their shape is unknown.",
                "Choose the folder that holds config, tokenizer and weights.",
                details=str(reference.path),
            )
        self.plan = plan

        def load(device: str, dtype: torch.dtype | None, control: Control) -> Loaded:
            with tempfile.TemporaryDirectory(prefix="trimtab-") as folder:
                lay_companions(plan, Path(folder))
                tokenizer = load_tokenizer(Path(folder))
                tensors = merge_in_memory(plan, control)
                return Loaded(load_model(Path(folder), device, dtype, tensors), tokenizer)

        super().__init__(
            name,
            load,
            plan.digest() + _companions_digest(plan),
            device=device,
            precision=precision,
            role=role,
            about={"kind": "merge", "recipe": recipe.to_yaml(), "plan": plan.digest()},
        )


def lay_companions(plan: Plan, folder: Path) -> None:
    """Put into `folder` what a saved merge has beside its weights; big files are linked."""
    made = written_files(plan, describe(plan))
    for source in companion_files(plan, plan.lineup.reference.checkpoint):
        if source.name not in made:
            (folder / source.name).symlink_to(source.resolve())
    for name, content in made.items():
        (folder / name).write_bytes(content)


def _companions_digest(plan: Plan) -> str:
    with tempfile.TemporaryDirectory(prefix="trimtab-") as folder:
        lay_companions(plan, Path(folder))
        return deciding_files(Path(folder))


def role_targets(
    recipe: Recipe, roles: tuple[str, ...], *, device: str = "cpu", precision: Precision = "auto"
) -> list[LocalTarget]:
    """Return the targets that play these roles: base, aligned, finetuned (each one), merged.

    A model with an adapter is what a merge would take it for: its weights with the adapter's
    change, in the dtype of the lineup's reference. Raises `UserError` with `no_such_role`.
    """
    lineup = open_lineup(recipe)
    found: list[LocalTarget] = []
    for role in roles:
        if role == "merged":
            found.append(MergedTarget(recipe, device=device, precision=precision))
            continue
        members = [member for member in lineup.members if member.role == role]
        if not members:
            raise UserError(
                "no_such_role",
                f"The recipe has no {role} model.",
                f"It has {', '.join(dict.fromkeys(m.role for m in lineup.members))} and merged.",
                "Ask for these.",
            )
        refs = _references(recipe, role)
        for member, ref in zip(members, refs, strict=True):
            found.append(_role_target(recipe, member, ref, device, precision))
    return found


def _references(recipe: Recipe, role: str) -> list[ModelRef]:
    if role == "finetuned":
        return list(recipe.finetuned)
    ref = recipe.aligned if role == "aligned" else recipe.base
    return [] if ref is None else [ref]


def _role_target(
    recipe: Recipe, member: Member, ref: ModelRef, device: str, precision: Precision
) -> LocalTarget:
    if member.checkpoint.kind != "adapter" and member.adapter is None:
        return ModelTarget(
            member.checkpoint, name=member.name, device=device, precision=precision,
            role=member.role,
        )  # fmt: skip
    given = ref.model_dump(include={"path", "name", "revision", "lora", "lora_revision"})
    base = ref.adapter_base if isinstance(ref, FineTuned) else None
    alone = Recipe(
        method="passthrough",
        base=recipe.base,
        aligned=recipe.aligned,
        finetuned=(FineTuned(**given, adapter_base=base),),
    )
    return MergedTarget(
        alone, name=member.name, device=device, precision=precision, role=member.role
    )
