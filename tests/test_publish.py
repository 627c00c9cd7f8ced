"""The publish stage, against a Hub on loopback that speaks the real protocol."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from selfinstruct.cli.main import cli
from selfinstruct.core.errors import PrivacyError, UserError
from selfinstruct.core.recipe import Recipe
from selfinstruct.core.types import SeedTask
from selfinstruct.engine.folder import RunFolder
from selfinstruct.engine.ledger import Ledger
from selfinstruct.stages.publish import plan_publish, publish
from selfinstruct.steps.publishing.hub import Difference, open_hub
from selfinstruct.steps.publishing.parcel import local_file
from selfinstruct.testing.fake_hub import HubState, running

pytestmark = [
    # huggingface_hub 2.4 uploads LFS files with `data=`, which its own HTTP client deprecates.
    pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw:DeprecationWarning"),
]

CARD = """---
license: mit
language: [en]
configs:
- config_name: default
  data_files:
  - {split: train, path: data/train-00000-of-00001.parquet}
  - {split: test, path: data/test-00000-of-00001.parquet}
- config_name: rejected
  data_files:
  - {split: rejected, path: rejected/rejected-00000-of-00001.parquet}
---

# poems

```python
dataset = load_dataset("PATH_OR_REPOSITORY")
rejects = load_dataset("PATH_OR_REPOSITORY", "rejected")
```
"""
MODEL_CARD = """---
license: apache-2.0
library_name: transformers
base_model: /home/somebody/models/base
---

# A student
"""


def write_rows(path: Path, *rows: tuple[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {
        "id": [name for name, _ in rows],
        "instruction": ["Name a colour."] * len(rows),
        "input": [""] * len(rows),
        "output": [text for _, text in rows],
    }
    pq.write_table(pa.table(table), path)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A Hub with one user, "owner", whose token is in the environment."""
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    with running(HubState(tokens={"hf_test": "owner", "hf_other": "other"})) as hub:
        yield hub


@pytest.fixture
def run(tmp_path: Path, hub: HubState) -> RunFolder:
    """A run folder with a dataset of three records and one reject, and a student."""
    folder = make_run(tmp_path / "run", endpoint=hub.url)
    return folder


def make_run(path: Path, *, endpoint: str | None, **top: Any) -> RunFolder:
    publishing = {"dataset_repo": "owner/poems", "model_repo": "owner/poet", "endpoint": endpoint}
    recipe = {
        "name": "poems",
        "seeds": "seeds.jsonl",
        "teacher": {"kind": "scripted", "model": "replies.jsonl"},
        "student": {"base": "some/base"},
        "publish": publishing | top.pop("publish", {}),
        "privacy": "local",
    }
    folder = RunFolder.create(path, Recipe.model_validate(recipe | top))
    data = folder.dataset
    write_rows(data / "data/train-00000-of-00001.parquet", ("a-0", "Red."), ("a-1", "Blue."))
    write_rows(data / "data/test-00000-of-00001.parquet", ("a-2", "Green."))
    write_rows(data / "rejected/rejected-00000-of-00001.parquet", ("a-3", "Mauve mauve."))
    (data / "train.jsonl").write_text('{"id": "a-0", "output": "Red."}\n', "utf-8")
    (data / "README.md").write_text(CARD, "utf-8")
    (data / "dataset.json").write_text('{"train": 2}', "utf-8")
    write_student(folder.student)
    return folder


