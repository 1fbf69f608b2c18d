"""Writes golden.json, the values that the tests of calm-metrics compare with, and the tables in src/python/.

    python3.11 -m venv "$VENV"
    "$VENV/bin/pip" install sacrebleu==2.6.0 rouge-score==0.1.2 nltk==3.10.4 regex==2026.11.19 numpy==2.4.6
    "$VENV/bin/python" calm-metrics/tests/golden/generate.py

Pinned: CPython 3.11 (Unicode 14.0) and the packages above. Token-F1 and exact match follow the official SQuAD 1.1
evaluation (Rajpurkar et al. 2016, evaluate-v1.1.py): lower case, drop ASCII punctuation, drop the articles a/an/the as
whole words, collapse white space, then compare bags of tokens or the strings.

Texts are written for this file or drawn from its word lists with a fixed seed, so a second run gives the same bytes. It
takes some minutes, most of them in TER of long texts.
"""

import collections
import json
import logging
import multiprocessing
import pathlib
import platform
import random
import re
import string
import unicodedata
from importlib.metadata import version

import numpy
import regex
from nltk.stem.porter import PorterStemmer
from rouge_score import rouge_scorer
from sacrebleu import significance
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.metrics.base import Metric, Score
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

PINNED = {"sacrebleu": "2.6.0", "rouge-score": "0.1.2", "nltk": "3.10.4", "regex": "2026.11.19", "numpy": "2.4.6"}
HERE = pathlib.Path(__file__).parent
TABLES = HERE.parent.parent / "src" / "python"

ENGLISH = """the a an of to and in is was for with that it on as by at this package library which provides tools system
files server user network graphics Python kernel version 2.0 3,000 well-known state-of-the-art don't it's U.S. e.g. i.e.
command-line (optional) "quoted" 'single' support, format; value: 42 1.5 -7 data, text. model! really? GNU/Linux C++ C#
$5.00 100% a_b x=y [list] {set} <tag> &amp; &quot;word&quot; &lt;b&gt; and/or The An A quick brown fox jumps""".split()

FRENCH = """le la les un une des du de l’eau l'ami d’accord qu'il aujourd’hui est était où à ça très déjà paquet
bibliothèque fournit outils système fichiers serveur utilisateur réseau français élève cœur naïf façon 3,14 1\u202f000
«\u00a0bonjour\u00a0» «oui» non\u00a0! quoi\u00a0? Attention\u00a0: c’est-à-dire porte-monnaie peut-être M. Mme n° 50\u00a0%
10\u00a0€ Œuvre ÉTÉ Noël, mais… – voilà ; ainsi. donc (voir) avec pour dans""".split(" ")
FRENCH = [word for chunk in FRENCH for word in chunk.split("\n")]

CJK = ["这是一个测试", "机器翻译", "日本語の文章です。", "テスト", "ひらがな", "한국어", "문장입니다.", "你好,世界!", "「引用」",
       "2024年", "第3章", "，", "。", "、", "図書館", "コンピューター", "翻訳モデル", "早期退出", "ABC", "１２３"]

EMOJI = ["😀", "😂", "👍🏽", "👨‍👩‍👧‍👦", "🇫🇷", "❤️", "✨", "so", "great", "!!!", "...", ":-)", "¯\\_(ツ)_/¯", "→", "∑x²", "½", "№",
         "™", "a\u0301", "Ⓐ", "x\u200by"]

PUNCTUATION_NOISE = list(".,.,.,--0123459 ab  &;<>\"'()/_`~^|[]{}@#!?:*+=$%\\") + [
    "&amp;", "&quot;", "&lt;", "&gt;", "&amp;lt;", "&amp;quot;", "&apos;", "<skipped>", "-\n", "\n", "\t", "\r\n", " "]

# White space to Python and to no one else (U+001C to U+001F), the other spaces, things that are none, letters whose lower
# case is special, marks and symbols that Unicode calls alphabetic though Python's \w leaves them out.
ODD = ["\x1c", "\x1d", "\x1e", "\x1f", "\x85", "\xa0", "\u1680", "\u2003", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000",
       "\u200b", "\u180e", "\ufeff", "\x0b", "\x0c", "\x00", "İ", "ΟΔΟΣ", "ΣΑΣ ", "ẞ", "ß", "K", "Å", "ǅ", "Ⓐ", "ⓐ", "\u0345",
       "का", "कि", "בְּ", "ﬁ", "Ⅷ", "²", "٣", "५", "〇", "a", "an", "the", "The", " a ", " an ", " the ", "_", "-", ".", ",", "\u0301",
       "ё", "Ж", "ი", "Ა", "ꭰ", "𝐀", "𐐀", "🄰", "ʻ", "’", "“", "”", "—", "¿", "¡"]

