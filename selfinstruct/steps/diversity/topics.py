"""Topics of a set of instructions: k-means over reduced TF-IDF, named by what sets each apart.

Names are the terms with the highest class-based TF-IDF (Grootendorst 2022, arXiv 2203.05794): how
often a term is in a topic, times log(1 + mean words of a topic / how often it is anywhere).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import msgspec

from selfinstruct.core.errors import MissingDependency
from selfinstruct.steps.words import unicode_words

TERMS = 3
FEWEST = 20  # instructions from which there are topics
MOST_TOPICS = 12
FITTED = 10_000  # instructions that the topics are made of; the others are sorted into them
DIMENSIONS = 50  # of the space that the terms are reduced to (latent semantic analysis)
SEED = 0

# Words that say nothing of a topic; verbs of asking are told by the root verbs already.
_STOP_WORDS = """
a about above after all also am an and any are as at be because been before being below between
both but by can could did do does doing down during each few find following for from further
generate get give given had has have having he her here him his how i if in into is it its itself
just list make me more most my name no nor not now of off on once one only or other our out over
own provide s same she should so some such t than that the their them then there these they this
those three through to too two under until up us use used using very was we were what when where
which while who whom why will with would write you your create describe explain identify
rewrite sentence suggest text
"""


class Topic(msgspec.Struct, frozen=True):
    """A topic: the terms that name it, and how many instructions are in it."""

    name: str
    count: int


def can_find_topics() -> bool:
    """Whether scikit-learn is installed."""
    return importlib.util.find_spec("sklearn") is not None


def topics_of(
    instructions: Sequence[str], most: int | None = None
) -> tuple[list[Topic], list[int]]:
    """The topics, the largest first, and the topic of each instruction.

    Args:
        instructions: what is sorted.
        most: topics to make; where not given, more for more instructions, up to `MOST_TOPICS`.

    Both are empty for fewer than `FEWEST` instructions, or where no term is shared. The same
    instructions give the same topics, on any number of cores. Raises `MissingDependency` without
    scikit-learn.
    """
    if len(instructions) < FEWEST:
        return [], []
    if not can_find_topics():
        raise MissingDependency("scikit-learn", "semantic", "finding topics")
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        tokenizer=_terms,
        token_pattern=None,
        lowercase=False,
        min_df=2,
        max_df=0.5,
        max_features=5000,
        sublinear_tf=True,
        stop_words=_STOP_WORDS.split(),
    )
    step = -(-len(instructions) // FITTED)
    try:
        fitted = vectorizer.fit_transform(instructions[::step])
    except ValueError:  # scikit-learn's for no term that two texts share
        return [], []
    size = most or min(MOST_TOPICS, max(2, round((len(instructions) / 10) ** 0.5)))
    size = min(size, fitted.shape[0])
    matrix = vectorizer.transform(instructions)
    labels = _clusters(fitted, matrix, size)
    names = _names(vectorizer.get_feature_names_out(), matrix, labels, size)
    counts = np.bincount(labels, minlength=size)
    order = sorted((at for at in range(size) if counts[at]), key=lambda at: (-counts[at], at))
    place = {at: rank for rank, at in enumerate(order)}
    topics = [Topic(names[at], int(counts[at])) for at in order]
    return topics, [place[int(label)] for label in labels]


def _clusters(fitted: Any, matrix: Any, size: int) -> Any:
    """The cluster of each row of `matrix`; the `size` clusters are made of the rows of `fitted`."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import TruncatedSVD
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer
    from threadpoolctl import threadpool_limits

    # Short texts share few terms: without the reduction nearly all end up in one cluster.
    reduced = make_pipeline(
        TruncatedSVD(max(1, min(DIMENSIONS, fitted.shape[1] - 1)), random_state=SEED),
        Normalizer(),
    )
    clusters = KMeans(size, n_init=5, random_state=SEED)
    with threadpool_limits(1):  # several threads add up floats in the order they come
        clusters.fit(reduced.fit_transform(fitted))
        return clusters.predict(reduced.transform(matrix))


def _terms(text: str) -> list[str]:
    """The words of a text that are no numbers."""
    return [word for word in unicode_words(text) if not word.isdigit()]


def _names(terms: Any, matrix: Any, labels: Any, size: int) -> list[str]:
    import numpy as np

    present = (matrix > 0).astype(np.float64)
    counts = np.vstack(
        [np.asarray(present[labels == at].sum(axis=0)).ravel() for at in range(size)]
    )
    everywhere = counts.sum(axis=0)
    totals = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    weight = share * np.log1p(totals.mean() / np.maximum(everywhere, 1))
    named = []
    for row in weight:
        best = [at for at in np.argsort(-row, kind="stable")[:TERMS] if row[at] > 0]
        named.append(", ".join(str(terms[at]) for at in best) or "(other)")
    return named
