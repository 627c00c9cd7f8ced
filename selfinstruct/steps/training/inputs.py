"""What a training is made of, found and read before any weight: base, records, form, plan, mark."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from selfinstruct.core.errors import RecipeError, UserError
from selfinstruct.core.ids import fingerprint
from selfinstruct.core.money import from_dollars
from selfinstruct.core.sections.student import StudentConfig
from selfinstruct.steps.planning.job import Job
from selfinstruct.steps.planning.model import measure_model
from selfinstruct.steps.planning.outlook import Outlook, foresee
from selfinstruct.steps.planning.room import Room, is_sharded
from selfinstruct.steps.planning.throughput import Throughput, Wanted, choose, without_flash
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.training.adapters import add_adapter
from selfinstruct.steps.training.base import TEACHER_KEYS, Base, find_base, speaking_of
from selfinstruct.steps.training.format import StudentFormat
from selfinstruct.steps.training.later import Data
from selfinstruct.steps.training.lessons import Lessons, prepare
from selfinstruct.steps.training.loading import (
    check_vocabulary,
    context_length,
    is_encoder_decoder,
    load_model,
    load_tokenizer,
    use_liger,
)
from selfinstruct.steps.training.own_data import read_conversations, read_pairs
from selfinstruct.steps.training.packing import settle
from selfinstruct.steps.training.plan import Plan, arrange
from selfinstruct.steps.training.records import read_split
from selfinstruct.steps.training.runtime import (
    check_method,
    check_optimizer,
    choose_device,
    compute_dtype,
    weight_dtype,
)
from selfinstruct.steps.training.template import read_template

FORMAT = 3  # raise it when the same settings and records are to give another student
# Settings that change what a training costs or leaves behind, not what the student learns.
# Base, revision and chat template count by what is in their files.
NOT_LEARNED = (
    "base", "revision", "chat_template", "save_steps", "merge", "gpu_hour_price", "report_to",
    "dataloader_workers",
)  # fmt: skip


class Inputs:
    """What the training of one student on one dataset starts from.

    Args:
        config: the recipe's student section.
        dataset: the dataset folder.
        policy: which hosts may be asked for a base.
        system: the system message of conversations without one.
        seed: of every random draw.

    Attributes:
        rows: the training records that the chat template takes.
        refused: what is to be said of the others.
        base: what is fine-tuned.
        form: how records are written for it.
        device: "cpu", "cuda" or "mps".
        data: what the trainings after fine-tuning read.
        plan: the settings; the micro-batch is not known yet where the recipe leaves it open.
        mark: fingerprint of all that decides what the student learns.

    Raises a `UserError` for what the user can mend.
    """

    def __init__(
        self, config: StudentConfig, dataset: Path, policy: Policy, *, system: str, seed: int
    ) -> None:
        self.config = config
        self.rows = read_split(dataset, "train")
        if config.conversations is not None:
            self.rows += read_conversations(config.conversations)
        self.base: Base = find_base(config.base, policy, config.revision)
        self.form = self._form(system)
        self.rows, self.refused = self.form.taken(self.rows)
        self.device = choose_device(config.device)
        check_method(config.method)
        if config.neftune_alpha is not None and self.form.encoder:
            raise RecipeError(
                f"student.neftune_alpha: {self.base.name} is an encoder-decoder, on whose "
                "embeddings the library puts no noise; leave it out"
            )
        split_rates = config.lora_plus_ratio is not None
        check_optimizer(config.optimizer, sharded=is_sharded(), split_rates=split_rates)
        distilled, preferred = config.distillation, config.preference
        teacher = None
        if distilled is not None:
            with speaking_of(TEACHER_KEYS):
                teacher = find_base(distilled.teacher, policy, distilled.revision)
        self.data = Data(
            teacher=teacher,
            pairs=read_pairs(preferred.data) if preferred else [],
        )
        self.mark = self._mark(seed)
        self.plan = self._plan(seed)

    def _form(self, system: str) -> StudentFormat:
        """How records are written: by the base's tokenizer, with the recipe's template if any."""
        tokenizer = load_tokenizer(self.base.folder, self.base.name)
        given = self.config.chat_template
        if given is not None:
            tokenizer.chat_template = read_template(given)
        return StudentFormat(
            tokenizer,
            self.base.name,
            system,
            encoder=is_encoder_decoder(self.base.folder, self.base.name),
            template=given or "",
        )

    @functools.cached_property
    def lessons(self) -> Lessons:
        """What is learned; made once it is needed. Raises `UserError` where nothing is left."""
        context = context_length(self.base.folder, self.base.name)
        found = prepare(self.form, self.rows, self.config.max_length, context)
        return msgspec.structs.replace(found, notes=[*self.refused, *found.notes])

    def outlook(self, room: Room, calibration: float) -> Outlook:
        """What training takes in `room`; without a GPU, the processor is timed for so long."""
        model = measure_model(self.base.folder, self.base.name)
        scores = self.plan.throughput.chosen == "eager"
        model = msgspec.structs.replace(model, stored_scores=scores)
        price = from_dollars(self.config.gpu_hour_price)
        return foresee(model, self._job(), room, hour_price=price, calibration=calibration)

    def settled(self, outlook: Outlook) -> Plan:
        """The settings with what the plan chose."""
        return msgspec.structs.replace(
            self.plan, micro_batch_size=outlook.micro_batch_size, recompute=outlook.recompute
        )

    def load(self, plan: Plan) -> tuple[Any, Plan, list[str]]:
        """What is trained, the plan as it can be carried out, and what is to be said.

        It is the base, with a new adapter around it unless all weights are trained. Raises
        `UserError` for a base that cannot be loaded, or packing that it cannot have.
        """
        insisted = self.config.packing is True
        model, plan, notes = self._with_attention(plan, insisted)
        check_vocabulary(model, self.form.tokenizer, self.base.name)
        if plan.throughput.liger:
            use_liger(model)
        plan, more = settle(model, plan, self.base.name, insisted=insisted)
        notes = [f"trained with {plan.throughput.words}", *notes, *more]
        return model if plan.method == "full" else add_adapter(model, plan), plan, notes

    def _with_attention(self, plan: Plan, insisted: bool) -> tuple[Any, Plan, list[str]]:
        """The base's model; with PyTorch's attention where FlashAttention was only to be tried."""
        found = plan.throughput
        if self.config.attention != "auto" or found.attention is None:
            return self.weights(plan), plan, []
        try:
            return self.weights(plan), plan, []
        except UserError as error:  # a kernel that is there need not be for this GPU or PyTorch
            why = f"{found.chosen} was not used: {error}"
        plan = msgspec.structs.replace(plan, throughput=without_flash(found, insisted=insisted))
        return self.weights(plan), plan, [why]

    def weights(self, plan: Plan) -> Any:
        """The base's model, in the precision it is trained in. Raises `UserError`."""
        # FSDP moves a processor's model to the GPU layer by layer. Four bits it does not split, and
        # packing is tried first, where the kernel runs.
        whole = not is_sharded() or plan.method == "qlora" or plan.throughput.packing
        return load_model(
            self.base.folder,
            self.base.name,
            device=plan.device if whole else "cpu",
            dtype=weight_dtype(plan.device, trained=plan.method == "full"),
            quantized=plan.method == "qlora",
            attention=plan.throughput.attention,
        )

    def _job(self) -> Job:
        kept = self.lessons.examples.kept
        lengths = [example.length for example in kept]
        plan, order = arrange(lengths, self.plan)
        chosen = self.config.micro_batch_size
        return Job(
            method=self.config.method,
            rank=self.config.lora_rank,
            batch_size=plan.batch_size,
            micro_batch_size=None if chosen == "auto" else chosen,
            lengths=[lengths[at] for at in order],
            epochs=len(order) / len(lengths),
            recompute=None if plan.recompute == "auto" else plan.recompute,
            optimizer=plan.optimizer,
            throughput=plan.throughput,
            sparse_head=plan.sparse_head,
            answers=sum(example.learned for example in kept) / sum(lengths),
        )

    def _mark(self, seed: int) -> str:
        settings = self.config.model_dump(mode="json", exclude=set(NOT_LEARNED))
        # Not where the student's own data are, but what was read there.
        settings["conversations"] = None
        for section, keys in (("distillation", ("teacher", "revision")), ("preference", ("data",))):
            if settings[section] is not None:
                settings[section] = {k: v for k, v in settings[section].items() if k not in keys}
        learned: Sequence[Any] = [
            FORMAT, settings, seed, self.base.identity, self.form.tag, self.rows,
            self.data.pairs, self.data.teacher and self.data.teacher.identity,
            self.config.chat_template and self.form.tokenizer.chat_template,
        ]  # fmt: skip
        return fingerprint(learned)

    def _plan(self, seed: int) -> Plan:
        chosen = self.config.micro_batch_size
        return Plan(
            **self.config.model_dump(
                include=set(Plan.__struct_fields__) - {"device", "micro_batch_size"}
            ),
            micro_batch_size=1 if chosen == "auto" else chosen,  # what fits is not known yet
            seed=seed,
            device=self.device,
            throughput=self._throughput(),
        )

    def _throughput(self) -> Throughput:
        """What makes it fast, of what the recipe asks for. Raises `RecipeError`."""
        asked = self.config.model_dump(include=set(Wanted.__struct_fields__))
        if self.config.neftune_alpha is not None:
            asked["packing"] = False
        bf16 = str(compute_dtype(self.device)) == "torch.bfloat16"
        return choose(self.base.folder, self.base.name, self.device, Wanted(**asked), bf16=bf16)