HANDWRITTEN = [
    ("", [""]), ("", ["a reference"]), ("a hypothesis", [""]), (" ", [""]), ("\n", [" "]), ("", ["", "x"]),
    (".", ["."]), (".", [","]), ("...", ["..."]), ("?!", ["!?"]), ("--", ["—"]), ("- - -", ["---"]), ("«»", ["«»"]),
    ("a", ["a"]), ("a", ["b"]), ("the", ["the"]), ("the", ["an"]), ("The", ["the cat"]), ("a a a", ["a"]), ("theatre", ["the atre"]),
    ("the the the the", ["the cat is on the mat"]), ("The Cat", ["the cat"]), ("cat.", ["cat"]), ("cat", ["a cat", "cats"]),
    ("one", ["one two three four five six"]), ("one two", ["one two"]), ("one two three", ["one two three"]),
    ("one two three four", ["one two three four"]), ("one two three four five", ["one two three four"]),
    ("one two three", ["one two three four five six seven eight"]), ("one two three four", ["four three two one"]),
    ("a..5", ["a . .5"]), ("1..2", ["1.2"]), ("1.,2", ["1 ., 2"]), (".5", ["0.5"]), ("5.", ["5 ."]), ("5,", ["5 ,"]),
    ("1,000.50", ["1000.50"]), ("1,000.50.", ["1,000.50 ."]), ("3-4", ["3 - 4"]), ("a-b", ["a - b"]), ("-5", ["- 5"]),
    ("2019-2020", ["2019 - 2020"]), ("x-3-y", ["x-3 - y"]), ("é.à", ["é . à"]), ("é,5", ["é , 5"]), ("5.é", ["5 . é"]),
    ("&quot;hi&quot;", ["\"hi\""]), ("&amp;lt;", ["&lt;"]), ("&amp;quot;", ["&quot;"]), ("&lt;b&gt;", ["<b>"]), ("&amp;amp;", ["&"]),
    ("AT&T", ["AT & T"]), ("R&amp;D", ["R&D"]), ("&", ["&amp;"]), ("&nbsp;x", ["x"]), ("<skipped>", [""]), ("a<skipped>b", ["ab"]),
    ("line-\nbreak", ["linebreak"]), ("line\nbreak", ["line break"]), ("end-\n", ["end-"]), ("tab\tseparated", ["tab separated"]),
    ("carriage\r\nreturn", ["carriage return"]), ("-\n-\n", ["--"]), ("x\x1cy", ["x y"]), ("x\x85y", ["x y"]), ("x\u200by", ["xy"]),
    ("trailing \x1f", ["trailing"]), ("Café", ["Cafe\u0301"]), ("Cafe\u0301", ["Cafe\u0301"]), ("a\u0301 b", ["b"]), ("naïve", ["naive"]),
    ("« Bonjour »", ["«\u00a0Bonjour\u00a0»"]), ("l’eau", ["l'eau"]), ("50\u00a0%", ["50 %"]), ("1\u202f000", ["1 000"]),
    ("İstanbul", ["istanbul"]), ("ΟΔΟΣ", ["οδος", "οδοσ"]), ("K", ["k"]), ("STRASSE", ["straße"]), ("a_b", ["a b"]), ("_a_", ["_"]),
    ("theⒶ", ["Ⓐ"]), ("a\u093f x", ["x"]), ("x² a", ["x²"]), ("(hi)", ["(hi )"]), ("(a", ["( a"]), ("!!", ["! !"]), ("x!", ["x !"]),
    ("'tis", ["' tis"]), ("你好", ["你好"]), ("你好世界", ["你好,世界"]), ("😀", ["😀"]), ("😀😀", ["😀"]), ("👨‍👩‍👧", ["👨‍👩‍👦"]),
    ("the cat sat on the mat", ["the cat is on the mat", "there is a cat on the mat"]),
    ("the cat sat", ["a b", "c d e f"]), ("w x y z", ["w x", "y z", "w x y z v u"]), ("aa bb", ["aa bb cc", "aa bb"]),
    ("It is a guide to action which ensures that the military always obeys the commands of the party.",
     ["It is a guide to action that ensures that the military will forever heed Party commands.",
      "It is the guiding principle which guarantees the military forces always being under the command of the Party.",
      "It is the practical guide for the army always to heed the directions of the party."]),
    ("Denver Broncos", ["Denver Broncos", "The Denver Broncos", "Broncos"]), ("in 1879", ["1879", "In 1879.", "the year 1879"]),
    ("Saint Bernadette Soubirous", ["St. Bernadette"]), ("A, an: the!", ["the"]), ("gold", ["\"golden anniversary\"", "gold"]),
]


