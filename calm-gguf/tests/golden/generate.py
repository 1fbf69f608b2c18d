"""Writes every_type.gguf, a tensor of each type made of random bytes, and every_type.safetensors, their values.

    pip install gguf safetensors
    python generate.py

The values are those of gguf-py's own arithmetic in numpy, which shares no code with ggml's.
"""

import pathlib

import gguf
import numpy
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent
TYPES = [Type.F32, Type.F16, Type.BF16, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.Q4_K, Type.Q5_K,
         Type.Q6_K]
ROWS, COLUMNS = 3, 512

random = numpy.random.default_rng(17)
writer = gguf.GGUFWriter(HERE / "every_type.gguf", "llama")
writer.add_uint8("test.u8", 200)
writer.add_int8("test.i8", -100)
writer.add_uint16("test.u16", 60_000)
writer.add_int16("test.i16", -30_000)
writer.add_uint32("test.u32", 4_000_000_000)
writer.add_int32("test.i32", -2_000_000_000)
writer.add_float32("test.f32", 0.1)
writer.add_bool("test.bool", True)
writer.add_string("test.string", "naïve 語 \U0001f600")
writer.add_uint64("test.u64", 1 << 63)
writer.add_int64("test.i64", -(1 << 63))
writer.add_float64("test.f64", 0.1)
writer.add_array("test.strings", ["a", "", "Ġb"])
writer.add_array("test.i32s", [-1, 0, 1])
writer.add_array("test.f32s", [0.5, -2.0])
writer.add_array("test.bools", [True, False])
writer.add_array("test.nested", [[1, 2], [3]])
writer.add_array("test.bytes", bytes([0, 7, 255]))

values = {}
for kind in TYPES:
    block_len, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    raw = random.integers(0, 256, (ROWS, COLUMNS // block_len * block_bytes), numpy.uint8)
    # A byte array's shape is in bytes: the writer computes that of the values.
    writer.add_tensor(kind.name, raw, raw_dtype=kind)
    with numpy.errstate(all="ignore"):
        values[kind.name] = numpy.ascontiguousarray(gguf.dequantize(raw, kind), numpy.float32)
    assert values[kind.name].shape == (ROWS, COLUMNS)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
save_file(values, HERE / "every_type.safetensors")