def write_student(student: Path) -> None:
    merged, adapter = student / "merged", student / "adapter"
    for folder in (merged, adapter, student / "checkpoints" / "checkpoint-1"):
        folder.mkdir(parents=True)
    (merged / "config.json").write_text('{"model_type": "llama"}', "utf-8")
    (merged / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    (merged / "training_args.bin").write_bytes(b"a pickle")
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA"}', "utf-8")
    (adapter / "adapter_model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}     !")
    (adapter / "README.md").write_text("[More Information Needed]", "utf-8")
    (student / "checkpoints" / "checkpoint-1" / "optimizer.pt").write_bytes(b"0" * 99)
    (student / "README.md").write_text(MODEL_CARD, "utf-8")
    (student / "training.json").write_text("{}", "utf-8")


def remote(hub: HubState, kind: str, repo_id: str) -> dict[str, bytes]:
    files = hub.repos[kind, repo_id].files
    return {path: blob.content for path, blob in files.items() if path != ".gitattributes"}


def test_dataset_and_student_arrive_in_private_repositories(run: RunFolder, hub: HubState) -> None:
    """Both repositories are made private, and hold the same bytes as the run folder."""
    done = publish(run)
    assert [one.repo_id for one in done] == ["owner/poems", "owner/poet"]
    assert all(one.private for one in done)
    assert hub.repos["dataset", "owner/poems"].private
    data = remote(hub, "dataset", "owner/poems")
    train = "data/train-00000-of-00001.parquet"
    assert data[train] == (run.dataset / train).read_bytes()
    assert hub.repos["dataset", "owner/poems"].files[train].lfs
    model = remote(hub, "model", "owner/poet")
    assert model["model.safetensors"] == (run.student / "merged/model.safetensors").read_bytes()
    assert len(hub.repos["model", "owner/poet"].commits) == 2, "the first one and ours"


def test_ledger_rejects_checkpoints_and_bookkeeping_stay(run: RunFolder, hub: HubState) -> None:
    """The repositories hold the dataset, the cards and the model, and nothing else of the run."""
    run.db_path.touch()
    with Ledger(run.db_path):
        pass
    publish(run)
    assert set(remote(hub, "dataset", "owner/poems")) == {
        "README.md",
        "data/test-00000-of-00001.parquet",
        "data/train-00000-of-00001.parquet",
        "train.jsonl",
    }
    assert set(remote(hub, "model", "owner/poet")) == {
        "README.md",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "config.json",
        "model.safetensors",
    }


def test_plan_says_what_stays_and_why(run: RunFolder, hub: HubState) -> None:
    """The dry run lists files with size and hash, what is left out, and contacts nobody."""
    plan = plan_publish(run)
    dataset, student = plan.repos
    assert not plan.missing
    assert plan.endpoint == hub.url
    assert hub.calls == []
    assert dataset.files[0].path == "README.md"
    assert dataset.size == sum(file.size for file in dataset.files) > 0
    assert all(len(file.sha256) == 64 for file in dataset.files)
    assert any("rejected/" in line and "--include-rejected" in line for line in dataset.left_out)
    assert any("training_args.bin" in line for line in student.left_out)
    assert "model.safetensors" in student.unscanned
    assert any("base_model" in note for note in student.notes)
    assert msgspec.json.decode(msgspec.json.encode(plan))["endpoint"] == hub.url


def test_a_dry_run_names_what_is_not_scanned(run: RunFolder, hub: HubState) -> None:
    """Weights hold no text to scan, and people are told which files went without."""
    said = CliRunner().invoke(cli, ["publish", str(run.path), "--dry-run"], catch_exceptions=False)
    assert said.exit_code == 0
    told = next(line for line in said.output.splitlines() if "not scanned" in line)
    assert "safetensors" in told
    assert "README.md" not in told
    assert hub.calls == []


def test_same_content_again_sends_nothing(run: RunFolder, hub: HubState) -> None:
    """A second publication makes no commit, uploads no byte, and says so."""
    publish(run)
    hub.calls.clear()
    said: list[str] = []
    again = publish(run, on_progress=said.append)
    assert hub.writes() == []
    assert [(one.uploaded, one.deleted, one.sent) for one in again] == [([], [], 0)] * 2
    assert [one.unchanged for one in again] == [4, 5]
    assert sum("nothing was sent" in line for line in said) == 2


def test_changed_and_vanished_files_are_one_commit(run: RunFolder, hub: HubState) -> None:
    """Only what changed is uploaded, shards that are gone are deleted, others' files stay."""
    publish(run, what=["dataset"])
    repo = hub.repos["dataset", "owner/poems"]
    theirs = repo.files[".gitattributes"]
    repo.add_commit(repo.files | {"images/logo.png": theirs, "data/old.parquet": theirs})
    write_rows(run.dataset / "data/test-00000-of-00001.parquet", ("a-2", "Olive."))
    (run.dataset / "train.jsonl").unlink()
    commits = len(repo.commits)
    (done,) = publish(run, what=["dataset"])
    assert done.uploaded == ["data/test-00000-of-00001.parquet"]
    assert done.deleted == ["data/old.parquet", "train.jsonl"]
    assert "images/logo.png" in repo.files
    assert len(repo.commits) == commits + 1
    assert done.commit == repo.commits[-1]


def test_rejected_config_is_published_only_when_asked(run: RunFolder, hub: HubState) -> None:
    """Without it the card does not promise it; with it the card does, and taking it back works."""
    publish(run, what=["dataset"])
    card = remote(hub, "dataset", "owner/poems")["README.md"].decode()
    assert "config_name: rejected" not in card
    assert '"rejected")' not in card
    publish(run, what=["dataset"], include_rejected=True)
    files = remote(hub, "dataset", "owner/poems")
    assert "rejected/rejected-00000-of-00001.parquet" in files
    assert b"config_name: rejected" in files["README.md"]
    (done,) = publish(run, what=["dataset"])
    assert done.deleted == ["rejected/rejected-00000-of-00001.parquet"]


def test_cards_link_to_each_other(run: RunFolder, hub: HubState) -> None:
    """The model card names the dataset, the dataset card the model; a local base path is gone."""
    publish(run)
    model = remote(hub, "model", "owner/poet")["README.md"].decode()
    assert "datasets:\n- owner/poems" in model
    assert "/home/somebody" not in model
    data = remote(hub, "dataset", "owner/poems")["README.md"].decode()
    assert "[owner/poet](/owner/poet)" in data
    assert 'load_dataset("owner/poems")' in data


def test_existing_public_repository_is_refused(run: RunFolder, hub: HubState) -> None:
    """A public repository gets no byte while the recipe says private, and --public lifts that."""
    hub.add_repo("dataset", "owner/poems", private=False)
    with pytest.raises(UserError, match=r"owner/poems exists .* is public, but the recipe says"):
        publish(run, what=["dataset"])
    assert hub.writes() == []
    (done,) = publish(run, what=["dataset"], public=True)
    assert not done.private


def test_hub_that_ignores_privacy_gets_no_content(run: RunFolder, hub: HubState) -> None:
    """Visibility is read back after creating: a Hub that made it public gets nothing."""
    hub.ignores_private = True
    with pytest.raises(UserError, match="is public, but the recipe says private"):
        publish(run, what=["dataset"])
    assert [call.path for call in hub.writes()] == ["/api/repos/create"]


def test_public_wish_does_not_open_a_private_repository(run: RunFolder, hub: HubState) -> None:
    """Publishing with public=True into a private repository leaves it private and says so."""
    hub.add_repo("dataset", "owner/poems", private=True)
    (done,) = publish(run, what=["dataset"], public=True)
    assert done.private
    assert any("stays so" in note for note in done.notes)


def test_findings_stop_everything_unless_allowed(run: RunFolder, hub: HubState) -> None:
    """The refusal names file, record and kind, never the value; nothing is sent."""
    key = "hf_" + "aB3" * 12
    write_rows(
        run.dataset / "data/train-00000-of-00001.parquet",
        ("a-0", f"Use {key} to log in."),
        ("a-1", "Ask maria.lindqvist@gmail.com."),
    )
    with pytest.raises(UserError) as refused:
        publish(run)
    text = str(refused.value)
    assert "Hugging Face token (1)" in text
    assert "email address (1)" in text
    assert "data/train-00000-of-00001.parquet a-0" in text
    assert "--allow-findings" in text
    assert key not in text
    assert "lindqvist" not in text
    assert hub.calls == []
    done = publish(run, allow_findings=True)
    assert len(done) == 2
    log = json.loads((run.path / "published.json").read_bytes())["published"]
    assert log[0]["findings_allowed"] == {"Hugging Face token": 1, "email address": 1}


def test_finding_in_a_card_is_a_finding(run: RunFolder, hub: HubState) -> None:
    """Cards are scanned as they go out, by line."""
    card = run.student / "README.md"
    card.write_text(MODEL_CARD + "\nContact: maria.lindqvist@gmail.com\n", "utf-8")
    (finding,) = plan_publish(run, what=["student"]).repos[0].findings
    assert (finding.file, finding.kind) == ("README.md", "email address")
    assert finding.record.startswith("line ")


def add_seed(run: RunFolder, seed: SeedTask) -> None:
    with Ledger(run.db_path) as ledger:
        ledger.set_seeds([seed])


def test_private_examples_among_the_rows_are_refused(run: RunFolder, hub: HubState) -> None:
    """A dataset that holds private seeds is not published, findings allowed or not."""
    add_seed(run, SeedTask(id="a-1", instruction="Judge.", output="Blue.", private=True))
    with pytest.raises(UserError, match=r"private sources \(a-1\).*include_seeds: false"):
        publish(run, allow_findings=True)
    assert hub.calls == []


def test_text_of_a_private_seed_is_a_finding(run: RunFolder, hub: HubState) -> None:
    """A record that repeats twelve words of a private seed is found, whatever its punctuation."""
    letter = "We regret that the claim of the third of May cannot be paid in full at present"
    add_seed(run, SeedTask(id="letter-7", instruction="Answer.", output=letter, private=True))
    copied = letter.upper().replace(" CLAIM", " claim,")
    write_rows(run.dataset / "data/train-00000-of-00001.parquet", ("a-0", copied), ("a-1", "No."))
    findings = plan_publish(run, what=["dataset"]).repos[0].findings
    assert [(f.record, f.kind) for f in findings] == [("a-0", "text of private seed letter-7")]
    add_seed(run, SeedTask(id="letter-7", instruction="Answer.", output=letter))
    assert plan_publish(run, what=["dataset"]).repos[0].findings == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"publish": {"token_env": "NOT_SET_HERE"}}, "NOT_SET_HERE holds no token"),
        ({"publish": {"model_repo": None}}, r"publish\.model_repo is not set"),
        ({"publish": {"dataset_repo": "poems"}}, "'poems' is not of the form owner/name"),
    ],
)
def test_missing_settings_are_one_line(
    tmp_path: Path, hub: HubState, change: dict[str, Any], said: str
) -> None:
    """A missing token or repository id is one line that names the setting; nobody is contacted."""
    run = make_run(tmp_path / "other", endpoint=hub.url, **change)
    with pytest.raises(UserError, match=said) as refused:
        publish(run)
    assert "\n" not in str(refused.value)
    assert hub.calls == []
    assert any(said.split()[-1] in line for line in plan_publish(run).missing)