# Roots and endings that take every rule of the stemmer, in words and in what only looks like one.
ROOTS = """relat condit ration valenc hesit digit conform radic different vile analog vietnam predic oper feud decis hope
call formal sensit sensibl triplic form electr good reviv allow infer airlin gyroscop adjust defens irrit replac depend
adopt homolog commun activ angular effect bowdler prob rat ceas control roll agre plaster bled motor sing conflat troubl siz
hopp tann fall hiss fizz fail fil happ sk enjo sp fl tr b ab yy syzyg toy tree e y geo theo archaeo x2 7""".split()
ENDINGS = """s es ies sses ss ed ing eed ied ying y ly ational tional enci anci izer bli abli alli entli eli ousli ization ation ator
alism iveness fulness ousness aliti iviti biliti fulli logi icate ative alize iciti ical ful ness al ance ence er ic able ible
ant ement ment ent ion sion tion ou ism ate iti ous ive ize e ll lle""".split() + [""]
IRREGULAR = """sky skies dying lying tying news innings inning outings outing cannings canning howe proceed exceed succeed dies
died spied flies tries cries enjoy spy fly""".split()


def perturb(rng, words, vocabulary):
    """A noisy copy: words dropped, replaced, doubled, swapped."""
    result = []
    for word in words:
        action = rng.random()
        if action < 0.08:
            continue
        if action < 0.18:
            result.append(rng.choice(vocabulary))
        elif action < 0.23:
            result += [word, word]
        else:
            result.append(word)
    if len(result) > 1 and rng.random() < 0.3:
        i = rng.randrange(len(result) - 1)
        result[i], result[i + 1] = result[i + 1], result[i]
    return result


def noisy_pairs(rng, vocabulary, count, length, separators, normalise=False):
    pairs = []
    for _ in range(count):
        words = [rng.choice(vocabulary) for _ in range(rng.randint(1, length))]
        number = rng.choice([1, 1, 1, 2, 3])
        texts = []
        for i in range(number + 1):
            copy = words if i == 1 else perturb(rng, words, vocabulary)
            text = rng.choice(separators).join(copy)
            if normalise:
                text = unicodedata.normalize(rng.choice(["NFC", "NFD"]), text)
            texts.append(text)
        pairs.append((texts[0], texts[1:]))
    return pairs


def build_pairs():
    rng = random.Random(20221)
    return {
        "handwritten": HANDWRITTEN,
        # Corpora without any n-gram of the highest orders, and without any match.
        "short": [("one two three", ["one two three"]), ("a b", ["a b c", "b a"]), ("", ["x"])],
        "disjoint": [("one two three four five", ["six seven eight nine ten"]), ("", ["x"])],
        "english": noisy_pairs(rng, ENGLISH, 130, 25, [" "]),
        "french": noisy_pairs(rng, FRENCH, 110, 25, [" ", " ", "\u00a0"], normalise=True),
        "cjk": noisy_pairs(rng, CJK, 60, 8, ["", " ", "\u3000"]),
        "emoji": noisy_pairs(rng, EMOJI, 50, 10, [" ", ""]),
        "punctuation": noisy_pairs(rng, PUNCTUATION_NOISE, 150, 30, [""]),
        "odd": noisy_pairs(rng, ODD, 110, 20, ["", "", " "]),
        "mixed": noisy_pairs(rng, ENGLISH + FRENCH + CJK + EMOJI + ODD, 60, 30, [" ", ""]),
        "long": noisy_pairs(rng, ENGLISH + FRENCH, 3, 900, [" "])
        + [("ab " * 700, ["ba " * 650]), ("x" * 2000, ["x" * 1500 + "y" * 300]), ("the cat " * 300, ["the dog " * 333])],
        "summaries": noisy_pairs(rng, [r + e for r in ROOTS for e in ENDINGS if rng.random() < 0.1] + IRREGULAR, 60, 40,
                                 [" ", ".\n", "\n\n"]),
        # Few different words, so that there are many longest common subsequences to choose from, and many shifts.
        "alphabet": [("".join(rng.choice(["a ", "b ", "c ", "dd\n"]) for _ in range(rng.randint(1, 60))),
                      ["".join(rng.choice(["a ", "b ", "c ", "dd\n"]) for _ in range(rng.randint(1, 60)))
                       for _ in range(rng.choice([1, 1, 2]))]) for _ in range(100)],
    }


