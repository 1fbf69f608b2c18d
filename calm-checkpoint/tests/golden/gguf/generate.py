"""Writes T5s of calm-model/tests/reference, beside their checkpoints, and a made-up Llama with its tensors as Hugging
Face has them, as GGUF files.

    pip install gguf safetensors
    python generate.py

Names are those of gguf-py's own map of names, rows of q and k are permuted as llama.cpp's converter does it
(`LlamaModel.permute`), keys are those that its converters write. In blocks are the matrices whose rows are whole blocks,
as llama.cpp's quantisation chooses them; the rest stays.
"""

import json
import pathlib

import gguf
import numpy
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import load_file, save_file

HERE = pathlib.Path(__file__).parent
REFERENCE = HERE.parents[3] / "calm-model/tests/reference"


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tensors(writer, architecture, layers, tensors, kind):
    names = gguf.get_tensor_name_map(architecture, layers)
    block = gguf.GGML_QUANT_SIZES[kind][0]
    for name, values in tensors.items():
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if values.ndim > 1 and "relative" not in name and values.shape[1] % block == 0:
            writer.add_tensor(stored, gguf.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(stored, values)


def t5(version, kind):
    config = json.loads((REFERENCE / version / "config.json").read_text())
    tensors = load_file(REFERENCE / version / "model.safetensors")
    writer = gguf.GGUFWriter(REFERENCE / version / f"model-{kind.name}.gguf", "t5")
    writer.add_context_length(512)
    writer.add_embedding_length(config["d_model"])
    writer.add_feed_forward_length(config["d_ff"])
    writer.add_block_count(config["num_layers"])
    writer.add_decoder_block_count(config["num_decoder_layers"])
    writer.add_head_count(config["num_heads"])
    writer.add_key_length(config["d_kv"])
    writer.add_value_length(config["d_kv"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_relative_attn_buckets_count(config["relative_attention_num_buckets"])
    writer.add_layer_norm_rms_eps(config["layer_norm_epsilon"])
    writer.add_decoder_start_token_id(config["decoder_start_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    layers = max(config["num_layers"], config["num_decoder_layers"])
    network = {name: values for name, values in tensors.items() if not name.startswith("calm.")}
    add_tensors(writer, gguf.MODEL_ARCH.T5, layers, network, kind)
    finish(writer)


def permuted(weights, heads):
    """Rows of pairs side by side: reshape and swapaxes are those of the converter."""
    rows, columns = weights.shape
    return weights.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def llama():
    random = numpy.random.default_rng(4)
    hidden, intermediate, heads, kv_heads, head_dim, vocabulary, layers = 32, 48, 6, 2, 8, 40, 2
    tensors = {
        "model.embed_tokens.weight": (vocabulary, hidden), "model.norm.weight": (hidden,),
        "lm_head.weight": (vocabulary, hidden),
    }
    for layer in range(layers):
        base = f"model.layers.{layer}"
        tensors |= {
            f"{base}.input_layernorm.weight": (hidden,), f"{base}.post_attention_layernorm.weight": (hidden,),
            f"{base}.self_attn.q_proj.weight": (heads * head_dim, hidden),
            f"{base}.self_attn.k_proj.weight": (kv_heads * head_dim, hidden),
            f"{base}.self_attn.v_proj.weight": (kv_heads * head_dim, hidden),
            f"{base}.self_attn.o_proj.weight": (hidden, heads * head_dim),
            f"{base}.mlp.gate_proj.weight": (intermediate, hidden), f"{base}.mlp.up_proj.weight": (intermediate, hidden),
            f"{base}.mlp.down_proj.weight": (hidden, intermediate),
        }
    # Numbers that both files can hold.
    tensors = {name: random.normal(size=shape).astype(numpy.float16).astype(numpy.float32)
               for name, shape in tensors.items()}
    save_file(tensors, HERE / "llama.safetensors")
    writer = gguf.GGUFWriter(HERE / "llama.gguf", "llama")
    writer.add_vocab_size(vocabulary)
    writer.add_context_length(131_072)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(intermediate)
    writer.add_block_count(layers)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(500_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_eot_token_id(3)
    for name in tensors:
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            tensors[name] = permuted(tensors[name], heads if "q_proj" in name else kv_heads)
    add_tensors(writer, gguf.MODEL_ARCH.LLAMA, layers, tensors, Type.F16)
    # Llama 3.2's stretching, as `LlamaModel.generate_extra_tensors` of the converter computes it.
    frequencies = 1.0 / 500_000.0 ** (numpy.arange(0, head_dim, 2) / head_dim)
    factors = []
    for wavelength in 2 * numpy.pi / frequencies:
        if wavelength < 8192 / 4:
            factors.append(1.0)
        elif wavelength > 8192 / 1:
            factors.append(32.0)
        else:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            factors.append(1 / ((1 - smooth) / 32.0 + smooth))
    writer.add_tensor("rope_freqs.weight", numpy.array(factors, numpy.float32))
    finish(writer)


for version in ["v1_0", "v1_1"]:
    for kind in [Type.F32, Type.Q8_0]:
        t5(version, kind)
llama()
