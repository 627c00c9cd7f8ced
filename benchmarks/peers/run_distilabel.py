"""distilabel: prints how many replies came."""

from __future__ import annotations

import json

import asked


def main() -> None:
    """Ask every prompt once."""
    given = asked.arguments()
    from distilabel.models import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import TextGeneration

    with Pipeline(name="bench", cache_dir=given.folder) as pipeline:
        rows = [{"instruction": asked.prompt(n)} for n in range(given.count)]
        load = LoadDataFromDicts(data=rows, batch_size=given.concurrency)
        llm = OpenAILLM(
            model=asked.MODEL,
            base_url=given.url,
            api_key="none",
            generation_kwargs={"max_new_tokens": 1024, "temperature": 1.0},
        )
        load >> TextGeneration(llm=llm, input_batch_size=given.concurrency)
    found = pipeline.run(use_cache=False)["default"]["train"]
    replies = sum(text is not None for text in found["generation"])
    print(json.dumps({"replies": replies}))


if __name__ == "__main__":
    main()