def normalize_answer(text):
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def token_f1(prediction, answer):
    prediction, answer = normalize_answer(prediction).split(), normalize_answer(answer).split()
    same = sum((collections.Counter(prediction) & collections.Counter(answer)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(prediction), same / len(answer)
    return 2 * precision * recall / (precision + recall)


def exact_match(prediction, answer):
    return normalize_answer(prediction) == normalize_answer(answer)


def bleu_fields(bleu):
    return {"score": bleu.score, "counts": bleu.counts, "totals": bleu.totals, "precisions": bleu.precisions,
            "brevity_penalty": bleu.bp, "sys_len": bleu.sys_len, "ref_len": bleu.ref_len}


class Mean(Metric):
    """The mean of a score of segments, for the significance tests of sacreBLEU."""

    def __init__(self, segment_score):
        super().__init__()
        self.segment_score = segment_score

    def _extract_corpus_statistics(self, hypotheses, references):
        pairs = zip(hypotheses, zip(*references))
        return [[self.segment_score(h, [r for r in refs if r is not None]), 1.0] for h, refs in pairs]

    def _aggregate_and_compute(self, stats):
        return self._compute_score_from_stats([sum(column) for column in zip(*stats)])

    def _compute_score_from_stats(self, stats):
        return Score("mean", stats[0] / stats[1])

    def get_signature(self):
        return None

    _preprocess_segment = _extract_reference_info = _compute_segment_statistics = None


def rouge_score(options, hypothesis, references):
    kind = options["kind"]
    kind = f"rouge{kind['n']}" if isinstance(kind, dict) else {"l": "rougeL", "lsum": "rougeLsum"}[kind]
    return rouge_scorer.RougeScorer([kind], use_stemmer=options["stem"]).score_multi(references, hypothesis)[kind]


def scorer(options):
    """The Python tool for the options of a Rust scorer."""
    options = dict(options)
    metric = options.pop("metric")
    if metric == "bleu":
        smoothing = options.pop("smoothing")
        method, value = next(iter(smoothing.items())) if isinstance(smoothing, dict) else (smoothing, None)
        return BLEU(tokenize=options.pop("tokenizer"), smooth_method=method, smooth_value=value, force=True, **options)
    if metric == "chrf":
        return CHRF(**options)
    if metric == "ter":
        return TER(normalized=options["normalize"], no_punct=options["no_punctuation"],
                   asian_support=options["asian_support"], case_sensitive=options["case_sensitive"])
    if metric == "rouge":
        return Mean(lambda h, refs: 100 * float(rouge_score(options, h, refs).fmeasure))
    score = {"token-f1": token_f1, "exact": exact_match}[metric]
    return Mean(lambda h, refs: 100.0 * max(score(h, answer) for answer in refs))


def scorers():
    bleu = {"metric": "bleu", "tokenizer": "13a", "smoothing": "exp", "effective_order": True, "lowercase": False}
    for tokenizer in ["13a", "intl", "char", "none"]:
        yield {**bleu, "tokenizer": tokenizer}
    for smoothing in [{"floor": 0.1}, {"floor": 0.75}, {"add-k": 1}, {"add-k": 0.5}, "none"]:
        yield {**bleu, "smoothing": smoothing}
    yield {**bleu, "effective_order": False}
    yield {**bleu, "smoothing": {"add-k": 2}, "effective_order": False, "lowercase": True}
    yield {**bleu, "tokenizer": "intl", "lowercase": True}
    chrf = {"metric": "chrf", "char_order": 6, "word_order": 0, "beta": 2, "lowercase": False, "whitespace": False,
            "eps_smoothing": False}
    for change in [{}, {"word_order": 2}, {"lowercase": True}, {"whitespace": True}, {"eps_smoothing": True},
                   {"word_order": 2, "eps_smoothing": True, "beta": 3}, {"char_order": 4, "word_order": 1, "beta": 1}]:
        yield {**chrf, **change}
    ter = {"metric": "ter", "normalize": False, "no_punctuation": False, "asian_support": False, "case_sensitive": False}
    for changed in [[], ["normalize"], ["no_punctuation"], ["case_sensitive"], ["normalize", "asian_support"],
                    ["no_punctuation", "asian_support"], ["normalize", "no_punctuation", "asian_support"]]:
        yield {**ter, **{name: True for name in changed}}
    for stem in [False, True]:
        for kind in [{"n": 1}, {"n": 2}, "l", "lsum"]:
            yield {"metric": "rouge", "kind": kind, "stem": stem}
    yield {"metric": "token-f1"}
    yield {"metric": "exact"}


SCORERS = list(scorers())
ROUGE_PARTS = {"rouge_l": {"kind": "l", "stem": False}, "rouge_lsum": {"kind": "lsum", "stem": True}}


def streams(references):
    """Lists of references, with None where a segment has fewer than others."""
    return [[dict(enumerate(refs)).get(i) for refs in references] for i in range(max(map(len, references)))]


def rounded(value):
    """Keeps the file small: far below the 1e-9 that is tested."""
    return round(float(value), 11)


def score_pair(item):
    group, hypothesis, references = item
    pair = {"group": group, "hypothesis": hypothesis, "references": references,
            "tokens_13a": Tokenizer13a()(hypothesis),
            "bleu": bleu_fields(BLEU(effective_order=True).sentence_score(hypothesis, references))}
    for name, options in ROUGE_PARTS.items():
        score = rouge_score(options, hypothesis, references)
        pair[name] = [rounded(part) for part in (score.precision, score.recall, score.fmeasure)]
    tools = map(scorer, SCORERS)
    pair["scores"] = [rounded(tool.corpus_score([hypothesis], streams([references])).score) for tool in tools]
    return pair


def score_corpus(item):
    name, pairs = item
    hypotheses = [hypothesis for hypothesis, _ in pairs]
    references = streams([references for _, references in pairs])
    corpus = {"group": name, "bleu": bleu_fields(BLEU(force=True).corpus_score(hypotheses, references)),
              "scores": [], "signatures": []}
    for tool in map(scorer, SCORERS):
        corpus["scores"].append(rounded(tool.corpus_score(hypotheses, references).score))
        signature = tool.get_signature()
        corpus["signatures"].append(signature and signature.format())
    return corpus


class DoubleNumpy:
    """numpy for sacrebleu.significance, but with statistics in double precision, which sacreBLEU rounds to float32."""

    def __getattr__(self, name):
        return getattr(numpy, name)

    def array(self, values, dtype=None):
        return numpy.array(values, dtype="float64" if dtype == "float32" else dtype)


def compare_systems(pairs):
    """A paired test for some scorers, between the hypotheses and others that are a little worse.

    Of segments with two references at most: a third of an edit is no binary fraction, and whether a trial ties with the
    systems' own difference would hang on numpy's rounding.
    """
    pairs = [pair for pair in pairs if len(pair[1]) <= 2]
    rng = random.Random(7)
    hypotheses = [hypothesis for hypothesis, _ in pairs]
    baseline = []
    for hypothesis, references in pairs:
        text = rng.choice([hypothesis, references[0]])
        for _ in range((text == references[0]) + (rng.random() < 0.08)):
            text = " ".join(perturb(rng, text.split(" "), ENGLISH))
        baseline.append(text)
    references = streams([references for _, references in pairs])
    tests = []
    for options in SCORERS:
        bleu = options["metric"] == "bleu" and options["tokenizer"] == "13a" and options["smoothing"] in ("exp", {"add-k": 2})
        if not (bleu or options["metric"] in ("chrf", "ter") or options == {"metric": "rouge", "kind": "l", "stem": False}):
            continue
        test = {"scorer": options}
        for kind, samples, arithmetic in [("bs", 300, DoubleNumpy()), ("ar", 700, DoubleNumpy()), ("bs", 300, numpy)]:
            significance.np = arithmetic
            tool = scorer(options)
            if isinstance(tool, Mean):
                tool.get_signature = lambda: type("", (), {"update": lambda *_: None, "format": lambda *_: None})()
            signatures, scores = significance.PairedTest(
                [("baseline", baseline), ("system", hypotheses)], {"metric": tool}, references, kind, samples)()
            (name, signature), = signatures.items()
            of_baseline, of_system = scores[name]
            test[kind if arithmetic is not numpy else "float32"] = {
                "signature": signature.format(), "samples": samples, "p_value": of_system.p_value,
                "scores": [float(of_baseline.score), float(of_system.score)],
                "intervals": kind == "bs" and [[float(r.mean), float(r.ci)] for r in (of_baseline, of_system)] or None}
        tests.append(test)
    return {"baseline": baseline, "tests": tests}


def numpy_streams():
    """What numpy's default generator draws for resampling."""
    cases = []
    for seed, bound in [(0, 1), (0, 2), (1, 7), (12345, 130), (2**32 + 5, 3000), (2**64 - 1, 3 * 2**30)]:
        rng = numpy.random.default_rng(seed)
        cases.append({"seed": seed, "bound": bound, "indices": rng.choice(bound, size=(3, 11)).ravel().tolist(),
                      "flags": numpy.random.default_rng(seed).integers(2, size=(3, 25), dtype=bool).astype(int).ravel().tolist()})
    return cases


def stems():
    rng = random.Random(11)
    words = {root + ending for root in ROOTS for ending in ENDINGS if rng.random() < 0.4} | set(IRREGULAR)
    words |= {"".join(rng.choice("abeilnostyz") for _ in range(rng.randint(1, 6))) + rng.choice(ENDINGS) for _ in range(600)}
    stemmer = PorterStemmer()
    return {word: stemmer.stem(word) for word in sorted(words)}


CHARACTERS = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]


def table_of(characters):
    """Inclusive ranges."""
    ranges = []
    for code in map(ord, characters):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return ranges


def matching(pattern):
    return [c for c in CHARACTERS if regex.match(pattern, c)]


# Name, what it says, and the characters. `\w` of re is str.isalnum() and the underscore.
CLASSES = [
    ("WORD", "What `\\w` matches in Python's `re`", [c for c in CHARACTERS if c.isalnum() or c == "_"]),
    ("PUNCTUATION", "What `\\p{P}` matches in the package `regex`", matching(r"\p{P}")),
    ("SYMBOLS", "What `\\p{S}` matches in the package `regex`", matching(r"\p{S}")),
    ("NUMBERS", "What `\\p{N}` matches in the package `regex`", matching(r"\p{N}")),
]


def write_table(name, title, characters):
    cells = [f"('\\u{{{a:x}}}', '\\u{{{b:x}}}')" for a, b in table_of(characters)]
    lines = ["    " + " ".join(cell + "," for cell in cells[i:i + 4]) for i in range(0, len(cells), 4)]
    (TABLES / f"{name.lower()}.rs").write_text(
        f"//! Written by tests/golden/generate.py from Python {platform.python_version()} (Unicode {unicodedata.unidata_version}) and regex "
        f"{regex.__version__}.\n\n/// {title}: inclusive ranges, ascending.\n#[rustfmt::skip]\n"
        f"pub(super) const {name}: [(char, char); {len(cells)}] = [\n" + "\n".join(lines) + "\n];\n")


def main():
    logging.getLogger("sacrebleu").setLevel(logging.ERROR)
    for package, wanted in PINNED.items():
        assert version(package) == wanted, f"{package} {version(package)} is installed, {wanted} is pinned"
    groups = build_pairs()
    everything = [pair for pairs in groups.values() for pair in pairs]
    sums = lambda characters: {"count": len(characters), "sum": sum(map(ord, characters))}
    head = {"python": platform.python_version(), "unicode": unicodedata.unidata_version, **PINNED,
            "classes": {name: sums(characters) for name, _, characters in CLASSES},
            "lower": {"changed": sums([c for c in CHARACTERS if c.lower() != c]), "to": sums([x for c in CHARACTERS for x in c.lower()])}}
    with multiprocessing.Pool() as pool:
        pairs = pool.map(score_pair, [(name, h, r) for name, pairs in groups.items() for h, r in pairs], chunksize=1)
        corpora = pool.map(score_corpus, [*groups.items(), ("all", everything)], chunksize=1)
    one_a_line = lambda items: "[\n" + ",\n".join(json.dumps(item) for item in items) + "\n]"
    (HERE / "golden.json").write_text(
        f'{{"made_with": {json.dumps(head)},\n"scorers": {one_a_line(SCORERS)},\n"corpora": {one_a_line(corpora)},\n'
        f'"comparison": {json.dumps(compare_systems(groups["english"]))},\n"numpy": {json.dumps(numpy_streams())},\n'
        f'"stems": {json.dumps(stems())},\n"pairs": {one_a_line(pairs)}}}\n')
    for table in CLASSES:
        write_table(*table)
    print(f"{len(pairs)} pairs, {len(corpora)} corpora, {len(SCORERS)} scorers")


if __name__ == "__main__":
    main()
