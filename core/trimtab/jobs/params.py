"""What each job takes: checked where it comes in, as JSON from the window or from the command."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from trimtab.evaluation.probes import PROBES
from trimtab.masks.entries import MaskEntry, Rule
from trimtab.merging.recipe import Recipe
from trimtab.search.space import Space


class Params(BaseModel):
    """Parameters of a job that takes none."""

    model_config = ConfigDict(extra="forbid")


class InspectParams(Params):
    """Parameters of `inspect`: the recipe whose lineup is looked at."""

    recipe: Recipe


class SpectraParams(Params):
    """Parameters of `spectra`: see `trimtab.inspection.spectra_scan.find_spectra`.

    `memory` is what its threads may hold together, in bytes.
    """

    recipe: Recipe
    level: Literal["coarse", "fine", "exact"] = "exact"
    rank: int = Field(default=16, ge=1, le=1024)
    seed: int = Field(default=0, ge=0)
    memory: int | None = Field(default=None, ge=1)
    threads: int | None = Field(default=None, ge=1)


class MergeParams(Params):
    """Parameters of `merge`.

    `device` "auto" is every CUDA device there is, or the CPU; several are separated by commas.
    `memory` is what the process may take, in bytes.
    """

    recipe: Recipe
    output: str
    overwrite: bool = False
    resume: bool = False
    device: str = "auto"
    memory: int | None = None
    threads: int | None = None


class PlanParams(Params):
    """Parameters of `plan`: the recipe, and on what and within how many bytes it would run."""

    recipe: Recipe
    device: str = "auto"
    memory: int | None = None


class PreviewParams(Params):
    """Parameters of `preview`: see `trimtab.evaluation.preview.Request`."""

    recipe: Recipe
    suite: str = "auto"
    count: int = PROBES
    seed: int = 0
    device: str = "auto"
    against: int | None = None


class AttributeParams(Params):
    """Parameters of `attribute`: see `trimtab.inspection.attribution`.

    `model` is a name or role of the lineup's, empty for the first fine-tuned one; `calibration` a
    shipped set, a JSONL file or suite:NAME, of which `limit` examples are taken, evenly spread.
    `mode` says how Wanda's input strengths are taken. `share` of the entries are the highest.
    """

    recipe: Recipe
    model: str = ""
    calibration: str = "demo-refused"
    limit: int | None = Field(default=128, ge=1)
    score: Literal["wanda", "delta-wanda", "snip", "fisher"] = "delta-wanda"
    mode: Literal["paper", "authors' code", "ours"] = "ours"
    template: Literal["model", "plain", "alpaca"] = "model"
    device: str = "auto"
    bfloat16: bool = False
    share: float = Field(default=0.01, gt=0, lt=1)


class ActivationSubspacesParams(Params):
    """Parameters of `activation_subspaces`: see `trimtab.inspection.activation_subspaces`.

    `safe` are harmful prompts, refused, and `useful` benign ones, answered: shipped sets, JSONL
    files or suite:NAME, of each of which `limit` are taken, evenly spread, and of both as many.
    `model` is a name or role of the lineup's, empty for the reference.
    """

    recipe: Recipe
    safe: str
    useful: str
    model: str = ""
    limit: int | None = Field(default=128, ge=1)
    rank: int = Field(default=16, ge=1, le=1024)
    centre: bool = False
    tokens: Literal["answers", "all"] = "answers"
    seed: int = Field(default=0, ge=0)
    template: Literal["model", "plain", "alpaca"] = "model"
    device: str = "auto"
    bfloat16: bool = False


class SomfParams(Params):
    """Parameters of `somf`: see `trimtab.realign.somf_options.SomfOptions`.

    `pairs` is a file of preference pairs; `output` the mask's, in `form`. While it learns, the log
    grows as `<name>.somf.partial/log.json` beside it. Cancelled or abandoned, it keeps what it has
    learned there, and goes on with `resume`.
    """

    recipe: Recipe
    pairs: str
    output: str
    granularity: Literal["parameter", "row", "head", "module"] = "row"
    merge: Literal["single", "task_arithmetic", "ties", "dare"] | None = None
    scale: float | None = Field(default=None, ge=-2, le=2)
    rescale: Literal["tensor", "none"] | None = None
    reference: Literal["aligned", "authors"] = "aligned"
    beta: float = Field(default=0.1, gt=0)
    rate: float = Field(default=1e-3, gt=0)
    steps: int = Field(default=500, ge=1)
    batch: int = Field(default=16, ge=1)
    warmup: int = Field(default=0, ge=0)
    seed: int = 0
    validation: float = Field(default=0.1, ge=0, lt=1)
    log_every: int = Field(default=10, ge=1)
    checkpoint_every: int = Field(default=100, ge=1)
    form: Literal["expected", "threshold", "sample", "concrete"] = "expected"
    device: str = "auto"
    resume: bool = False
    overwrite: bool = False


class SomfExportParams(Params):
    """Parameters of `somf_export`: logits that were learned, and the form of mask wanted of them.

    `seed` decides samples; by default it is that of the learning. `cut` is what σ(x) must be above
    in the form threshold.
    """

    logits: str
    output: str
    form: Literal["expected", "threshold", "sample", "concrete"] = "expected"
    seed: int | None = None
    cut: float = Field(default=0.5, gt=0, lt=1)
    overwrite: bool = False


class AntidoteEstimateParams(Params):
    """Parameters of `antidote_estimate`, and those of `antidote` that say what would be pruned.

    `calibration` is a file of harmful prompts with harmful answers, or of preference pairs, of
    which the rejected answers are taken; `limit` takes so many, evenly spread.
    """

    recipe: Recipe
    calibration: str
    variant: Literal["delta-revert", "weight-zeroing", "lora-space"] = "delta-revert"
    alpha: float = 0.1
    norm: Literal["paper", "authors' code", "ours"] = "authors' code"
    modules: tuple[str, ...] = ()
    model: str = ""
    limit: int | None = Field(default=2000, ge=1)
    seed: int = 0
    device: str = "auto"


class AntidoteParams(AntidoteEstimateParams):
    """Parameters of `antidote`: see `trimtab.realign.antidote_run`.

    `control` is where the random control goes, if it is wanted.
    """

    output: str
    rescale: bool = False
    control: str | None = None
    overwrite: bool = False


class RealignParams(Params):
    """Parameters of `realign`: see `trimtab.realign.data_methods`.

    `safety` and `utility` are shipped sets, JSONL files or suite:NAME, of each of which `limit`
    examples are taken, evenly spread; `utility` has one, or one for each fine-tuned model where a
    method goes by several. `options` are the method's own.
    """

    method: str
    recipe: Recipe
    safety: str
    utility: tuple[str, ...] = ()
    output: str
    model: str = ""
    options: dict[str, int | float | str] = Field(default_factory=dict)
    limit: int | None = Field(default=128, ge=1)
    template: Literal["model", "plain", "alpaca"] = "model"
    device: str = "auto"
    bfloat16: bool = False
    overwrite: bool = False


class SafetyLayersParams(Params):
    """Parameters of `safety_layers`: see `trimtab.inspection.safety_layers`.

    `suite` gives the malicious queries (its harmful prompts), the normal ones (its utility
    prompts) and the lookalikes; `normal` and `malicious` name a kind of prompts or a JSONL file in
    their place. `limit` takes so many of each, evenly spread. `locate` names the model whose
    range is found by scaling, by `alpha` or a factor that is found, and by `judge`, on
    `lookalikes` prompts. `fresh` measures again what is known.
    """

    recipe: Recipe
    suite: str = "core"
    normal: str = ""
    malicious: str = ""
    limit: int | None = Field(default=100, ge=2)
    template: Literal["model", "plain", "alpaca"] = "model"
    locate: str = ""
    alpha: float | None = Field(default=None, gt=0, le=4)
    judge: str = "phrases"
    lookalikes: int | None = Field(default=None, ge=1)
    seed: int = 0
    device: str = "auto"
    bfloat16: bool = False
    fresh: bool = False


class MaskScore(BaseModel):
    """What entries are chosen by, and how many: see `trimtab.masks.builders`.

    `file` holds scores, or the input strengths that "wanda" and "delta-wanda" are computed from, in
    `mode`. One of `keep`, `remove` (shares) and `threshold` says how many are chosen; what reaches
    the threshold is kept, or with `removes` goes. Of "wanda" `scored` says whose weights they are.
    """

    model_config = ConfigDict(extra="forbid")

    score: Literal["magnitude", "wanda", "delta-wanda", "stored"] = "magnitude"
    file: str = ""
    mode: Literal["paper", "authors' code", "ours"] = "ours"
    keep: float | None = Field(default=None, ge=0, le=1)
    remove: float | None = Field(default=None, ge=0, le=1)
    threshold: float | None = Field(default=None, allow_inf_nan=False)
    extent: Literal["row", "tensor", "model"] = "tensor"
    smallest: bool = False
    removes: bool = False
    scored: Literal["aligned", "finetuned"] = "finetuned"


class MaskBuildParams(Params):
    """Parameters of `mask_build`: a mask of one fine-tuned model's entries, chosen by `of`.

    Those that `minus` chooses are left out of it. Where `only` says of which tensors, the others
    are kept. `builder` is what its file calls it, by default after the scores. Without `by_tensor`
    the account tells nothing of single tensors, of which there may be very many.
    """

    recipe: Recipe
    output: str
    of: MaskScore
    minus: MaskScore | None = None
    only: Rule | None = None
    model: str = ""
    builder: str = ""
    by_tensor: bool = True
    overwrite: bool = False


class MaskCombineParams(Params):
    """Parameters of `mask_combine`: a stack that is written as one mask.

    Its tensors are those that the fine-tuned `model` of the recipe changes, or without a recipe
    those that the stack's files mask.
    """

    entries: tuple[MaskEntry, ...]
    output: str
    recipe: Recipe | None = None
    model: str = ""
    seed: int = 0
    overwrite: bool = False


class MaskAccountParams(Params):
    """Parameters of `mask_account`: what masks remove of a fine-tuned model's task vector.

    Without `entries` they are the model's own in the recipe. The output's energy is told with
    `norms`, a file of input strengths taken by `mode`, or a `calibration` set (a shipped one, a
    JSONL file, suite:NAME) of which `limit` examples are run: `output` "exact" with Σ x xᵀ,
    "diagonal" as if inputs were uncorrelated, "auto" exactly where the sums are small enough.
    Without `by_tensor` nothing is told of single tensors.
    """

    recipe: Recipe
    entries: tuple[MaskEntry, ...] | None = None
    model: str = ""
    norms: str = ""
    mode: Literal["paper", "authors' code", "ours"] = "ours"
    calibration: str = ""
    limit: int | None = Field(default=128, ge=1)
    output: Literal["auto", "exact", "diagonal"] = "auto"
    device: str = "auto"
    by_tensor: bool = True


class MaskControlParams(Params):
    """Parameters of `mask_control`: see `trimtab.masks.matched.write_control`.

    Without `by_tensor` nothing is told of single tensors.
    """

    recipe: Recipe
    output: str
    entries: tuple[MaskEntry, ...] | None = None
    model: str = ""
    match: Literal["energy", "entries"] = "energy"
    over: Literal["tensor", "model"] = "tensor"
    seed: int = 0
    by_tensor: bool = True
    overwrite: bool = False


class ExtractParams(Params):
    """Parameters of `extract_lora`: see `trimtab.lora.extract.ExtractOptions`."""

    finetuned: str
    reference: str
    output: str
    rank: int = 32
    energy: float | None = None
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    embeddings: bool = False
    whole: bool = False
    base_name: str = ""
    seed: int = 0
    overwrite: bool = False


class SweepParams(Params):
    """Parameters of `sweep`: see `trimtab.search.spec.Spec` and `trimtab.search.run.Budget`.

    `output` is the sweep's folder. With `resume` the sweep there goes on; what is given besides
    must then be what it was begun with. Without `space` a curve over the layers and factors for
    attention and MLPs vary; without `judge` it is "demo" for the suite "demo", else "phrases".
    """

    output: str
    recipe: Recipe | None = None
    space: Space | None = None
    sampler: Literal["grid", "random", "tpe", "cmaes", "nsga2"] = "tpe"
    seed: int = Field(default=0, ge=0)
    population: int = Field(default=0, ge=0)
    steps: int = Field(default=5, ge=2)
    objectives: tuple[str, ...] = ("refusal", "over_refusal", "task")
    constraints: tuple[str, ...] = ()
    measure: Literal["probes", "answers"] = "probes"
    suite: str = "auto"
    format: str | None = None
    judge: str | None = None
    held_out: float = Field(default=0.5, gt=0, lt=1)
    limit: int | None = Field(default=128, ge=1)
    linear_steps: int = Field(default=10, ge=1)
    decoding: dict[str, int | float | str] = Field(default_factory=dict)
    trials: int | None = Field(default=None, ge=1)
    minutes: float | None = Field(default=None, gt=0)
    workers: int = Field(default=1, ge=1, le=64)
    points: int = Field(default=8, ge=0)
    device: str = "auto"
    resume: bool = False
    overwrite: bool = False


class DiscardParams(Params):
    """Parameters of `discard`: the output whose interrupted merge is thrown away."""

    output: str
