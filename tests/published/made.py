"""Make checkpoints as other people do, by the libraries alone: `python made.py KIND BASE FOLDER`.

GPTQModel and auto-round replace classes of transformers in their process: each checkpoint is made in one of its
own."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

BITS, GROUP = 4, 32


def _windows(base: Path) -> list[Any]:
    """Calibration text, shape (1, 128) each."""
    from transformers import AutoTokenizer

    text = "the people of the city were from the north and it was in the water of a book " * 200
    ids = AutoTokenizer.from_pretrained(base)(text, return_tensors="pt").input_ids[0, :1024]
    noise = torch.randint(0, 1000, ids.shape, generator=torch.Generator().manual_seed(0))
    return list(torch.where(noise < 500, noise, ids).reshape(-1, 1, 128))


def _gptqmodel(base: Path, folder: Path, **more: Any) -> None:
    from gptqmodel import GPTQModel, QuantizeConfig

    config = QuantizeConfig(bits=BITS, group_size=GROUP, **more)
    config.offload_to_disk = False
    model = GPTQModel.load(str(base), config, device="cpu", dtype=torch.bfloat16)
    windows = [{"input_ids": ids[0].tolist(), "attention_mask": [1] * ids.shape[1]} for ids in _windows(base)]
    model.quantize(windows, batch_size=1, backend="awq_torch" if more else "gptq_torch")
    model.save(str(folder))


def gptq(base: Path, folder: Path) -> None:
    """By GPTQModel, symmetric."""
    _gptqmodel(base, folder)


def awq(base: Path, folder: Path) -> None:
    """By GPTQModel, with zero points."""
    from gptqmodel.quantization import FORMAT, METHOD

    _gptqmodel(base, folder, sym=False, method=METHOD.AWQ, format=FORMAT.GEMM)


def autoround(base: Path, folder: Path) -> None:
    """By auto-round, a few steps."""
    from auto_round import AutoRound
    from auto_round.schemes import QuantizationScheme
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    scheme = QuantizationScheme(bits=BITS, group_size=GROUP, sym=True, data_type="int", act_bits=16)
    tokenizer, windows = AutoTokenizer.from_pretrained(base), _windows(base)
    about = {"iters": 5, "nsamples": len(windows), "seqlen": 128, "batch_size": 1, "dataset": windows}
    how = {"device_map": "cpu", "enable_torch_compile": False, "low_cpu_mem_usage": False}
    place = folder.with_name(f"{folder.name}-made")  # it makes a folder of the scheme's name in it
    AutoRound(model, tokenizer, scheme=scheme, **about, **how).quantize_and_save(
        str(place), format="auto_round"
    )
    next(place.iterdir()).rename(folder)


def bitsandbytes(base: Path, folder: Path) -> None:
    """By transformers and bitsandbytes, nf4 with double quantization."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(
        base, quantization_config=config, dtype=torch.bfloat16, device_map={"": "cpu"}
    )
    model.save_pretrained(folder)


def gguf(base: Path, target: Path) -> None:
    """By llama.cpp's converter and quantizer, Q4_K_M."""
    import llama_cpp

    from quantlab.methods._gguf.converter import convert

    half = target.with_suffix(".f16")
    convert(base, half, target.with_suffix(".log"))  # its vocabulary is one that llama.cpp has no name for
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M, 2
    code = llama_cpp.llama_model_quantize(str(half).encode(), str(target).encode(), ctypes.byref(parameters))
    assert code == 0, code
    half.unlink()


def split(whole: Path, target: Path, tensors: int = 20) -> None:
    """A GGUF file in parts beside `target`, as llama-gguf-split cuts one: NAME-00001-of-0000N.gguf."""
    from gguf import GGUFReader, GGUFWriter

    reader = GGUFReader(whole)
    architecture = str(reader.fields["general.architecture"].contents())
    writer = GGUFWriter(target, architecture, split_max_tensors=tensors)
    for name, field in reader.fields.items():
        if name != "general.architecture" and not name.startswith("GGUF."):
            inner = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


KINDS: dict[str, Callable[[Path, Path], None]] = {
    "gptq": gptq,
    "awq": awq,
    "autoround": autoround,
    "bitsandbytes": bitsandbytes,
    "gguf": gguf,
}


def make(kind: str, base: Path, folder: Path) -> Path:
    """Make one in a process of its own, with the base's tokenizer beside it."""
    command = [sys.executable, __file__, kind, str(base), str(folder)]
    # its loader asks for two workers where its pool has one of two cores
    surroundings = os.environ | {"GPTQMODEL_CPU_WORKERS": "2", "TORCHDYNAMO_DISABLE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=surroundings)
    assert folder.exists(), done.stdout[-2000:] + done.stderr[-4000:]
    for file in (*base.glob("tokenizer*"), *base.glob("*.jinja")) if folder.is_dir() else ():
        shutil.copyfile(file, folder / file.name)
    return folder


def other_settings(folder: Path) -> None:
    """Give a checkpoint another chat template, generation config and padding side than its base has."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"padding_side": "left"}
    path.write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 1001, "temperature": 0.1}))


if __name__ == "__main__":
    KINDS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
