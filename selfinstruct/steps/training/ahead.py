"""What a training would refuse, as far as it shows before there is anything to train on."""

from __future__ import annotations

from pathlib import Path

from selfinstruct.core.sections.student import StudentConfig
from selfinstruct.steps.model_config import check_writes
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.seeds.files import data_files
from selfinstruct.steps.training.base import TEACHER_KEYS, check_base, speaking_of
from selfinstruct.steps.training.runtime import check_method, check_optimizer, choose_device
from selfinstruct.steps.training.template import read_template
from selfinstruct.steps.training.trackers import check_trackers


def look_ahead(config: StudentConfig, policy: Policy) -> None:
    """Raise what a training by `config` would raise at once; nothing is fetched or loaded.

    Raises `MissingDependency` for a package, `UserError` for a base, a device or a file that is not
    there, and `PrivacyError` for a tracker that `policy` refuses.
    """
    check_method(config.method)
    check_optimizer(config.optimizer, sharded=False)
    check_trackers(config.report_to, local=policy.local)
    _check_writer(config.base, policy, config.revision)
    if config.distillation is not None:
        with speaking_of(TEACHER_KEYS):
            _check_writer(config.distillation.teacher, policy, config.distillation.revision)
    choose_device(config.device)
    if config.chat_template is not None:
        read_template(config.chat_template)
    asked = [config.conversations, config.preference.data if config.preference else None]
    for path in asked:
        if path is not None:
            data_files(Path(path))


def _check_writer(name: str, policy: Policy, revision: str | None) -> None:
    check_base(name, policy, revision)
    folder = Path(name).expanduser()
    if folder.is_dir():
        check_writes(folder, name)
