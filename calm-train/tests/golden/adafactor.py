"""Writes adafactor.json: transformers' Adafactor (relative_step=False, warmup_init=False), after
torch.nn.utils.clip_grad_norm_, in float64. Needs torch and transformers.

The tensors are matrices, vectors, a stack of matrices, tensors that start as zero, one that has no gradient in any step, and a matrix
of which one row has none before the fourth, as the embedding of a rare token."""

import json
import math
import pathlib

import torch
from transformers.optimization import Adafactor

SHAPES = {
    "embedding": [4, 3],
    "idle": [2, 2],
    "matrix": [3, 5],
    "stack": [2, 2, 3],
    "vector": [4],
    "zero_matrix": [2, 3],
    "zero_vector": [3],
}


def values(shape, f):
    return torch.tensor([f(i) for i in range(math.prod(shape))], dtype=torch.float64).reshape(shape)


def start(number, name, shape):
    size = 0.0 if name.startswith("zero") else 0.3 * (number + 1)
    return values(shape, lambda i: size * math.cos(1.0 + number + i))


def gradient(step, number, name, shape):
    # Lengths of several orders of magnitude, so that some updates are shortened and others are not.
    length = [0.2, 3.0, 0.01, 30.0, 1.0, 0.001][step - 1] * (number + 1)
    values_of_step = values(shape, lambda i: length * math.sin(step * (i + 1.0) + number))
    if name == "idle":
        values_of_step.zero_()
    if name == "embedding" and step < 4:
        values_of_step[2] = 0.0
    return values_of_step


def flat(tensors):
    return [value for tensor in tensors for value in tensor.flatten().tolist()]


def run(config):
    parameters = [torch.nn.Parameter(start(i, *item)) for i, item in enumerate(SHAPES.items())]
    first = flat(parameters)
    optimizer = Adafactor(
        parameters,
        lr=1.0,
        eps=(config.get("epsilon1", 1e-30), config.get("epsilon2", 1e-3)),
        clip_threshold=config.get("clip_threshold", 1.0),
        decay_rate=-config.get("decay_exponent", 0.8),
        beta1=config.get("beta1"),
        weight_decay=0.0,
        scale_parameter=config["parameter_scale"],
        relative_step=False,
        warmup_init=False,
    )
    steps = []
    for step in range(1, 7):
        learning_rate = 0.05 / step
        for i, (parameter, item) in enumerate(zip(parameters, SHAPES.items())):
            parameter.grad = gradient(step, i, *item)
        before = flat(parameter.grad for parameter in parameters)
        norm = torch.nn.utils.clip_grad_norm_(parameters, config["clip_norm"]).item()
        optimizer.param_groups[0]["lr"] = learning_rate
        optimizer.step()
        steps.append({"learning_rate": learning_rate, "gradient": before, "norm": norm, "parameters": flat(parameters)})
    return {
        "config": {"kind": "adafactor", **config},
        "shapes": SHAPES,
        "start": first,
        "steps": steps,
    }


golden = [
    run({"clip_norm": 1e9, "parameter_scale": False}),
    run({"clip_norm": 1e9, "parameter_scale": True}),
    run({"clip_norm": 1e9, "parameter_scale": False, "beta1": 0.9}),
    run({"clip_norm": 1.0, "parameter_scale": True, "beta1": 0.5}),
    run(
        {
            "clip_norm": 2.0,
            "parameter_scale": True,
            "clip_threshold": 0.3,
            "decay_exponent": 0.6,
            "epsilon1": 1e-6,
            "epsilon2": 0.5,
        }
    ),
]
lines = ",\n".join(json.dumps(case) for case in golden)
pathlib.Path(__file__).with_name("adafactor.json").write_text(f"[\n{lines}\n]\n")
