"""The loss of supervised fine-tuning, computed where there is one.

Of a record's tokens only the answer's are learned, and over a vocabulary of 50,000 the output layer
is a good part of a small model's work. Here it runs on the positions that predict an answer's
token, and nowhere else; the loss and its gradients are those of the plain computation.

TRL does the same on GPUs by a Triton kernel, and its trainer is left to it there. On processors it
computes every position twice, entropies included, so the model gets this head instead.
"""

from __future__ import annotations

import types
from functools import cache
from typing import Any

from selfinstruct.steps.planning.memory import ROWS as TILE
from selfinstruct.steps.planning.model import has_plain_head
from selfinstruct.steps.training.halving import is_out_of_memory


def add_answer_head(model: Any) -> bool:
    """Give a causal model a forward that returns the summed loss of its labels.

    ``model(..., labels=labels, answer_loss=True)`` returns the sum of the negative
    log-likelihoods (nats) of the labels that are not -100, each predicted by the position before
    it; any other call is the model's own. A PEFT model passes such calls on.

    Returns False, and changes nothing, where the model scales its logits or has no plain head.
    """
    import torch

    own = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not has_plain_head(own) or not _multiplies(own):
        return False
    forward = own.forward
    # Its shapes depend on the labels: torch.compile is to leave it as it is.
    summed = torch.compiler.disable(_summed_loss)

    def answering(self: Any, *args: Any, answer_loss: bool = False, **kwargs: Any) -> Any:
        if not answer_loss:
            return forward(*args, **kwargs)
        labels = kwargs.pop("labels")
        hidden = self.base_model(*args, **kwargs, use_cache=False).last_hidden_state
        return summed(hidden[:, :-1], labels[:, 1:], self.get_output_embeddings())

    own.forward = types.MethodType(answering, own)
    return True


def _multiplies(model: Any) -> bool:
    """Whether the logits of a few tokens are the product; settings may have names unknown here."""
    import torch

    training, head = model.training, model.get_output_embeddings()
    ids = torch.arange(4, device=head.weight.device).unsqueeze(0)
    model.eval()
    try:
        with torch.no_grad():
            logits = model(ids, use_cache=False).logits
            product = head(model.base_model(ids, use_cache=False).last_hidden_state)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return True  # the first step runs out too, and says what to lower
    finally:
        model.train(training)
    return bool((logits - product).abs().max() <= 1e-4 * logits.abs().max())


def _summed_loss(hidden: Any, labels: Any, head: Any) -> Any:
    """Sum of the losses where `labels` is not -100; zero, with a gradient, where it always is."""
    import torch

    learned, place = labels != -100, hidden.device.type
    mixed = torch.is_autocast_enabled(place)
    dtype = torch.get_autocast_dtype(place) if mixed else hidden.dtype
    with torch.autocast(place, enabled=False):  # the weight is cast once, not for each tile
        return _function().apply(hidden[learned], head.weight, head.bias, labels[learned], dtype)


@cache
def _function() -> Any:
    """The sum of cross-entropies as a function of its own, which keeps no logits.

    The gradient of each tile of logits is turned into that of what went in while the tile is at
    hand, as in Liger's fused linear cross-entropy (Hsu et al. 2024).
    """
    import torch

    class SummedLoss(torch.autograd.Function):  # type: ignore[misc]  # the library is untyped
        @staticmethod
        def forward(ctx: Any, hidden: Any, weight: Any, bias: Any, labels: Any, dtype: Any) -> Any:
            total = hidden.new_zeros((), dtype=torch.float32)
            wanted = ctx.needs_input_grad[:3]
            grads = [
                torch.zeros_like(value) if needed and value is not None else None
                for value, needed in zip((hidden, weight, bias), wanted, strict=True)
            ]
            matrix, offset = weight.to(dtype), None if bias is None else bias.to(dtype)
            for start in range(0, len(labels), TILE):
                rows, ids = hidden[start : start + TILE].to(dtype), labels[start : start + TILE]
                logits = torch.nn.functional.linear(rows, matrix, offset).float()
                sums = logits.logsumexp(-1, keepdim=True)
                chosen = ids.unsqueeze(-1)
                total += (sums - logits.gather(-1, chosen)).sum()
                if not any(wanted):
                    continue
                # Softmax less the label's one: the gradient by the logits.
                slopes = logits.sub_(sums).exp_()
                slopes.scatter_add_(-1, chosen, slopes.new_full(chosen.shape, -1.0))
                slopes = slopes.to(dtype)
                if grads[0] is not None:
                    grads[0][start : start + TILE] = slopes @ matrix
                if grads[1] is not None and weight.dtype == dtype:
                    grads[1].addmm_(slopes.T, rows)
                elif grads[1] is not None:  # tiles add up in the weight's own precision
                    grads[1] += slopes.T @ rows
                if grads[2] is not None:
                    grads[2] += slopes.sum(0)
            ctx.grads = grads
            return total

        @staticmethod
        def backward(ctx: Any, *outer: Any) -> Any:
            # In place: that of the head is as large as the head. They serve once.
            grads, ctx.grads = ctx.grads, ()
            return *(None if g is None else g.mul_(outer[0]) for g in grads), None, None

    return SummedLoss
