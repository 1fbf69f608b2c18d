"""Writes adamw.json: AdamW (Loshchilov and Hutter 2019, algorithm 2, in the form of torch.optim.AdamW, after
torch.nn.utils.clip_grad_norm_) in float64, on one matrix, which decays, and one vector, which does not. Once with the
learning rate as it is, once relative to each tensor's root mean square (Shazeer and Stern 2018, section 8)."""

import json
import math
import pathlib

BETA1, BETA2, EPSILON, WEIGHT_DECAY, CLIP_NORM = 0.9, 0.98, 1e-8, 0.1, 1.0
MATRIX = range(0, 6)  # [2, 3]
VECTOR = range(6, 9)
ALL = range(0, 9)


def run(parameter_scale):
    start = [0.5 * math.cos(1.0 + i) for i in ALL]
    parameters = list(start)
    mean = [0.0 for _ in ALL]
    square = [0.0 for _ in ALL]
    steps = []
    for step in range(1, 9):
        learning_rate = 0.05 / step
        # Every other gradient is longer than the clipping norm.
        length = 2.0 if step % 2 == 0 else 0.2
        gradient = [length * math.sin(step * (i + 1)) for i in ALL]
        norm = math.sqrt(sum(g * g for g in gradient))
        factor = min(1.0, CLIP_NORM / (norm + 1e-6))
        for i in MATRIX:
            parameters[i] *= 1 - learning_rate * WEIGHT_DECAY
        for tensor in (MATRIX, VECTOR):
            root_mean_square = math.sqrt(sum(parameters[i] ** 2 for i in tensor) / len(tensor))
            scale = max(root_mean_square, 1e-3) if parameter_scale else 1.0
            for i in tensor:
                g = gradient[i] * factor
                mean[i] = BETA1 * mean[i] + (1 - BETA1) * g
                square[i] = BETA2 * square[i] + (1 - BETA2) * g * g
                unbiased_mean = mean[i] / (1 - BETA1**step)
                unbiased_square = square[i] / (1 - BETA2**step)
                parameters[i] -= learning_rate * scale * unbiased_mean / (math.sqrt(unbiased_square) + EPSILON)
        steps.append(
            {"learning_rate": learning_rate, "gradient": gradient, "norm": norm, "parameters": list(parameters)}
        )
    config = {
        "learning_rate": 1.0,
        "beta1": BETA1,
        "beta2": BETA2,
        "epsilon": EPSILON,
        "weight_decay": WEIGHT_DECAY,
        "clip_norm": CLIP_NORM,
        "parameter_scale": parameter_scale,
    }
    return {"config": config, "start": start, "steps": steps}


golden = [run(parameter_scale) for parameter_scale in (False, True)]
pathlib.Path(__file__).with_name("adamw.json").write_text(json.dumps(golden, indent=1) + "\n")
