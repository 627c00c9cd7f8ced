"""Publish: the dataset and the student to a Hub, private unless said otherwise, after a scan.

What goes out is the dataset folder and the trained model with their cards. What never goes out: the
ledger, checkpoints and optimizer states, the stages' bookkeeping. Rejected candidates go out only
when asked for: copies of seeds and of private sources are among them.

The gate before any byte: findings of the scan, and private sources among the rows. Each repository
changes in one commit, and the same content again is no commit at all.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from selfinstruct.core.errors import PrivacyError, UserError
from selfinstruct.core.recipe import Recipe
from selfinstruct.core.types import Passage, SeedTask
from selfinstruct.engine.folder import RunFolder, write_json
from selfinstruct.engine.ledger import Ledger
from selfinstruct.steps.privacy import Policy, enforce
from selfinstruct.steps.publishing import hub
from selfinstruct.steps.publishing.card_links import is_repo_id
from selfinstruct.steps.publishing.parcel import Parcel, What, is_ours, pack
from selfinstruct.steps.publishing.scan import Scan, make_copy_scan, make_scan

Say = Callable[[str], None]
BOTH: tuple[What, ...] = ("dataset", "student")
LOG = "published.json"


class PublishPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What `publish` would do, by repository. Making it contacts nobody.

    `missing` are settings and stages that have to come first, one line each.
    """

    endpoint: str
    token_env: str
    token_set: bool
    repos: list[Parcel]
    missing: list[str]


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """What one repository looks like now.

    `uploaded` and `deleted` are paths, `unchanged` counts files that were there already, `commit`
    is the newest commit (a new one only where something was uploaded or deleted), `sent` is in
    bytes.
    """

    what: What
    repo_id: str
    url: str
    private: bool
    commit: str
    uploaded: list[str]
    deleted: list[str]
    unchanged: int
    sent: int
    notes: list[str]


def plan_publish(
    folder: RunFolder,
    *,
    what: Sequence[What] = BOTH,
    public: bool | None = None,
    include_rejected: bool = False,
    on_progress: Say | None = None,
) -> PublishPlan:
    """What would go where, and what stands against it; the arguments are those of `publish`.

    Raises `UserError` where a card or data file cannot be read, `MissingDependency` without
    detect-secrets.
    """
    recipe, say = folder.recipe(), on_progress or _silent
    endpoint, missing = _endpoint(recipe), []
    token_env = recipe.publish.token_env
    if not os.environ.get(token_env):
        missing.append(
            f"the environment variable {token_env} holds no token: set it to a token with write "
            "access, or name another variable in publish.token_env"
        )
    try:
        Policy.of(recipe.privacy, recipe.allow_hosts).check_url(endpoint, "publish.endpoint")
    except PrivacyError as error:
        missing.append(str(error))
    private_seeds, private_passages = _private(folder)
    scans = _scans(private_seeds, private_passages)
    repos = []
    for part in _wanted(recipe, what):
        names = {"dataset": recipe.publish.dataset_repo, "student": recipe.publish.model_repo}
        other = names["student" if part == "dataset" else "dataset"]
        missing += _unnamed(part, names[part])
        parcel = pack(
            folder.dataset if part == "dataset" else folder.student,
            part,
            repo_id=names[part] or "",
            other_repo=other,
            private=recipe.publish.private if public is None else not public,
            include_rejected=include_rejected,
            private_seeds=private_seeds,
            private_passages=private_passages,
            scans=scans,
            say=say,
        )
        missing += parcel.missing
        repos.append(parcel)
    return PublishPlan(
        endpoint=endpoint,
        token_env=token_env,
        token_set=bool(os.environ.get(token_env)),
        repos=repos,
        missing=missing,
    )


def publish(
    folder: RunFolder,
    *,
    what: Sequence[What] = BOTH,
    public: bool | None = None,
    allow_findings: bool = False,
    include_rejected: bool = False,
    on_progress: Say | None = None,
) -> list[Published]:
    """Publish for real; what was done, by repository.

    Args:
        folder: a run folder, locked by the caller.
        what: the parts to publish; a recipe without a student has only the dataset.
        public: True or False goes before ``publish.private`` of the recipe.
        allow_findings: publish although the scan found something.
        include_rejected: also publish the dataset's rejected candidates.
        on_progress: called with a line of text as things happen.

    Raises `UserError` in one line for whatever has to be settled first, `PrivacyError` where the
    recipe's privacy refuses the Hub or an address that it names.
    """
    recipe, say = folder.recipe(), on_progress or _silent
    policy, endpoint = Policy.of(recipe.privacy, recipe.allow_hosts), _endpoint(recipe)
    policy.check_url(endpoint, "publish.endpoint")
    plan = plan_publish(
        folder,
        what=what,
        public=public,
        include_rejected=include_rejected,
        on_progress=on_progress,
    )
    _gate(plan, allow_findings)

    def check(url: str) -> None:
        policy.check_url(url, "publish.endpoint")

    done = []
    with (
        enforce(policy, hub_offline=False),
        hub.open_hub(
            endpoint, os.environ[plan.token_env], check, use_proxies=not policy.local
        ) as client,
    ):
        for parcel in plan.repos:
            done.append(_send(client, parcel, endpoint, say))
            _log(folder, done[-1], parcel)
    return done


