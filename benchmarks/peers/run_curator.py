"""Bespoke Curator: prints how many replies came."""

from __future__ import annotations

import json

import asked


def main() -> None:
    """Ask every prompt once."""
    given = asked.arguments()
    from bespokelabs import curator

    llm = curator.LLM(
        model_name=asked.MODEL,
        backend="openai",
        generation_params={"max_tokens": 1024, "temperature": 1.0},
        backend_params={
            "base_url": given.url,
            "max_concurrent_requests": given.concurrency,
            "max_requests_per_minute": 10_000_000,
            "max_tokens_per_minute": 10_000_000_000,
            "require_all_responses": True,
        },
    )
    response = llm([asked.prompt(n) for n in range(given.count)], working_dir=str(given.folder))
    print(json.dumps({"replies": len(response.dataset)}))


if __name__ == "__main__":
    main()
