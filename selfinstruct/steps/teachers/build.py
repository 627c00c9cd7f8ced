"""From a recipe's teacher section to a teacher, not yet started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from selfinstruct.core.errors import UserError
from selfinstruct.core.sections.teacher import TeacherConfig
from selfinstruct.core.shipped import find
from selfinstruct.core.types import Teacher
from selfinstruct.steps.privacy import Policy

if TYPE_CHECKING:
    from selfinstruct.steps.teachers.sdk_teacher import SdkOptions


def make_teacher(config: TeacherConfig, policy: Policy) -> Teacher:
    """The teacher that `config` describes.

    Raises `PrivacyError` where the policy refuses its host and `UserError` where its address or
    file is unusable. A missing key is found when the teacher starts.
    """
    for base_url in config.base_urls:
        policy.check_url(base_url, "teacher.base_url")
    return KINDS[config.kind](config, policy)


def _remote(config: TeacherConfig, policy: Policy) -> SdkOptions:
    """What every teacher that is not on this machine is told."""
    return {
        "id": _id(config),
        "model": config.model,
        "key_file": config.api_key_file,
        "concurrency": config.concurrency,
        "timeout_s": config.timeout_s,
        "stall_s": config.stall_timeout_s,
        "policy": policy,
    }


def _openai(config: TeacherConfig, policy: Policy) -> Teacher:
    from selfinstruct.steps.teachers.openai_sdk import BASE_URL, OpenAITeacher

    base_url = config.address or BASE_URL
    policy.check_url(base_url, "teacher.kind: openai")
    return OpenAITeacher(
        base_url=base_url,
        key_variable=config.api_key_env or "OPENAI_API_KEY",
        **_remote(config, policy),
    )


def _anthropic(config: TeacherConfig, policy: Policy) -> Teacher:
    from selfinstruct.steps.teachers.anthropic_sdk import BASE_URL, AnthropicTeacher

    base_url = config.address or BASE_URL
    policy.check_url(base_url, "teacher.kind: anthropic")
    return AnthropicTeacher(
        base_url=base_url,
        key_variable=config.api_key_env or "ANTHROPIC_API_KEY",
        **_remote(config, policy),
    )


def _compatible(config: TeacherConfig, policy: Policy) -> Teacher:
    from selfinstruct.steps.teachers.compatible import CompatibleTeacher

    if not config.base_urls:
        raise UserError("a compatible teacher needs base_url, such as http://localhost:8000/v1")
    return CompatibleTeacher(
        base_url=config.base_urls,
        key_variable=config.api_key_env,
        **_remote(config, policy),
    )


def _local(config: TeacherConfig, policy: Policy) -> Teacher:
    from selfinstruct.steps.teachers.local import LocalTeacher

    return LocalTeacher(
        id=_id(config),
        model=config.model,
        sha256=config.sha256,
        concurrency=config.concurrency,
        context=config.context,
        threads=config.threads,
        gpu_layers=config.gpu_layers,
        timeout_s=config.timeout_s,
        policy=policy,
    )


def _azure(config: TeacherConfig, policy: Policy) -> Teacher:
    from selfinstruct.steps.teachers.clouds import AZURE_KEY, AzureTeacher

    if config.address is None or config.api_version is None:
        raise UserError("an azure teacher needs base_url and api_version")
    return AzureTeacher(
        base_url=config.address,
        api_version=config.api_version,
        deployment=config.deployment or config.model,
        key_variable=config.api_key_env or AZURE_KEY,
        **_remote(config, policy),
    )


def _bedrock(config: TeacherConfig, policy: Policy) -> Teacher:
    from selfinstruct.steps.teachers import clouds

    region = clouds.setting(config.region, "region", clouds.BEDROCK_REGION)
    base_url = config.address or clouds.bedrock_url(region)
    policy.check_url(base_url, "teacher.kind: bedrock")
    return clouds.BedrockTeacher(
        base_url=base_url,
        region=region,
        key_variable=config.api_key_env or clouds.BEDROCK_KEY,
        **_remote(config, policy),
    )


def _vertex(config: TeacherConfig, policy: Policy) -> Teacher:
    from selfinstruct.steps.teachers import clouds

    region = clouds.setting(config.region, "region", clouds.VERTEX_REGION)
    base_url = config.address or clouds.vertex_url(region)
    policy.check_url(base_url, "teacher.kind: vertex")
    return clouds.VertexTeacher(
        base_url=base_url,
        region=region,
        project=clouds.setting(config.project, "project", clouds.VERTEX_PROJECT),
        key_variable=config.api_key_env or "",
        **_remote(config, policy),
    )


def _vllm(config: TeacherConfig, policy: Policy) -> Teacher:
    from selfinstruct.steps.teachers.vllm import VllmTeacher

    return VllmTeacher(
        id=_id(config),
        model=config.model,
        args=config.args,
        concurrency=config.concurrency,
        timeout_s=config.timeout_s,
        policy=policy,
    )


def _scripted(config: TeacherConfig, policy: Policy) -> Teacher:
    from selfinstruct.steps.teachers.scripted import ScriptedTeacher, from_file

    path = find(config.model) or Path(config.model)
    return ScriptedTeacher(from_file(path), id=_id(config), model=config.model)


def _id(config: TeacherConfig) -> str:
    """Kind and name. A file is named without its folder, so that it may be moved."""
    name = config.model
    if config.kind in ("local", "scripted") or (config.kind == "vllm" and Path(name).is_dir()):
        name = Path(name).name
    return f"{config.kind}/{name}"


KINDS: dict[str, Callable[[TeacherConfig, Policy], Teacher]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "azure": _azure,
    "bedrock": _bedrock,
    "vertex": _vertex,
    "compatible": _compatible,
    "local": _local,
    "vllm": _vllm,
    "scripted": _scripted,
}
