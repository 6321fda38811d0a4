"""What the user may choose about an extracted adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trimtab.errors import UserError


@dataclass(frozen=True)
class ExtractOptions:
    """What the adapter is to be.

    `rank` is the most a matrix gets; with `energy` in (0, 1] it gets as few as keep that share of
    its squared norm. `dtype` is that of the factors. `embeddings` makes factors for the embedding
    and the output head too; `whole` writes changed norms and biases whole, as PEFT's
    `modules_to_save` and `bias`. `base_name` is what the adapter calls its base: the reference's
    path where it is empty. `seed` draws the randomised decomposition's test matrices.
    """

    rank: int = 32
    energy: float | None = None
    dtype: Literal["float32", "float16", "bfloat16"] = "bfloat16"
    embeddings: bool = False
    whole: bool = False
    base_name: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rank < 1 or not (self.energy is None or 0 < self.energy <= 1):
            raise UserError(
                "bad_option",
                "The rank or the energy is out of range.",
                f"The rank is {self.rank}, the energy {self.energy}.",
                "A rank is 1 or more; an energy lies above 0 and goes up to 1.",
            )
