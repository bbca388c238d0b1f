"""Which widths a run's gradients have, from the quantizers that are in force, not from what a
configuration asks for.
"""

from __future__ import annotations

from collections.abc import Iterable

from flax import nnx

from qjax.core.quantizer import Quantizer
from qjax.recipe import Recipe
from qjax.surgery import error_slots
from qjax.training.phases import Phase
from qjax.training.spec import RunSpec


def check_error(error: Quantizer | None, recipe: Recipe, phases: Iterable[Phase]) -> None:
    """Raise when a gradient quantizer was chosen that no recipe places.

    Args:
        error: what the configuration's `error` names, None if it has none.
        recipe: of the run. phases: whose own recipes count too.

    Raises:
        ValueError: naming the quantizer, the recipe and the remedy.
    """
    quantized = [phase for phase in phases if phase.quantized]
    recipes = (recipe, *(phase.recipe for phase in quantized if phase.recipe is not None))
    placed = any(r.error is not None and not r.error.is_float for one in recipes for r in one.rules)
    if error is None or error.is_float or placed or not quantized:
        return
    raise ValueError(
        f"error chooses {error.label}, but no rule of the recipe {recipe.name!r} sets an error, so "
        "every gradient would stay float; choose one whose rules do (recipe=NAME_errors of "
        "conf/recipe, or errors_everywhere), or error=none"
    )


def gradient_bits(spec: RunSpec, model: nnx.Module) -> dict[str, int | None]:
    """`e_bits` and `g_bits` of a record: the run's numbers where a quantizer in force has them,
    None where gradients stay float.

    A width that neither of the two names stands under `e_bits` if it is of an error, under `g_bits`
    if it is of the weights' updates (an optimizer with `bits`).

    Args:
        spec: the run.
        model: as the last phase left it.
    """
    found = [slot.values().get("bits") for slot in error_slots(model).values()]
    errors = {int(bits) for bits in found if bits is not None}
    found = [getattr(phase.optimizer, "bits", None) for phase in spec.phases if phase.quantized]
    updates = {bits for bits in found if bits is not None}
    e_bits = spec.e_bits if spec.e_bits in errors else None
    g_bits = spec.g_bits if spec.g_bits in errors | updates else None
    others = errors - {g_bits}
    if e_bits is None and others:
        e_bits = max(others)
    if g_bits is None and updates:
        g_bits = max(updates)
    return {"e_bits": e_bits, "g_bits": g_bits}
