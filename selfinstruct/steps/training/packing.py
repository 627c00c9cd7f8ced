"""Examples in one row: the proof that attention keeps them apart, and the row cut up again.

A packed micro-batch is one row of its examples, one after another, each with positions from 0.
Whether an example sees those before it depends on the architecture and on the attention it uses,
so the model that is about to be trained is asked.
"""

from __future__ import annotations

from typing import Any

import msgspec

from selfinstruct.core.errors import UserError
from selfinstruct.steps.training.plan import Plan
from selfinstruct.steps.training.runtime import compute_dtype

# Where TRL's collator says how a row is made up.
EDGES = "cu_seq_lens_q"
# Differences that rounding may make, as shares of the largest logit: between one packing and
# another, where every sum has the same terms, and between packed and alone, where kernels differ.
SEEN, ROUNDED = 1e-3, 0.05
_LENGTHS = (13, 19)


def settle(model: Any, plan: Plan, name: str, *, insisted: bool) -> tuple[Plan, list[str]]:
    """`plan` as `model` can carry it out, and what is to be said where that is without packing.

    Args:
        model: the base, loaded as it will be trained.
        plan: how it is to be trained.
        name: the base's name.
        insisted: whether the recipe asks for packing, instead of leaving it open.

    Raises `UserError` where packing is insisted on and examples would see each other.
    """
    if not plan.throughput.packing or keeps_apart(model, plan.device):
        return plan, []
    why = (
        f"{plan.throughput.chosen} attention of {name} lets packed examples see each other "
        "(found by trying two)"
    )
    if insisted:
        raise UserError(f"student.packing: {why}; set it to auto or false")
    return (
        msgspec.structs.replace(
            plan, throughput=msgspec.structs.replace(plan.throughput, packing=False)
        ),
        [f"examples were not packed: {why}"],
    )


def keeps_apart(model: Any, device: str) -> bool:
    """Whether two packed examples have the logits that each has alone, whatever the other is.

    The model is left in evaluation mode; it computes in the dtype that it will be trained in.
    """
    import torch

    rows = model.get_input_embeddings().num_embeddings
    draw = torch.Generator().manual_seed(0)
    first, second, other = (
        torch.randint(rows, (length,), generator=draw).tolist() for length in (*_LENGTHS, 13)
    )
    model.eval()
    dtype = compute_dtype(device)
    with torch.inference_mode(), torch.autocast(device, dtype, enabled=dtype != torch.float32):
        both, swapped = (_logits(model, [one, second]) for one in (first, other))
        alone = torch.cat([_logits(model, [one]) for one in (first, second)])
    scale = alone.abs().max()
    seen = (both - swapped)[len(first) :].abs().max() / scale
    moved = (both - alone).abs().max() / scale
    return bool(seen <= SEEN and moved <= ROUNDED)


def _logits(model: Any, examples: list[list[int]]) -> Any:
    """Logits (tokens, vocabulary) of `examples` packed as training packs them."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    collator = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    batch = collator([{"input_ids": ids} for ids in examples])
    batch.pop("labels")
    where = model.get_input_embeddings().weight.device
    moved = {name: one.to(where) if hasattr(one, "to") else one for name, one in batch.items()}
    return model(**moved, use_cache=False).logits[0].float()


def examples_in(row: dict[str, Any]) -> int:
    """How many examples a packed row holds."""
    return len(row[EDGES]) - 1


def cut_row(row: dict[str, Any], pieces: int) -> list[dict[str, Any]]:
    """A packed row as at most `pieces` rows of whole examples."""
    edges = row[EDGES].tolist()
    size = -(-(len(edges) - 1) // pieces)
    return [
        _part(row, edges, at, min(at + size, len(edges) - 1))
        for at in range(0, len(edges) - 1, size)
    ]


def _part(row: dict[str, Any], edges: list[int], first: int, last: int) -> dict[str, Any]:
    start, stop = edges[first], edges[last]
    bounds = row[EDGES][first : last + 1] - start
    longest = max(edges[at + 1] - edges[at] for at in range(first, last))
    part = {
        name: value[:, start:stop] if getattr(value, "ndim", 0) == 2 else value
        for name, value in row.items()
    }
    part["seq_idx"] = part["seq_idx"] - first
    part |= {EDGES: bounds, "cu_seq_lens_k": bounds}
    return part | {"max_length_q": longest, "max_length_k": longest}
