"""Jobs of `filters_drive.py` on the pools of novelty and near-duplicates.

`novelty` decides on Alpaca's instructions and on many sentences; `alpacas_own` runs Alpaca's own
check on a slice; `online` checks and adds one candidate at a time; `equal` holds decisions against
rouge_score; `near` finds near-duplicates and holds them against exact Jaccard similarities.
"""

from __future__ import annotations

import argparse
import gc
import random
import time

from texts import alpaca, perturbed, sentences

from selfinstruct.core.types import Candidate
from selfinstruct.steps.filters.index_pool import compiling
from selfinstruct.steps.filters.minhash import near_mask
from selfinstruct.steps.filters.novelty import Novelty, novel_mask
from selfinstruct.steps.words import alpaca_words, unicode_words

Said = dict[str, object]


def novelty(given: argparse.Namespace) -> Said:
    """Alpaca's instructions, or as many sentences as asked for; the first pass warms up."""
    source = alpaca()
    if given.count > len(source.rows):
        texts = sentences(source.rows, given.count)
    else:
        texts = [row["instruction"] for row in source.rows[: given.count]]
    begin = time.process_time()
    novel_mask(texts[:5000], 0.7, "alpaca")
    warm_up = time.process_time() - begin
    begin = time.process_time()
    decisions = novel_mask(texts, 0.7, "alpaca")
    cpu = time.process_time() - begin
    return {
        "rows": len(texts),
        "real": source.real,
        "warm_up_cpu_s": warm_up,
        "cpu_s": cpu,
        "dropped": int((~decisions.kept).sum()),
    }


def alpacas_own(given: argparse.Namespace) -> Said:
    """The loop of Alpaca's generate_instruction.py on candidates against the whole pool.

    Its process pool is left out, and with it what that costs: `rouge_scorer._score_lcs` of each
    pair, in one process, with texts tokenised before.
    """
    from rouge_score import rouge_scorer

    tokens = [alpaca_words(row["instruction"]) for row in alpaca().rows]
    rng = random.Random(1)
    candidates = rng.sample(tokens, given.count)
    pool = rng.sample(tokens, 2000)
    begin = time.process_time()
    for words in candidates:
        for other in pool:
            _ = rouge_scorer._score_lcs(words, other).fmeasure
    cpu = time.process_time() - begin
    pairs = len(candidates) * len(pool)
    whole = len(tokens) * (len(tokens) - 1) // 2
    return {"pairs": pairs, "us_a_pair": cpu / pairs * 1e6, "whole_cpu_s": cpu / pairs * whole}


