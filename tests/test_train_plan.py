"""The plan of a training."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.core.errors import RecipeError
from selfinstruct.steps.training.plan import Plan, accumulation


def plan(batch: int, micro: int) -> Plan:
    others: dict[str, Any] = dict.fromkeys(Plan.__struct_fields__, 0)
    return Plan(**others | {"batch_size": batch, "micro_batch_size": micro})


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 8))
def test_micro_batches_make_up_the_batch(share: int, micro: int, processes: int) -> None:
    """Whatever the recipe says, a step sees exactly batch_size examples over all processes."""
    size, steps = accumulation(plan(share * processes, micro), processes)
    assert size * steps * processes == share * processes
    assert 1 <= size <= micro


def test_a_batch_that_cannot_be_shared_out() -> None:
    """A batch that the processes cannot divide is refused, not rounded."""
    with pytest.raises(RecipeError, match=r"student\.batch_size: 6.*multiple of 4"):
        accumulation(plan(6, 2), 4)
    with pytest.raises(RecipeError, match="multiple of 4"):
        accumulation(plan(2, 2), 4)