def _gate(plan: PublishPlan, allow_findings: bool) -> None:
    """Raises `UserError` for the first thing that stands against publishing."""
    if plan.missing:
        raise UserError(plan.missing[0])
    for parcel in plan.repos:
        if parcel.refusals:
            raise UserError(parcel.refusals[0])
    findings = [finding for parcel in plan.repos for finding in parcel.findings]
    if findings and not allow_findings:
        kinds = Counter(finding.kind for finding in findings)
        counted = ", ".join(f"{kind} ({n})" for kind, n in kinds.most_common())
        places = list(dict.fromkeys(f"{found.file} {found.record}" for found in findings))
        raise UserError(
            f"the scan found {counted} in {_some(places)}; see them with publish --dry-run, then "
            "remove them or give --allow-findings"
        )


def _send(client: hub.Hub, parcel: Parcel, endpoint: str, say: Say) -> Published:
    repo_id, repo_type = parcel.repo_id, parcel.repo_type
    say(f"{repo_id}: looking at what is there")
    before = client.ensure_repo(repo_id, repo_type, parcel.private)
    change = hub.difference(parcel.files, before.files, lambda path: is_ours(parcel.what, path))
    after = before
    if change.changed or change.stale:
        client.commit(
            repo_id,
            repo_type,
            change,
            parent=before.commit,
            message=f"Publish the {parcel.what} with selfinstruct",
            sent=lambda path, size: say(f"{repo_id}: {path} ({size:,} bytes) uploaded"),
        )
        after = client.state(repo_id, repo_type)
        _check_arrival(parcel, after)
    else:
        say(f"{repo_id}: everything is there already, nothing was sent")
    notes = list(parcel.notes)
    if after.private and not parcel.private:
        notes.append("it was private before and stays so: change that in its settings")
    prefix = "datasets/" if parcel.what == "dataset" else ""
    return Published(
        what=parcel.what,
        repo_id=repo_id,
        url=f"{endpoint}/{prefix}{repo_id}",
        private=after.private,
        commit=after.commit,
        uploaded=[file.path for file in change.changed],
        deleted=change.stale,
        unchanged=len(parcel.files) - len(change.changed),
        sent=sum(file.size for file in change.changed),
        notes=notes,
    )


def _check_arrival(parcel: Parcel, after: hub.State) -> None:
    if parcel.private and not after.private:
        raise UserError(
            f"{parcel.repo_id} became public while it was published: make it private in its "
            "settings"
        )
    lost = [file.path for file in parcel.files if not hub.same(file, after.files.get(file.path))]
    if lost:
        raise UserError(
            f"{parcel.repo_id} did not keep {_some(lost)} as sent; see the repository's "
            ".gitignore and .gitattributes, then give the same command again"
        )


def _unnamed(part: What, name: str | None) -> list[str]:
    key = "dataset_repo" if part == "dataset" else "model_repo"
    other = "student" if part == "dataset" else "dataset"
    if not name:
        return [
            f"publish.{key} is not set in the recipe: name it as owner/name, "
            f"or publish the {other} alone"
        ]
    return [] if is_repo_id(name) else [f"publish.{key}: {name!r} is not of the form owner/name"]


def _wanted(recipe: Recipe, what: Sequence[What]) -> list[What]:
    """The parts in order; a run without a student publishes its dataset alone."""
    chosen = [part for part in BOTH if part in what]
    return ["dataset"] if recipe.student is None and len(chosen) == len(BOTH) else chosen


def _private(folder: RunFolder) -> tuple[list[SeedTask], list[Passage]]:
    """The run's private seeds and passages."""
    if not folder.db_path.is_file():
        return [], []
    with Ledger.read(folder.db_path) as ledger:
        seeds = [seed for seed in ledger.seeds() if seed.private]
        return seeds, [passage for passage in ledger.passages() if passage.private]


def _scans(seeds: Sequence[SeedTask], passages: Sequence[Passage]) -> list[Scan]:
    texts = [
        (f"seed {seed.id}", text)
        for seed in seeds
        for text in (seed.instruction, seed.input, seed.output, *seed.turns)
    ]
    # All of one kind, since they may be thousands.
    texts += [("document", passage.text) for passage in passages]
    return [make_scan(), make_copy_scan(texts)] if texts else [make_scan()]


def _endpoint(recipe: Recipe) -> str:
    """The Hub: the recipe's, else that of the environment, else the public one."""
    named = recipe.publish.endpoint or os.environ.get("HF_ENDPOINT") or hub.PUBLIC_HUB
    return named.rstrip("/")


def _log(folder: RunFolder, done: Published, parcel: Parcel) -> None:
    """Put what was done into the run's own record."""
    path = folder.path / LOG
    entries = (folder.read_json(path) or {"published": []})["published"]
    allowed = dict(Counter(finding.kind for finding in parcel.findings))
    entry = msgspec.to_builtins(done) | {"at": time.time(), "findings_allowed": allowed}
    write_json(path, {"published": [*entries, entry]})


def _some(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _silent(line: str) -> None:
    """Nobody wants to hear."""
