"""Writes llama_gqa_tied/cases.json and llama_mha_untied/cases.json with policies as they are written everywhere.

    python llama_policies.py FOLDER

FOLDER has the same two files, named without `llama_`, whose policies are objects: `kind`, and `layers`, `measure`,
`threshold`, `decay` where a kind has them.
"""

import json
import sys
from pathlib import Path


def name(policy):
    kind = policy["kind"]
    if kind == "static":
        return f"static-{policy['layers']}"
    if kind == "calm":
        decay = f"-tau{policy['decay']:g}" if policy["decay"] is not None else ""
        return f"calm-{policy['measure']}-{policy['threshold']:g}{decay}"
    if kind == "shallow-deep":
        assert policy["measure"] == "softmax", policy
        return f"shallow-deep-{policy['layers']}-{policy['threshold']:g}"
    assert kind in ("full", "oracle"), policy
    return kind


for checkpoint in ["gqa_tied", "mha_untied"]:
    cases = json.loads((Path(sys.argv[1]) / checkpoint / "cases.json").read_text())["cases"]
    for case in cases:
        # Nothing is tested at threshold 1, which is known to be out of reach.
        if case["policy"].get("threshold") == 1:
            case["confidence"] = [None] * len(case["tokens"])
        case["policy"] = name(case["policy"])
    lines = ",\n".join(json.dumps(case) for case in cases)
    path = Path(__file__).parent / f"llama_{checkpoint}" / "cases.json"
    path.write_text('{"cases": [\n' + lines + "\n]}\n")