def test_stages_that_are_not_done_are_named(run: RunFolder, hub: HubState) -> None:
    """Without a finished dataset or student the message says which command comes first."""
    (run.dataset / "dataset.json").unlink()
    with pytest.raises(UserError, match="no dataset; run: selfinstruct export"):
        publish(run)
    (run.student / "training.json").unlink()
    with pytest.raises(UserError, match="no student; run: selfinstruct train"):
        publish(run, what=["student"])


def test_run_without_student_publishes_its_dataset(tmp_path: Path, hub: HubState) -> None:
    """A recipe that trains nothing needs no model repository."""
    run = make_run(tmp_path / "other", endpoint=hub.url, student=None, publish={"model_repo": None})
    (done,) = publish(run)
    assert done.what == "dataset"


def test_local_privacy_refuses_a_remote_hub(tmp_path: Path, hub: HubState) -> None:
    """privacy: local refuses the public Hub before anything is read or sent."""
    run = make_run(tmp_path / "other", endpoint=None)
    with pytest.raises(PrivacyError, match=r"huggingface\.co"):
        publish(run)
    assert any("huggingface.co" in line for line in plan_publish(run).missing)


def test_local_privacy_holds_for_upload_addresses(run: RunFolder, hub: HubState) -> None:
    """A Hub that names another host to upload to is refused there, with no content sent."""
    hub.upload_base = "http://storage.example.net"
    with pytest.raises(PrivacyError, match=r"storage\.example\.net"):
        publish(run, what=["dataset"])
    assert not any("/commit/" in call.path for call in hub.calls)
    assert hub.objects == {}


