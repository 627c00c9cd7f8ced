"""When memory runs out in a step: the step again, in smaller pieces, and so from then on.

The batch stays what it was: a micro-batch goes through the model in pieces whose gradients add up
to those of the whole, up to rounding. Nothing of the half-done step is used. With several processes
that is settled before the first step, see `rehearsal`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from selfinstruct.steps.planning.room import is_sharded
from selfinstruct.steps.training import packing
from selfinstruct.steps.training.plan import process_count
from selfinstruct.steps.training.rehearsal import rehearse
from selfinstruct.steps.training.runtime import free_memory

# How it is said besides: by a processor, by CUDA's libraries, and by Triton's kernels.
_SAID = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDA]: out of memory")


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
        self._pairs = False
        self._largest: Sequence[int] = ()
        self._moments = 0.0

    def attach(
        self, trainer: Any, largest: Sequence[int], moments: float, *, pairs: bool = False
    ) -> None:
        """Take the place of `trainer.training_step`.

        Args:
            trainer: whose loss is a sum over the number of items, or with `pairs` a mean over them.
            largest: places in its data of the micro-batch that takes the most memory.
            moments: bytes of a trained parameter that the optimizer keeps.
            pairs: whether a micro-batch is so many better answers, and then as many worse ones.
        """
        self._trainer, self._plain = trainer, trainer.training_step
        self._largest, self._moments, self._pairs = largest, moments, pairs
        trainer.training_step = self

    def __call__(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        """The loss of one micro-batch, its gradients added up; see `Trainer.training_step`."""
        if self._step < 0 and process_count() > 1 and not is_sharded():
            self._rehearse()
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
            summable = num_items_in_batch is not None or self._pairs
            if not summable or process_count() > 1 or not self._halve(self._seen):
                raise failure
            del failure
            model.zero_grad(set_to_none=True)
            free_memory()
            todo = self._seen  # what went before in this step, whose gradients are gone

    def untold(self) -> list[str]:
        """The notes that were not asked for before."""
        new, self._told = self.notes[self._told :], len(self.notes)
        return new

    def _tried(self, model: Any, todo: list[dict[str, Any]], items: Any) -> Any:
        """The last micro-batch's loss, or the error where memory ran out."""
        try:
            for inputs in todo:
                loss = self._whole(model, inputs, items)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return error.with_traceback(None)  # its frames hold the tensors that filled the memory
        return loss

    def _whole(self, model: Any, inputs: dict[str, Any], items: Any) -> Any:
        """The loss of one micro-batch, piece by piece."""
        if not self._pairs:
            return sum(self._plain(model, piece, items) for piece in split(inputs, self.pieces))
        loss = 0.0
        for piece in split_pairs(inputs, self.pieces):
            with _weighed(self._trainer, _rows(piece) / _rows(inputs)):
                loss = loss + self._plain(model, piece, items)
        return loss

    def _rehearse(self) -> None:
        """Find the pieces that every process can do."""
        trainer = self._trainer
        batch = trainer.data_collator([trainer.train_dataset[at] for at in self._largest])
        # By its raw model: what stands around it for several processes would wait for the others.
        items = None if self._pairs else int((batch["labels"] != -100).sum())
        rehearse(
            trainer,
            lambda: self._tried(trainer.model, [dict(batch)], items),
            lambda: self._halve([batch]),
            self._moments,
        )

    def _halve(self, seen: Sequence[dict[str, Any]]) -> bool:
        """Split in twice as many; False where a piece of those `seen` is one example already."""
        rows = max(_rows(inputs) for inputs in seen) // (2 if self._pairs else 1)
        before = -(-rows // self.pieces)
        if before == 1:
            return False
        self.pieces *= 2
        self.notes.append(
            f"memory ran out with {before} examples per forward pass at step "
            f"{max(self._step, self._trainer.state.global_step) + 1}; "
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


def split_pairs(inputs: dict[str, Any], pieces: int) -> list[dict[str, Any]]:
    """A micro-batch of better answers, and then as many worse ones, in at most `pieces` parts."""
    import torch

    half = _rows(inputs) // 2
    better, worse = (
        split({name: value[part] for name, value in inputs.items() if _is_rows(value)}, pieces)
        for part in (slice(None, half), slice(half, None))
    )
    return [
        inputs | {name: torch.cat([one[name], other[name]]) for name in one}
        for one, other in zip(better, worse, strict=True)
    ]


@contextlib.contextmanager
def _weighed(trainer: Any, share: float) -> Iterator[None]:
    """Count a mean loss for `share` of a micro-batch: the trainer divides by the steps gathered."""
    steps = trainer.current_gradient_accumulation_steps
    trainer.current_gradient_accumulation_steps = steps / share
    try:
        yield
    finally:
        trainer.current_gradient_accumulation_steps = steps


def _rows(inputs: dict[str, Any]) -> int:
    if packing.EDGES in inputs:
        return packing.examples_in(inputs)
    return next(len(value) for value in inputs.values() if _is_rows(value))


def _is_rows(value: Any) -> bool:
    return hasattr(value, "shape") and value.dim() > 0


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or this machine, had no memory left."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(said in str(error) for said in _SAID)
