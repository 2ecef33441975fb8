"""Run an open checkpoint with transformers: logits, prefill, decode, generate, memory.

No GPU has run this file yet; the CUDA branches are the synchronisation and the kernels' own choice."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantlab import scratch
from quantlab.architecture.roofline import WeightReads
from quantlab.engines._contract import (
    AllocatorPeaks,
    EngineMemory,
    OpenCheckpoint,
    Routed,
    with_float32_softmax,
)
from quantlab.engines._transformers.as_stored import Wanted, opening_note
from quantlab.engines._transformers.cache import cache_bytes, chunked_logits, new_cache
from quantlab.engines._transformers.experts import watched
from quantlab.engines._transformers.inside import kernel_of, reads_of
from quantlab.engines._transformers.kernels import choice_for
from quantlab.engines._transformers.load import load
from quantlab.engines._transformers.placement import bytes_by_place
from quantlab.errors import CellFailure
from quantlab.formats.quantization import quantization_config
from quantlab.hardware.device import parse_places
from quantlab.models.loading import load_tokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class TransformersEngine(OpenCheckpoint):
    """See `quantlab.engines.OpenCheckpoint`."""

    name = "transformers"

    def __init__(
        self,
        weights: Path,
        tokenizer: Path,
        device: str,
        dense: bool = False,
        trust_remote_code: bool = False,
        dtype: str = "auto",
        cache: str | None = None,
    ) -> None:
        import torch

        self._torch_device = torch.device(parse_places(device).first)
        self._gpus = [f"cuda:{n}" for n in parse_places(device).gpus]
        self.device = torch.cuda.get_device_name(self._torch_device) if device.startswith("cuda") else "cpu"
        self._offloaded = tempfile.TemporaryDirectory(
            prefix="quantlab-offload-", dir=os.environ.get(scratch.FOLDER)
        )
        self.dense = dense
        offload = self._offloaded.name
        # asked before GPTQModel opens it, whose classes then stand in for transformers'
        self.opening_note = opening_note(weights, quantization_config(weights), trust_remote_code)
        self.model = load(Wanted(weights, device, dense, trust_remote_code, dtype, offload))
        self._describe(quantization_config(weights), cache)
        if not dense and (choice := choice_for(weights, str(self._torch_device))):
            self.kernel += f"; {choice.said()}"
        self.tokenizer = load_tokenizer(tokenizer, trust_remote_code)
        self._quantized_cache = cache
        self._cache: Any = None
        self._next: Any = None

    def _describe(self, config: dict[str, Any], cache: str | None) -> None:
        """Say what the loaded model computes in, and by which kernels."""
        import torch

        self.dtype = str(self.model.dtype).removeprefix("torch.")
        products = " (8-bit products)" if config.get("load_in_8bit") else ""
        self.scored_in = with_float32_softmax(f"{self.dtype}{products}")
        self.threads = torch.get_num_threads() if self._torch_device.type == "cpu" else None
        self.kernel = kernel_of(self.model)
        # refused now where its package is missing, and not in the middle of a stage
        new_cache(cache, self.model.config)
        self.cache_dtype = cache or self.dtype
        self.dtype += f", {cache} cache" if cache else ""
        self.context_tokens: int | None = getattr(
            self.model.config.get_text_config(decoder=True), "max_position_embeddings", None
        )

    def logits(self, token_ids: NDArray[np.int64], first: int = 0) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            ids = torch.from_numpy(token_ids)[None].to(self._torch_device)
            if self._quantized_cache:
                logits = chunked_logits(self.model, ids, new_cache(self._quantized_cache, self.model.config))
            else:
                # the head runs on the whole window, as the reference's does: its rows would differ in another
                # batch's shape
                logits = self.model(input_ids=ids, use_cache=False).logits[0]
            out: NDArray[np.float32] = logits[first:].float().cpu().numpy()
        return out

    def routed_logits(self, token_ids: NDArray[np.int64], first: int = 0) -> Routed:
        with watched(self.model) as experts:
            logits = self.logits(token_ids, first)
            chosen = experts.take(len(token_ids))
        rows = {block: experts_of_all[first:] for block, experts_of_all in chosen.by_block.items()}
        return Routed(logits, chosen._replace(by_block=rows))

    def language_model(self, batch_size: int) -> Any:
        from quantlab.engines._hf_lm import TransformersLM

        return TransformersLM(self.model, self.tokenizer, batch_size, str(self._torch_device))

    def prefill(self, token_ids: NDArray[np.int64]) -> None:
        import torch

        with torch.inference_mode():
            ids = torch.from_numpy(token_ids).to(self._torch_device)
            self._cache = self._next = None  # its memory is free before the next one grows
            cache = new_cache(self._quantized_cache, self.model.config)
            out = self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            self._cache, self._next = out.past_key_values, _greedy(out.logits)
        self._synchronize()

    def drop_cache(self) -> None:
        """Give the last run's cache back to the device, so that the next run's peaks are its own."""
        import torch

        self._cache = self._next = None
        if self._torch_device.type == "cuda":
            torch.cuda.empty_cache()

    def generate(self, prompts: Sequence[str], tokens: int) -> list[list[int]]:
        """lm-eval's HFLM gives texts only: its model is asked as it asks it, and the tokens are kept."""
        import torch

        from quantlab.engines._hf_lm import only_finite

        lm = self.language_model(len(prompts))
        if tokens >= lm.max_length:
            asked = f"{tokens} tokens of an answer are asked for"
            raise CellFailure("unsupported", f"{asked}, the model's context has {lm.max_length}")
        ids, mask = lm.tok_batch_encode(list(prompts), left_truncate_len=lm.max_length - tokens)
        pad = lm.tokenizer.pad_token_id
        with torch.inference_mode():
            made = lm.model.generate(
                input_ids=ids.to(lm.device),
                attention_mask=mask.to(lm.device),
                max_new_tokens=tokens,
                do_sample=False,
                pad_token_id=pad,
                **only_finite(ids.shape[1]),
            )
        return [row.tolist() for row in made[:, ids.shape[1] :]]

    def end_ids(self) -> frozenset[int]:
        """The tokens that the model's generation config names, else the tokenizer's."""
        ends = self.model.generation_config.eos_token_id
        ends = self.tokenizer.eos_token_id if ends is None else ends
        return frozenset(ends if isinstance(ends, list) else [ends])

    def reset_peaks(self) -> None:
        import torch

        for gpu in self._gpus:
            torch.cuda.reset_peak_memory_stats(gpu)

    def peaks(self) -> AllocatorPeaks:
        """None with several GPUs: torch keeps each one's peak, which fall at different moments; their sum was
        never held."""
        import torch

        if len(self._gpus) != 1:
            return AllocatorPeaks()
        gpu = self._gpus[0]
        return AllocatorPeaks(
            int(torch.cuda.max_memory_allocated(gpu)), int(torch.cuda.max_memory_reserved(gpu))
        )

    def decode(self, tokens: int) -> None:
        import torch

        with torch.inference_mode():
            for _ in range(tokens):
                out = self.model(
                    input_ids=self._next, past_key_values=self._cache, use_cache=True, logits_to_keep=1
                )
                self._next = _greedy(out.logits)
        self._synchronize()

    def _synchronize(self) -> None:
        import torch

        if self._torch_device.type == "cuda":
            torch.cuda.synchronize(self._torch_device)

    def memory(self) -> EngineMemory:
        places, cache = bytes_by_place(self.model), cache_bytes(self._cache)
        return EngineMemory(
            sum(places.values()), cache.kv_cache_bytes, cache.state_bytes, places if len(places) > 1 else {}
        )

    def weight_reads(self) -> WeightReads:
        return reads_of(self.model)

    def close(self) -> None:
        import gc

        import torch

        self.model = self._cache = self._next = None
        gc.collect()
        if self._torch_device.type == "cuda":
            torch.cuda.empty_cache()
        self._offloaded.cleanup()


def _greedy(logits: Any) -> Any:
    """The next tokens (batch, 1); in float32, because torch finds the largest of 49,152 bfloat16 values twice
    as slowly on a CPU."""
    return logits[:, -1:].float().argmax(-1)
