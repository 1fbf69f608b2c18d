"""Whole greedy calls of one checkpoint on transformers and CTranslate2, as JSON lines: tokens a second, median of some repetitions.

    python peers.py MODEL_DIR [--source-tokens 64] [--new-tokens 64] [--threads 1 2] [--repetitions 5] [--device cuda:0]

MODEL_DIR is a T5 in the Hugging Face layout. Where it has no tokenizer, one whose words are the token numbers is put beside a copy,
since the converter of CTranslate2 asks for one. Needs transformers, torch and, for the CPU, ctranslate2.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import time


def source_tokens(vocab_size, count):
    """The source that `calm bench` takes (calm-cli/src/bench/mod.rs)."""
    first = min(3, vocab_size - 1)
    words = vocab_size - 200 if vocab_size > 200 else vocab_size - first
    return [first + i * 7919 % words for i in range(count)]


def with_tokenizer(model_dir):
    if os.path.exists(os.path.join(model_dir, "tokenizer.json")):
        return model_dir
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    target = model_dir.rstrip("/") + "-with-tokenizer"
    shutil.copytree(model_dir, target, dirs_exist_ok=True)
    size = json.load(open(os.path.join(model_dir, "config.json")))["vocab_size"]
    names = ["<pad>", "</s>", "<unk>"] + [f"t{i}" for i in range(3, size)]
    words = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(target)
    return target


def median_rate(call, tokens, repetitions):
    call()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return tokens / statistics.median(times)


def report(runtime, threads, dtype, rate):
    print(json.dumps({"runtime": runtime, "threads": threads, "dtype": dtype, "tokens_per_second": round(rate, 1)}))
    sys.stdout.flush()


def measure_ctranslate2(model_dir, source, arguments):
    import ctranslate2

    converted = model_dir.rstrip("/") + "-ctranslate2"
    if not os.path.exists(converted):
        ctranslate2.converters.TransformersConverter(model_dir).convert(converted)
    vocabulary = json.load(open(os.path.join(converted, "shared_vocabulary.json")))
    tokens = [vocabulary[i] for i in source]
    batch = [tokens] * arguments.batch_size
    length = arguments.new_tokens
    for threads in arguments.threads:
        for dtype in ["float32", "int8", "int8_float32", "int16", "bfloat16"]:
            try:
                translator = ctranslate2.Translator(
                    converted, device="cpu", compute_type=dtype, inter_threads=1, intra_threads=threads
                )
            except ValueError:
                continue  # not for this processor

            def call():
                translator.translate_batch(
                    batch, beam_size=1, min_decoding_length=length, max_decoding_length=length, max_input_length=0
                )

            report("ctranslate2", threads, dtype, median_rate(call, length * arguments.batch_size, arguments.repetitions))


def measure_transformers(model_dir, source, arguments):
    import torch
    from transformers import T5ForConditionalGeneration

    length = arguments.new_tokens
    is_cpu = arguments.device == "cpu"
    for dtype in ["float32"] if is_cpu else ["float32", "bfloat16"]:
        model = T5ForConditionalGeneration.from_pretrained(model_dir, dtype=getattr(torch, dtype)).eval().to(arguments.device)
        ids = torch.tensor([source] * arguments.batch_size, device=arguments.device)

        def call():
            with torch.inference_mode():
                # Reading the result waits for the device.
                model.generate(ids, do_sample=False, num_beams=1, min_new_tokens=length, max_new_tokens=length).tolist()

        for threads in arguments.threads:
            if is_cpu:
                torch.set_num_threads(threads)
            rate = median_rate(call, length * arguments.batch_size, arguments.repetitions)
            report("transformers", threads, dtype, rate)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model_dir")
    parser.add_argument("--source-tokens", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="cpu for both runtimes, or a GPU for transformers alone")
    arguments = parser.parse_args()
    size = json.load(open(os.path.join(arguments.model_dir, "config.json")))["vocab_size"]
    source = source_tokens(size, arguments.source_tokens)
    model_dir = with_tokenizer(arguments.model_dir) if arguments.device == "cpu" else arguments.model_dir
    if arguments.device == "cpu":
        measure_ctranslate2(model_dir, source, arguments)
    measure_transformers(model_dir, source, arguments)


if __name__ == "__main__":
    main()
