"""Times sacreBLEU and rouge-score on the pairs of a JSON file, for benches/speed.rs: seconds by task, as JSON."""

import json
import sys
import time

from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF, TER

hypotheses, references = json.load(open(sys.argv[1], encoding="utf-8"))


def bleu_and_chrf():
    # A new BLEU has a new tokenizer, and with it an empty cache of tokenized lines.
    BLEU().corpus_score(hypotheses, [references])
    CHRF().corpus_score(hypotheses, [references])


def rouge(stem):
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=stem)
    for hypothesis, reference in zip(hypotheses, references):
        scorer.score(reference, hypothesis)


def ter():
    TER().corpus_score(hypotheses, [references])


def best(task, repetitions):
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        task()
        times.append(time.perf_counter() - start)
    return min(times)


print(json.dumps({
    "BLEU and chrF": best(bleu_and_chrf, 3),
    "ROUGE-1, 2, L, Lsum": best(lambda: rouge(False), 2),
    "ROUGE-1, 2, L, Lsum, stemmed": best(lambda: rouge(True), 2),
    "TER": best(ter, 1),
}))
