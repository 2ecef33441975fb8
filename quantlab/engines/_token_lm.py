"""Give lm-eval a language model over token ids: text is read and written by the Hugging Face tokenizer here,
so that every engine sees the same ids. Generation is greedy only."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import (
    _add_special_kwargs,
    handle_stop_sequences,
    has_bos_prefix,
    normalize_gen_kwargs,
    postprocess_generated_text,
)

from quantlab.errors import CellFailure


class TokenLM(TemplateLM):  # type: ignore[misc]
    """See `lm_eval.api.model.TemplateLM`."""

    engine_name: str

    def __init__(self, tokenizer: Any, batch_size: int) -> None:
        super().__init__()
        self.tokenizer, self.batch_size = tokenizer, batch_size
        self.truncated: list[bool] = []
        """Of the last `generate_until`, by request: whether the limit on tokens ended the answer."""

    @property
    @abstractmethod
    def max_length(self) -> int:
        """The longest context that it takes."""

    @abstractmethod
    def _answers(self, contexts: list[str], limit: int, until: list[str]) -> list[tuple[list[int], bool]]:
        """Continue each text greedily until a stop string, an end token or the limit; the token ids, and
        whether the limit ended them."""

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        return int(
            self.tokenizer.bos_token_id
            if self.tokenizer.bos_token_id is not None
            else self.tokenizer.eos_token_id
        )

    @property
    def max_gen_toks(self) -> int:
        return 256

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path.replace("/", "__"))

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        import jinja2

        def apply(messages: list[dict[str, str]]) -> str:
            rest = {
                "add_generation_prompt": add_generation_prompt,
                "continue_final_message": not add_generation_prompt,
            }
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False, **rest))

        try:
            return apply(chat_history)
        except jinja2.exceptions.TemplateError:  # a template without a system role
            return apply([message for message in chat_history if message["role"] != "system"])

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        special = _add_special_kwargs(add_special_tokens, None)
        if add_special_tokens is None and has_bos_prefix(string, self.tokenizer.decode(self.prefix_token_id)):
            special["add_special_tokens"] = False
        return list(self.tokenizer.encode(string, **special))

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        totals = []
        for (string,) in (request.args for request in requests):
            windows = utils.get_rolling_token_windows(
                token_list=self.tok_encode(string),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            parts = [(None, *utils.make_disjoint_window(window)) for window in windows]
            totals.append(sum(pair[0] for pair in self._loglikelihood_tokens(parts)))
            self.cache_hook.add_partial("loglikelihood_rolling", (string,), totals[-1])
        return totals

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        texts, self.truncated = [""] * len(requests), [False] * len(requests)
        order = sorted(
            range(len(requests)), key=lambda i: (repr(requests[i].args[1]), -len(requests[i].args[0]))
        )
        groups: list[list[int]] = []
        for i in order:
            same = (
                groups
                and len(groups[-1]) < self.batch_size
                and requests[groups[-1][0]].args[1] == requests[i].args[1]
            )
            if same:
                groups[-1].append(i)
            else:
                groups.append([i])
        for group in groups:
            settings = requests[group[0]].args[1]
            for i, made in zip(
                group, self._generate([requests[i].args[0] for i in group], settings), strict=True
            ):
                texts[i], self.truncated[i] = made
                self.cache_hook.add_partial("generate_until", (requests[i].args[0], settings), texts[i])
        return texts

    def _generate(self, contexts: list[str], settings: dict[str, Any]) -> list[tuple[str, bool]]:
        """Each answer, and whether the limit on tokens ended it."""
        known = normalize_gen_kwargs(settings, self.max_gen_toks)
        if known.get("do_sample"):
            raise CellFailure(
                "unsupported", f"the {self.engine_name} engine generates greedily: the task asks for sampling"
            )
        until = handle_stop_sequences(known.get("until"), eos=self.tokenizer.decode(self.eot_token_id))
        made = self._answers(contexts, known["max_gen_toks"], until)
        texts = [self.tokenizer.decode(tokens, skip_special_tokens=True) for tokens, _ in made]
        return [
            (postprocess_generated_text(text, until, None), truncated)
            for text, (_, truncated) in zip(texts, made, strict=True)
        ]

    def prompt_ids(self, texts: list[str], limit: int) -> list[list[int]]:
        """The ids of each text, without its beginning where an answer of `limit` tokens would not fit
        otherwise. Raises CellFailure where it never does."""
        if limit >= self.max_length:
            raise CellFailure(
                "unsupported",
                f"{limit} tokens of an answer are asked for, the model's context has {self.max_length}",
            )
        return [self.tok_encode(text)[-(self.max_length - limit) :] for text in texts]
