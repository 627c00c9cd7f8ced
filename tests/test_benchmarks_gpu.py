"""The GPU benchmark without a GPU: its dry run, what it writes and resumes, its targets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import run, simulated
from benchmarks.gpu.cases import CASES, SHAPES

DONE = {"tokens_per_s": 1.0, "peak_gib": 1.0}


@pytest.mark.slow
def test_every_case_runs_on_a_processor(capsys: pytest.CaptureFixture[str]) -> None:
    """The dry run trains and answers with a tiny shape; only what needs a GPU is skipped."""
    assert run.main(["--dry-run"]) == 0
    said = capsys.readouterr().out
    lines = {line.partition(":")[0]: line for line in said.split("\n\n")[0].splitlines()}
    assert lines.keys() == CASES.keys()
    skipped = {name for name, line in lines.items() if "skipped" in line}
    assert skipped == {"packing-flash", "packing-flex", "kernels-liger", "kernels-flash"}
    assert "examples packed without padding" in said


def test_cases_stand_in_the_order_of_their_worth() -> None:
    """What has a target comes first, and both sides of a comparison one after the other."""
    names = list(CASES)
    assert names[:3] == ["full-7b-ours", "full-7b-trl", "full-7b-ours-8bit"]
    for name in names:
        if name.endswith("trl"):
            assert names[names.index(name) - 1] == name.removesuffix("trl") + "ours"


# PEFT reads a property that this transformers calls by another name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_plan_is_near_a_simulated_step(method: Any, recompute: bool) -> None:
    """Memory on a GPU, of four layers of the 7B shape with 4,096 tokens, within 20%."""
    step = simulated.Step("7b", method, rows=2, length=2048, recompute=recompute)
    found = simulated.simulate(simulated.config_of("7b", layers=4), step)
    assert simulated.planned(step, layers=4) == pytest.approx(found, rel=simulated.ERROR)


@pytest.mark.parametrize(("shape", "least", "most"), [("1b", 1.2, 1.3), ("7b", 6.7, 6.8)])
def test_shapes_have_the_sizes_they_are_called_by(
    shape: str, least: float, most: float, tmp_path: Path
) -> None:
    """Billions of parameters, counted as the plan counts them."""
    from transformers import LlamaConfig

    from selfinstruct.steps.planning.model import measure_model

    LlamaConfig(**SHAPES[shape]).save_pretrained(tmp_path)
    assert least < measure_model(tmp_path, shape).parameters / 1e9 < most


def test_partial_results_are_kept_and_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each case is written at once; failures are tried again, what was measured is not."""
    results, tried = tmp_path / "gpu.json", []

    def child(command: list[str], **_: Any) -> Any:
        name = command[3]
        tried.append(name)
        if len(tried) == 2:
            raise run.ChildFailed("exit status -9: killed")

        class Finished:
            said = {name: DONE}  # noqa: RUF012 (read once)

        return Finished

    monkeypatch.setattr(run, "run", child)
    names = "lora-7b-ours,lora-7b-trl,generation"
    arguments = ["--cases", names, "--results", str(results)]
    assert run.main(arguments) == 0
    found = json.loads(results.read_text())["cases"]
    assert "killed" in found["lora-7b-trl"]["error"]
    assert found["generation"]["date"]
    assert run.main(arguments) == 0
    assert tried[3:] == ["lora-7b-trl"]
    assert list(json.loads(results.read_text())["cases"]) == names.split(",")
    assert run.main([*arguments, "--again", "--budget", "1"]) == 0
    assert f"no time left for {names.replace(',', ', ')}" in capsys.readouterr().out
    assert len(tried) == 4


def test_a_machine_without_a_gpu_says_so(tmp_path: Path) -> None:
    """A real child on a machine without CUDA is skipped, and not taken for measured."""
    results = tmp_path / "gpu.json"
    assert run.main(["--cases", "generation", "--results", str(results)]) == 0
    import torch

    if not torch.cuda.is_available():
        assert "no CUDA GPU" in run.read(results)["generation"]["skipped"]
        assert not run.is_done(results, "generation")


def test_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half the peak at 7B, never slower than TRL; what was not measured is not met."""
    cases: dict[str, dict[str, Any]] = {
        name: {**DONE, "tokens_per_s": 10.0 if "trl" in name else 11.0, "mfu": 0.51}
        for name in CASES
    }
    assert all(target.met for target in run.targets(cases))
    assert run.check(cases) == 0
    cases["full-7b-ours"]["mfu"] = 0.49  # with 8-bit moments it is still reached
    assert run.check(cases) == 0
    cases["full-7b-ours-8bit"]["mfu"] = 0.49
    cases["lora-1b-ours"]["tokens_per_s"] = 9.9
    cases["lora-7b-trl-bf16"]["tokens_per_s"] = 11.1  # the faster of TRL's counts
    assert [target.part for target in run.targets(cases) if not target.met] == [
        "full-7b", "lora-7b", "lora-1b",
    ]  # fmt: skip
    assert run.main(["--check", "--results", str(tmp_path / "none.json")]) == 1
    assert "MISSED" in capsys.readouterr().out