def online(given: argparse.Namespace) -> Said:
    """One candidate after the other, checked and added, around a pool of `count` texts."""
    source = alpaca()
    texts = [row["instruction"] for row in source.rows]
    if given.count + 4000 > len(texts):
        texts = sentences(source.rows, (given.count + 4000) * 3 // 2)
        texts = list(dict.fromkeys(texts))[: given.count + 4000]
    items = [
        Candidate(id=str(at), slot=at, index=0, strategy="", instruction=text)
        for at, text in enumerate(texts)
    ]
    # numba's own start is not part of it, nor the collector's walk through all these items.
    compiling("rouge").result()
    gc.collect()
    gc.freeze()
    filled = Novelty(0.7, tokenizer="alpaca")
    longest = 0.0
    for item in items[: given.count]:
        begin = time.thread_time()
        filled.add(item)
        longest = max(longest, time.thread_time() - begin)
    took: list[float] = []
    for item in items[given.count :]:
        begin = time.thread_time()
        filled.check(item)
        filled.add(item)
        took.append(time.thread_time() - begin)
    return {
        "pool": given.count,
        "real": source.real,
        "mean_us": sum(took) / len(took) * 1e6,
        "p99_us": sorted(took)[len(took) * 99 // 100] * 1e6,
        "longest_ms": max(longest, *took) * 1e3,
    }


def equal(given: argparse.Namespace) -> Said:
    """Real and perturbed instructions, and again in another order, against rouge_score itself.

    rouge_score cannot score every pair in reasonable time. Pairs that share too few words, as bags,
    to be above the threshold whatever their order are left out; all others are scored by it.
    """
    rng = random.Random(2)
    texts = [row["instruction"] for row in rng.sample(alpaca().rows, given.count // 2)]
    texts += [perturbed(rng.choice(texts), rng) for _ in range(given.count - len(texts))]
    differing = 0
    dropped = 0
    for _ in range(2):
        rng.shuffle(texts)
        decisions = novel_mask(texts, 0.7, "alpaca")
        differing += _differing(texts, decisions.neighbour.tolist(), decisions.score.tolist())
        dropped = int((~decisions.kept).sum())
    return {"rows": len(texts), "orders": 2, "differing": differing, "dropped": dropped}


def _differing(texts: list[str], neighbours: list[int], scores: list[float]) -> int:
    """How many decisions, neighbours or scores are not rouge_score's."""
    import numpy as np
    from rouge_score import rouge_scorer
    from scipy.sparse import csr_matrix

    words = [alpaca_words(text) for text in texts]
    ids: dict[str, int] = {}
    numbers = [ids.setdefault(word, len(ids)) for text in words for word in text]
    rows = np.repeat(np.arange(len(words)), [len(text) for text in words])
    shape = (len(words), len(ids))
    counts = csr_matrix((np.ones(len(numbers), np.float32), (rows, numbers)), shape=shape)
    lengths = np.array([len(text) for text in words])
    differing = 0
    # The dot product of counts is an upper bound of what two bags share, if not a tight one.
    for first in range(0, len(words), 500):
        block = counts[first : first + 500] @ counts.T
        for row in range(first, min(first + 500, len(words))):
            shared = block[row - first]
            able = 2 * shared.data > 0.69 * (lengths[row] + lengths[shared.indices])
            known = [at for at in sorted(shared.indices[able].tolist()) if at < row]
            best, best_at = 0.0, -1
            for at in known:
                if neighbours[at] >= 0:
                    continue
                score = rouge_scorer._score_lcs(words[at], words[row]).fmeasure
                if score > max(best, 0.7):
                    best, best_at = score, at
            differing += (best_at, best) != (neighbours[row], scores[row])
    return differing


def near(given: argparse.Namespace) -> Said:
    """Whole rows of Alpaca and perturbed copies, shuffled, beside exact similarities."""
    source = alpaca()
    rng = random.Random(3)
    texts = [f"{row['instruction']}\n{row['input']}\n{row['output']}" for row in source.rows]
    texts = rng.sample(texts, given.count // 2)
    texts += [perturbed(text, rng) for text in texts]
    rng.shuffle(texts)
    begin = time.process_time()
    near_mask(texts[:5000])
    warm_up = time.process_time() - begin
    begin = time.process_time()
    decisions = near_mask(texts)
    cpu = time.process_time() - begin
    found = decisions.neighbour.tolist()
    expected, wrong = _jaccards(texts, found, decisions.score.tolist())
    rejected = [at for at in range(len(texts)) if found[at] >= 0]
    return {
        "rows": len(texts),
        "real": source.real,
        "warm_up_cpu_s": warm_up,
        "cpu_s": cpu,
        "dropped": len(rejected),
        "recall": sum(found[at] >= 0 for at in expected) / max(1, len(expected)),
        "precision": 1 - wrong / max(1, len(rejected)),
    }


def _jaccards(
    texts: list[str], neighbours: list[int], scores: list[float]
) -> tuple[list[int], int]:
    """The texts that are near one kept before them, by counting; and wrong scores of rejects."""
    from collections import Counter, defaultdict

    having: dict[tuple[str, ...], list[int]] = defaultdict(list)
    sizes: list[int] = []
    expected: list[int] = []
    wrong = 0
    for at, text in enumerate(texts):
        words = unicode_words(text)
        size = min(3, len(words))
        own = set(zip(*(words[start:] for start in range(size)), strict=False)) if size else set()
        sizes.append(len(own))
        shared = Counter(other for gram in own for other in having.get(gram, ()))
        similar = {
            other: count / (len(own) + sizes[other] - count) for other, count in shared.items()
        }
        if max(similar.values(), default=0.0) >= 0.7:
            expected.append(at)
        if neighbours[at] >= 0:
            wrong += scores[at] < 0.7 or similar.get(neighbours[at]) != scores[at]
        else:
            for gram in own:
                having[gram].append(at)
    return expected, wrong
