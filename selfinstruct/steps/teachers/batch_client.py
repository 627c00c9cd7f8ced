"""Which batch API serves what a teacher serves."""

from __future__ import annotations

from selfinstruct.core.types import Teacher
from selfinstruct.steps.teachers.batch import BatchClient


def batch_client(teacher: Teacher) -> BatchClient | None:
    """The batch API that serves what `teacher` serves; None where there is none."""
    from selfinstruct.steps.teachers.anthropic_sdk import AnthropicTeacher
    from selfinstruct.steps.teachers.openai_sdk import OpenAITeacher

    # Exactly these: the clouds that offer the same models have batch APIs of their own.
    if type(teacher) is OpenAITeacher:
        from selfinstruct.steps.teachers.batch_openai import OpenAIBatches

        return OpenAIBatches(teacher)
    if type(teacher) is AnthropicTeacher:
        from selfinstruct.steps.teachers.batch_anthropic import AnthropicBatches

        return AnthropicBatches(teacher)
    return None
