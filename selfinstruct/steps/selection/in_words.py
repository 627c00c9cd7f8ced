"""A selection's settings in words, for the dataset card."""

from __future__ import annotations

from selfinstruct.core.sections.select import SelectConfig


def in_words(config: SelectConfig | None) -> list[str]:
    """How records were selected from those kept, as a list of at most one line."""
    if config is None:
        return []
    how = {
        "top_k": f"those with the {'lowest' if config.lowest else 'highest'} {config.score}",
        "random": "drawn at random",
        "k_center": "k-center over embeddings",
        "facility_location": "facility location over embeddings",
    }[config.method]
    parts = [how, f"at most {config.count} records" if config.count else ""]
    if config.min_distance:
        parts.append(f"at least {config.min_distance:g} apart in cosine distance")
    if config.quota:
        parts.append(f"at most {config.quota} of a {config.quota_by}")
    return [f"selected: {', '.join(filter(None, parts))}"]
