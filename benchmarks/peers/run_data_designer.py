"""NVIDIA's Data Designer: prints how many replies came."""

from __future__ import annotations

import json

import asked


def main() -> None:
    """Ask every prompt once."""
    given = asked.arguments()
    import data_designer.config as dd
    from data_designer.interface import DataDesigner

    provider = dd.ModelProvider(
        name="fake", endpoint=given.url, provider_type="openai", api_key="none"
    )
    model = dd.ModelConfig(
        alias="writer",
        model=asked.MODEL,
        provider="fake",
        inference_parameters=dd.ChatCompletionInferenceParams(
            temperature=1.0, max_tokens=1024, max_parallel_requests=given.concurrency
        ),
    )
    builder = dd.DataDesignerConfigBuilder(model_configs=[model])
    builder.add_column(
        dd.SamplerColumnConfig(name="n", sampler_type="uuid", params=dd.UUIDSamplerParams())
    )
    builder.add_column(
        dd.LLMTextColumnConfig(
            name="reply",
            prompt=asked.RULES + "This is list number {{ n }}.",
            model_alias="writer",
        )
    )
    designer = DataDesigner(artifact_path=given.folder, model_providers=[provider])
    found = designer.create(builder, num_records=given.count).load_dataset()
    print(json.dumps({"replies": int(found["reply"].notna().sum())}))


if __name__ == "__main__":
    main()
