"""Extend lm-eval's language model over a transformers model with what its answers need to be compared.

Log-probabilities are taken in float32: HFLM's default leaves them, and their sum over an answer, in the
model's dtype, and in bfloat16 a sum between 32 and 64 nats is a multiple of 0.25."""

from __future__ import annotations

from typing import Any

from lm_eval.models.huggingface import HFLM
from transformers import LogitsProcessor, LogitsProcessorList

from quantlab.engines._limits import Limits
from quantlab.errors import CellFailure


class _Finite(LogitsProcessor):
    """Stops an answer whose logits are no numbers: the largest of them would still be a token."""

    def __init__(self, prompt_tokens: int) -> None:
        self._prompt_tokens = prompt_tokens

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        # what a processor before this one forbids is -inf, so that the largest alone is looked at
        if not scores.amax(-1).isfinite().all():
            token = input_ids.shape[1] - self._prompt_tokens + 1
            raise CellFailure("broken_checkpoint", f"logits are not finite at token {token} of an answer")
        return scores


def only_finite(prompt_tokens: int) -> dict[str, Any]:
    """An argument of `generate` that raises CellFailure where a logit of an answer is no number."""
    return {"logits_processor": LogitsProcessorList([_Finite(prompt_tokens)])}


class TransformersLM(HFLM):  # type: ignore[misc]
    """See `lm_eval.models.huggingface.HFLM`."""

    def __init__(self, model: Any, tokenizer: Any, batch_size: int, device: str) -> None:
        super().__init__(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=batch_size,
            device=device,
            softmax_dtype="float32",
        )
        self.truncated: list[bool] = []
        """Of the last `generate_until`, by request: whether the limit on tokens ended the answer."""
        self._limits = Limits()

    def _model_call(self, inps: Any, *arguments: Any, **options: Any) -> Any:
        self._require_known(inps)
        return super()._model_call(inps, *arguments, **options)

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **options: Any) -> Any:
        self._require_known(context)
        options |= only_finite(context.shape[1])
        made = super()._model_generate(context, max_length, stop, **options)
        self._limits.made += [
            self._is_truncated(row, max_length - context.shape[1], stop)
            for row in made[:, context.shape[1] :].tolist()
        ]
        return made

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        ask = super().generate_until
        texts, self.truncated = self._limits.generate(self, lambda: ask(requests, disable_tqdm), requests)
        return texts

    def _is_truncated(self, tokens: list[int], limit: int, stop: list[str]) -> bool:
        ends = self.model.generation_config.eos_token_id
        ended = {*(ends if isinstance(ends, list) else [ends]), self.eot_token_id} & set(tokens)
        if ended or len(tokens) < limit:
            return False
        text = self.tok_decode(tokens, skip_special_tokens=False)
        return not any(term in text for term in stop if term)

    def _require_known(self, token_ids: Any) -> None:
        """Raise CellFailure for a token without an embedding: torch says `index out of range`, and CUDA loses
        its context."""
        rows, largest = int(self.model.get_input_embeddings().weight.shape[0]), int(token_ids.max())
        if largest >= rows:
            raise CellFailure(
                "unsupported",
                f"token {largest:,} is beyond the {rows:,} rows of the embedding: the tokenizer is not this"
                " model's",
            )
