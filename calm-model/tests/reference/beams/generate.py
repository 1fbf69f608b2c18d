"""Writes v1_0.json and v1_1.json: what transformers' beam search gives for the checkpoints beside this folder.

    pip install transformers==5.24.0 torch==2.11.0 && python generate.py

The network is in float64; transformers adds scores up in float32. A case is left out unless 8 copies of the network
whose weights are changed by 1e-4 of themselves at random give the same output, so that rounding decides nothing.
T5 fails with a cache where encoder and decoder have different depths (use_cache=False).
"""

import json
from pathlib import Path

import torch
from transformers import T5ForConditionalGeneration

FOLDER = Path(__file__).parent
COPIES = 8
CHANGE = 1e-4
CASES = 40


def load(name):
    return T5ForConditionalGeneration.from_pretrained(FOLDER.parent / name, dtype=torch.float64).eval()


def search(model, case):
    ids = model.generate(
        torch.tensor([case["input_ids"]]),
        num_beams=case["beams"],
        length_penalty=case["length_penalty"],
        max_new_tokens=case["max_tokens"],
        eos_token_id=case["eos_tokens"],
        do_sample=False,
        early_stopping=False,
        use_cache=False,
    )[0, 1:].tolist()
    ends = [index for index, token in enumerate(ids) if token in case["eos_tokens"]]
    return ids[: ends[0] + 1] if ends else ids


def main():
    for name in ["v1_0", "v1_1"]:
        model = load(name)
        torch.manual_seed(0)
        copies = []
        for _ in range(COPIES):
            copy = load(name)
            with torch.no_grad():
                for parameter in copy.parameters():
                    parameter.mul_(1 + CHANGE * (2 * torch.rand_like(parameter) - 1))
            copies.append(copy)
        cases, lengths, unstable = [], set(), 0
        trial = 0
        while len(cases) < CASES:
            trial += 1
            length = [2, 5, 9, 17, 30][trial % 5]
            source = torch.randint(3, 211, (length,)).tolist()
            greedy = search(
                model,
                {"input_ids": source, "beams": 1, "length_penalty": 1.0, "max_tokens": 10, "eos_tokens": [1]},
            )
            # Tokens that come up, so that hypotheses end.
            eos = [[1], [greedy[-1]], sorted({1, greedy[2], greedy[-2]})][trial % 3]
            case = {
                "input_ids": source,
                "beams": [2, 3, 4, 6][trial % 4],
                "length_penalty": [1.0, 0.0, 0.6, 2.0, -1.0][trial // 2 % 5],
                "max_tokens": [12, 7, 1, 16][trial // 3 % 4],
                "eos_tokens": eos,
            }
            tokens = search(model, case)
            if any(search(copy, case) != tokens for copy in copies):
                unstable += 1
                continue
            case["tokens"] = tokens
            case["differs_from_greedy"] = tokens != search(model, case | {"beams": 1})
            lengths.add(len(tokens))
            cases.append(case)
        text = ",\n".join(json.dumps(case) for case in cases)
        (FOLDER / f"{name}.json").write_text(f"[\n{text}\n]\n")
        differing = sum(case["differs_from_greedy"] for case in cases)
        print(name, len(cases), "cases,", unstable, "left out,", differing, "differ from greedy, lengths", sorted(lengths))


if __name__ == "__main__":
    main()
