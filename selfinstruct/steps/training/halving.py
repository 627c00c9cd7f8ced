"""When memory runs out in a step: the step again, in smaller pieces, and so from then on.

The batch stays what it was: a micro-batch goes through the model in pieces whose gradients add up
to those of the whole, up to rounding. Nothing of the half-done step is used.
"""

from __future__ import annotations

import gc
from typing import Any

from selfinstruct.steps.training import packing
from selfinstruct.steps.training.plan import process_count


class Halving:
    """Stands before a trainer's `training_step` once it is attached.

    `pieces` is how many a micro-batch is split into; `notes` say what was changed and why.
    """

    def __init__(self) -> None:
        self.pieces = 1
        self.notes: list[str] = []
        self._told = 0
        self._trainer: Any = None
        self._plain: Any = None
        self._step = -1
        self._seen: list[dict[str, Any]] = []

    def attach(self, trainer: Any) -> None:
        """Take the place of `trainer.training_step`."""
        self._trainer, self._plain = trainer, trainer.training_step
        trainer.training_step = self

    def __call__(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        """The loss of one micro-batch, its gradients added up; see `Trainer.training_step`."""
        if self._trainer.state.global_step != self._step:
            self._step, self._seen = self._trainer.state.global_step, []
        self._seen.append(dict(inputs))
        todo = self._seen[-1:]
        while True:
            failure = self._tried(model, todo, num_items_in_batch)
            if not isinstance(failure, BaseException):
                return failure
            # The gradients are sums; without the items' number, pieces would not add up, and other
            # processes would wait for ever for the gradients of a step begun anew.
            if num_items_in_batch is None or process_count() > 1 or not self._halve():
                raise failure
            del failure
            model.zero_grad(set_to_none=True)
            _free()
            todo = self._seen  # what went before in this step, whose gradients are gone

    def untold(self) -> list[str]:
        """The notes that were not asked for before."""
        new, self._told = self.notes[self._told :], len(self.notes)
        return new

    def _tried(self, model: Any, todo: list[dict[str, Any]], items: Any) -> Any:
        """The last micro-batch's loss, or the error where memory ran out."""
        try:
            for inputs in todo:
                loss = sum(self._plain(model, piece, items) for piece in split(inputs, self.pieces))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return error.with_traceback(None)  # its frames hold the tensors that filled the memory
        return loss

    def _halve(self) -> bool:
        """Split in twice as many; False where a piece is one example already."""
        rows = max(_rows(inputs) for inputs in self._seen)
        before = -(-rows // self.pieces)
        if before == 1:
            return False
        self.pieces *= 2
        self.notes.append(
            f"memory ran out with {before} examples per forward pass at step {self._step + 1}; "
            f"went on with {-(-rows // self.pieces)}, the batch stays the same"
        )
        return True


def split(inputs: dict[str, Any], pieces: int) -> list[dict[str, Any]]:
    """A micro-batch in at most `pieces` parts of its examples."""
    if packing.EDGES in inputs:
        return packing.cut_row(inputs, pieces)
    rows = _rows(inputs)
    size = -(-rows // pieces)
    return [
        {
            name: value[at : at + size] if _is_rows(value) else value
            for name, value in inputs.items()
        }
        for at in range(0, rows, size)
    ]


def _rows(inputs: dict[str, Any]) -> int:
    if packing.EDGES in inputs:
        return packing.examples_in(inputs)
    return next(len(value) for value in inputs.values() if _is_rows(value))


def _is_rows(value: Any) -> bool:
    return hasattr(value, "shape") and value.dim() > 0


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or this machine, had no memory left."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _free() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
