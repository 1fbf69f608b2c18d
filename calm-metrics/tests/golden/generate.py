"""Writes golden.json, the values that the tests of calm-metrics compare with, and src/python/word_characters.rs.

    python3.11 -m venv "$VENV"
    "$VENV/bin/pip" install sacrebleu==2.6.0 rouge-score==0.1.2
    "$VENV/bin/python" tests/golden/generate.py

Pinned: CPython 3.11 (Unicode 14.0), sacrebleu 2.6.0, rouge-score 0.1.2. Token-F1 and exact match follow the official
SQuAD 1.1 evaluation (Rajpurkar et al. 2016, evaluate-v1.1.py): lower case, drop ASCII punctuation, drop the articles
a/an/the as whole words, collapse white space, then compare bags of tokens or the strings.

Texts are written for this file or drawn from its word lists with a fixed seed, so a second run gives the same bytes.
"""

import collections
import json
import pathlib
import platform
import random
import re
import string
import unicodedata
from importlib.metadata import version

from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

PINNED = {"sacrebleu": "2.6.0", "rouge-score": "0.1.2"}
HERE = pathlib.Path(__file__).parent
WORD_CHARACTERS = HERE.parent.parent / "src" / "python" / "word_characters.rs"

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


ROUGE = rouge_scorer.RougeScorer(["rougeL"])
TOKENIZER = Tokenizer13a()


def score_pair(group, hypothesis, references):
    rouge = ROUGE.score_multi(references, hypothesis)["rougeL"]
    return {
        "group": group, "hypothesis": hypothesis, "references": references,
        "tokens_13a": TOKENIZER(hypothesis),
        "bleu": bleu_fields(BLEU(effective_order=True).sentence_score(hypothesis, references)),
        "chrf": CHRF().sentence_score(hypothesis, references).score,
        "chrf_plus_plus": CHRF(word_order=2).sentence_score(hypothesis, references).score,
        "rouge_l": [float(rouge.precision), float(rouge.recall), float(rouge.fmeasure)],
        "token_f1": max(token_f1(hypothesis, answer) for answer in references),
        "exact_match": max(exact_match(hypothesis, answer) for answer in references),
    }


def score_corpus(name, pairs):
    hypotheses = [pair["hypothesis"] for pair in pairs]
    streams = max(len(pair["references"]) for pair in pairs)
    references = [[dict(enumerate(pair["references"])).get(i) for pair in pairs] for i in range(streams)]
    mean = lambda key: 100 * sum(key(pair) for pair in pairs) / len(pairs)
    return {
        "group": name,
        "bleu": bleu_fields(BLEU(force=True).corpus_score(hypotheses, references)),
        "chrf": CHRF().corpus_score(hypotheses, references).score,
        "chrf_plus_plus": CHRF(word_order=2).corpus_score(hypotheses, references).score,
        "rouge_l": mean(lambda pair: pair["rouge_l"][2]),
        "token_f1": mean(lambda pair: pair["token_f1"]),
        "exact_match": mean(lambda pair: pair["exact_match"]),
    }


def word_ranges():
    """Inclusive ranges of the characters that \\w matches in a str pattern: str.isalnum() and the underscore."""
    ranges = []
    for code in range(0x110000):
        if chr(code).isalnum() or chr(code) == "_":
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return ranges


def write_word_characters(ranges):
    cells = [f"('\\u{{{a:x}}}', '\\u{{{b:x}}}')" for a, b in ranges]
    lines = ["    " + " ".join(cell + "," for cell in cells[i:i + 4]) for i in range(0, len(cells), 4)]
    WORD_CHARACTERS.write_text(
        f"//! Written by tests/golden/generate.py from Python {platform.python_version()}, Unicode {unicodedata.unidata_version}.\n\n"
        "/// What `\\w` matches: inclusive ranges, ascending.\n"
        "#[rustfmt::skip]\n"
        f"pub(super) const WORD_CHARACTERS: [(char, char); {len(cells)}] = [\n" + "\n".join(lines) + "\n];\n")


def main():
    for package, wanted in PINNED.items():
        assert version(package) == wanted, f"{package} {version(package)} is installed, {wanted} is pinned"
    groups = {name: [score_pair(name, h, r) for h, r in pairs] for name, pairs in build_pairs().items()}
    everything = [pair for pairs in groups.values() for pair in pairs]
    ranges = word_ranges()
    head = {"python": platform.python_version(), "unicode": unicodedata.unidata_version, **PINNED,
            "word_characters": sum(b - a + 1 for a, b in ranges),
            "word_code_points": sum(code for a, b in ranges for code in range(a, b + 1))}
    corpora = [score_corpus(name, pairs) for name, pairs in groups.items()] + [score_corpus("all", everything)]
    one_a_line = lambda items: "[\n" + ",\n".join(json.dumps(item) for item in items) + "\n]"
    (HERE / "golden.json").write_text(
        f'{{"made_with": {json.dumps(head)},\n"corpora": {one_a_line(corpora)},\n"pairs": {one_a_line(everything)}}}\n')
    write_word_characters(ranges)
    print(f"{len(everything)} pairs, {len(corpora)} corpora, {len(ranges)} ranges of word characters")


if __name__ == "__main__":
    main()