def test_local_privacy_holds_for_the_whole_process(run: RunFolder, hub: HubState) -> None:
    """While publishing with privacy: local, no other code of the process connects elsewhere."""
    tried = []

    def elsewhere(line: str) -> None:
        if "looking at" in line:
            with pytest.raises(PrivacyError):
                socket.create_connection(("192.0.2.1", 80), timeout=0.1)
            tried.append(line)

    publish(run, on_progress=elsewhere)
    assert len(tried) == 2


def test_local_privacy_leaves_out_proxies(
    run: RunFolder, hub: HubState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy of the environment sees nothing of what goes to this machine's own Hub."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    assert len(publish(run)) == 2


def test_every_address_is_checked_before_it_is_contacted(
    hub: HubState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check sees the Hub's calls and the address of the upload that the Hub named.

    Xet's own transfers would go unseen: they are off, however the process has set them.
    """
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    (tmp_path / "rows").write_bytes(b"PAR1" * 64)
    file = local_file("data/train.parquet", tmp_path / "rows")
    seen: list[str] = []
    with open_hub(hub.url, "hf_test", seen.append) as client:
        state = client.ensure_repo("owner/poems", "dataset", private=True)
        client.commit(
            "owner/poems", "dataset", Difference([file], []), parent=state.commit, message="m"
        )
    assert len(seen) == len(hub.calls) + 1, "each call, and the endpoint itself"
    assert f"{hub.url}/lfs/{file.sha256}" in seen


def test_wrong_token_is_one_line_without_the_token(
    run: RunFolder, hub: HubState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token of somebody else is refused in words that do not repeat it."""
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(UserError, match="403") as refused:
        publish(run, what=["dataset"])
    assert "hf_other" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_unreachable_hub_is_one_line(tmp_path: Path, hub: HubState) -> None:
    """Nobody at the endpoint: one line that names it."""
    run = make_run(tmp_path / "other", endpoint="http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9 cannot be reached") as refused:
        publish(run, what=["dataset"])
    assert "\n" not in str(refused.value)


def test_file_swallowed_by_gitignore_is_noticed(run: RunFolder, hub: HubState) -> None:
    """What arrived is compared with what was sent: a file that is not there is an error."""
    hub.ignored = {"train.jsonl"}
    with pytest.raises(UserError, match=r"did not keep train\.jsonl"):
        publish(run, what=["dataset"])


def test_commit_that_fails_is_named_and_repeatable(run: RunFolder, hub: HubState) -> None:
    """After a refused commit the same command finishes, without sending large files again."""
    hub.failing = {"/commit/": 413}
    with pytest.raises(UserError, match=r"413 .*too large"):
        publish(run, what=["dataset"])
    hub.failing, sent = {}, len(hub.objects)
    hub.calls.clear()
    publish(run, what=["dataset"])
    assert sent == 2
    assert not any(call.method == "PUT" for call in hub.calls)


def test_card_with_broken_front_matter_names_its_line(run: RunFolder, hub: HubState) -> None:
    """A card that is no YAML is refused by file and line before anything is sent."""
    (run.dataset / "README.md").write_text("---\nlicense: mit\nlanguage: [en\n---\n", "utf-8")
    with pytest.raises(UserError, match=r"README\.md:\d+: the card's front matter is not YAML"):
        publish(run)
    assert hub.calls == []


def test_card_that_names_missing_files_is_refused(run: RunFolder, hub: HubState) -> None:
    """A split whose file is not published would break load_dataset: refused."""
    (run.dataset / "data/test-00000-of-00001.parquet").unlink()
    with pytest.raises(UserError, match=r"config 'default' names data/test-.*no file of it"):
        publish(run)
    assert hub.calls == []


def test_settings_of_the_client_are_put_back(run: RunFolder, hub: HubState) -> None:
    """huggingface_hub's own settings and client are as before when publishing ends."""
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled

    before = (constants.HF_HUB_DISABLE_XET, are_progress_bars_disabled())
    publish(run, what=["dataset"])
    assert (constants.HF_HUB_DISABLE_XET, are_progress_bars_disabled()) == before
    assert get_session().timeout.read is None, "the library's own client has no timeout"


CHILD = """
import json, sys
from datasets import load_dataset
from transformers import AutoModelForCausalLM
data = load_dataset("owner/poems")
rejects = load_dataset("owner/poems", "rejected")
model = AutoModelForCausalLM.from_pretrained("owner/poet")
print(json.dumps({
    "train": data["train"]["output"][:], "test": data["test"]["id"][:],
    "rejects": rejects["rejected"]["id"][:],
    "weights": model.model.embed_tokens.weight.detach().double().sum().item(),
}))
"""


def tiny_model(folder: Path) -> float:
    """A random two-layer Llama in `folder`; the sum of its embeddings."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return float(model.model.embed_tokens.weight.detach().double().sum().item())


@pytest.mark.slow
def test_round_trip_through_load_dataset_and_from_pretrained(
    run: RunFolder, hub: HubState, tmp_path: Path
) -> None:
    """Another process, with no cache, loads dataset and model from the Hub by their names."""
    weights = tiny_model(run.student / "merged")
    publish(run, include_rejected=True)
    env = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"),
        "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_test", "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    child = subprocess.run(
        [sys.executable, "-c", CHILD], env=env, capture_output=True, text=True, timeout=240
    )
    assert child.returncode == 0, child.stderr
    seen = json.loads(child.stdout.splitlines()[-1])
    assert seen["train"] == ["Red.", "Blue."]
    assert seen["test"] == ["a-2"]
    assert seen["rejects"] == ["a-3"]
    assert seen["weights"] == pytest.approx(weights, abs=1e-9)
