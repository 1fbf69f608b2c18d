"""Writes adamw.json: AdamW (Loshchilov and Hutter 2019, algorithm 2, in the form of torch.optim.AdamW, after
torch.nn.utils.clip_grad_norm_) in float64, on one matrix, which decays, and one vector, which does not."""

import json
import math
import pathlib

CONFIG = {"beta1": 0.9, "beta2": 0.98, "epsilon": 1e-8, "weight_decay": 0.1, "clip_norm": 1.0}
MATRIX, VECTOR = 6, 3  # The matrix is [2, 3].

parameters = [0.5 * math.cos(1.0 + i) for i in range(MATRIX + VECTOR)]
mean = [0.0] * len(parameters)
square = [0.0] * len(parameters)
steps = []
for step in range(1, 9):
    learning_rate = 0.05 / step
    # Every other gradient is longer than the clipping norm.
    length = 2.0 if step % 2 == 0 else 0.2
    gradient = [length * math.sin(step * (i + 1)) for i in range(len(parameters))]
    norm = math.sqrt(sum(g * g for g in gradient))
    factor = min(1.0, CONFIG["clip_norm"] / (norm + 1e-6))
    for i, g in enumerate(g * factor for g in gradient):
        mean[i] = CONFIG["beta1"] * mean[i] + (1 - CONFIG["beta1"]) * g
        square[i] = CONFIG["beta2"] * square[i] + (1 - CONFIG["beta2"]) * g * g
        if i < MATRIX:
            parameters[i] *= 1 - learning_rate * CONFIG["weight_decay"]
        unbiased_mean = mean[i] / (1 - CONFIG["beta1"] ** step)
        unbiased_square = square[i] / (1 - CONFIG["beta2"] ** step)
        parameters[i] -= learning_rate * unbiased_mean / (math.sqrt(unbiased_square) + CONFIG["epsilon"])
    steps.append({"learning_rate": learning_rate, "gradient": gradient, "norm": norm, "parameters": list(parameters)})

start = [0.5 * math.cos(1.0 + i) for i in range(MATRIX + VECTOR)]
golden = {"config": CONFIG, "start": start, "steps": steps}
pathlib.Path(__file__).with_name("adamw.json").write_text(json.dumps(golden, indent=1) + "\n")
