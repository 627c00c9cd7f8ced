"""DataDreamer: prints how many replies came."""

from __future__ import annotations

import json

import asked


def main() -> None:
    """Ask every prompt once."""
    given = asked.arguments()
    from datadreamer import DataDreamer
    from datadreamer.llms import OpenAI
    from datadreamer.steps import DataSource, Prompt

    with DataDreamer(str(given.folder / "work")):
        llm = OpenAI(model_name=asked.MODEL, base_url=given.url, api_key="none")
        prompts = [asked.prompt(n) for n in range(given.count)]
        step = Prompt(
            "ask",
            inputs={"prompts": DataSource("prompts", data={"prompts": prompts}).output["prompts"]},
            args={
                "llm": llm,
                "max_new_tokens": 1024,
                "temperature": 1.0,
                "batch_size": given.concurrency,
            },
        )
        replies = sum(bool(text) for text in step.output["generations"])
    print(json.dumps({"replies": replies}))


if __name__ == "__main__":
    main()
