"""Claims about architectures, parameters, contexts, licences and names."""

from __future__ import annotations

from collections.abc import Iterable

from claims import PARTLY, RIGHT, UNCHECKED, WRONG, Claim, agree, together
from claims.figures import architecture, cache_bytes_per_token, context, licence, parameters
from quantlab.catalogue import entries
from quantlab.catalogue.config import known_config
from quantlab.numbers import listing

_DENSE = (
    "qwen3.5-0.8b",
    "qwen3.5-2b",
    "qwen3.5-4b",
    "qwen3.5-9b",
    "qwen3.5-27b",
    "gemma-3-27b",
    "mistral-small-3.2-24b",
)


def architectures() -> Iterable[Claim]:
    """How the models are built."""
    dense = [name for name in _DENSE if architecture(name).experts is None]
    yield Claim(
        "Every model of 2026 is a mixture of experts; dense models have been given up.",
        f"{listing(dense)} have no experts.",
        WRONG if dense else RIGHT,
        "`read_architecture(config).experts`",
    )
    kinds = architecture("deepseek-v4-pro").kinds
    yield Claim(
        "DeepSeek V4 attends with MLA, the latent attention of V3.",
        f"Its layers are {_kinds('deepseek-v4-pro')}, with {architecture('deepseek-v4-pro').kv_heads}"
        f" key-value head; V3's are {_kinds('deepseek-v3')}.",
        WRONG if not any("mla" in kind for kind in kinds) else RIGHT,
        "`quantlab plan deepseek-v4-pro`: the cache by kind of layer",
    )
    linear = architecture("qwen3.5-397b-a17b").kinds.get("delta_net", 0)
    yield Claim(
        "GDN in Qwen3.5 is a normalization that balances the load of the experts.",
        f"It is a kind of layer: {_kinds('qwen3.5-397b-a17b')}. A gated delta net is linear attention with a"
        " state that does not grow with the context.",
        WRONG if linear else RIGHT,
        "`quantlab plan qwen3.5-397b-a17b`: state_bytes",
    )
    chunked = next(layer for layer in architecture("llama-4-scout").layers if layer.kind == "chunked")
    yield Claim(
        "Llama 4's iRoPE alternates layers with and without rotary positions.",
        f"{_kinds('llama-4-scout')}: every fourth layer sees everything, and the others see chunks of"
        f" {chunked.window:,} tokens.",
        PARTLY,
        "`quantlab plan llama-4-scout`: the cache by kind of layer",
    )
    yield _latent()


def _kinds(model: str) -> str:
    return listing(f"{count} {kind.replace('_', ' ')}" for kind, count in architecture(model).kinds.items())


def _latent() -> Claim:
    ours = cache_bytes_per_token("deepseek-v3")
    others = {
        name: cache_bytes_per_token(name) for name in ("llama-3.1-405b", "llama-3.1-70b", "qwen3.5-397b-a17b")
    }
    ratios = [f"{name} {size:,.0f} ({size / ours:.2f} times)" for name, size in others.items()]
    inside = [5 <= size / ours <= 8 for size in others.values()]
    return Claim(
        "MLA makes the cache 5 to 8 times smaller than grouped-query attention does.",
        f"Bytes per token in bfloat16: deepseek-v3 {ours:,.0f}; {listing(ratios)}. It depends on the model"
        " that it is compared with.",
        PARTLY if any(inside) and not all(inside) else RIGHT if all(inside) else WRONG,
        "`cache_bytes(architecture, tokens)` of two contexts",
    )


def sizes() -> Iterable[Claim]:
    """Total and active parameters."""
    said = {
        "deepseek-v4-pro": ("DeepSeek V4-Pro", 1600, 49),
        "deepseek-v4-flash": ("DeepSeek V4-Flash", 284, 13),
        "qwen3.5-397b-a17b": ("Qwen3.5-397B", 397, 17),
        "llama-4-maverick": ("Llama 4 Maverick", 400, 17),
        "llama-4-scout": ("Llama 4 Scout", 109, 17),
        "kimi-k2.6": ("Kimi K2.6", 1000, 32),
    }
    for model, (name, total, active) in said.items():
        found = parameters(model)
        # a release may count its layers for multi-token prediction, and leave the embedding out of what is
        # active
        best = min((found.total, found.with_prediction), key=lambda n: abs(n - total))
        used = min((found.active, found.active_without_embedding), key=lambda n: abs(n - active))
        more = (
            f", {found.with_prediction:,.1f}B with its layers for multi-token prediction"
            if found.with_prediction > found.total
            else ""
        )
        yield Claim(
            f"{name} has {total:,}B parameters, {active}B of them active.",
            f"{found.total:,.1f}B{more}{_tower(model, found.total)}; active {found.active:.1f}B, "
            f"{found.active_without_embedding:.1f}B without the input embedding.",
            together(_rounded(total, best), _rounded(active, used)),
            f"`quantlab plan {model}`: total_parameters, active_parameters",
        )
    yield from _ratios()


def _tower(model: str, total: float) -> str:
    """What a Llama 4 has beside the text model that its config is of: the same tower in Scout and in
    Maverick."""
    scout = known_config("llama-4-scout")
    if not model.startswith("llama-4") or scout is None or scout.repository_parameters is None:
        return ""
    tower = scout.repository_parameters / 1e9 - parameters("llama-4-scout").total
    return (
        f" in the text model alone, {total + tower:,.2f}B with the vision tower of {tower:.2f}B (Scout's"
        " repository less its text model)"
    )


def _rounded(said: float, found: float) -> str:
    """As `agree`, and right where the figure rounds to what is said, or a small one is cut to it."""
    digits = len(f"{said:.0f}".rstrip("0"))
    return (
        RIGHT
        if float(f"{found:.{digits - 1}e}") == said or (said < 100 and abs(said - found) < 1)
        else agree(said, found)
    )


def _ratios() -> Iterable[Claim]:
    said = {"qwen3.5-397b-a17b": 4.3, "llama-4-maverick": 4.3, "deepseek-v4-pro": 3.1}
    found = {model: parameters(model) for model in said}
    ratios = {model: 100 * p.active / p.total for model, p in found.items()}
    yield Claim(
        "4.3 % of Qwen3.5-397B's parameters are active, 4.3 % of Maverick's, 3.1 % of V4-Pro's.",
        f"{listing(f'{ratio:.2f} % of {model}' for model, ratio in ratios.items())}, the input embedding"
        " counted.",
        together(*(agree(said[model], ratio) for model, ratio in ratios.items())),
        "active_parameters / total_parameters",
    )
    active = found["deepseek-v4-pro"].active_without_embedding
    yield Claim(
        "V4-Pro needs 0.031 times the arithmetic per token of a dense model of 400B.",
        f"{active:.1f}B active / 400B = {active / 400:.3f}; 0.031 is its share of its own total.",
        agree(0.031, active / 400),
        "active parameters / 400B: two operations per active parameter",
    )


def contexts() -> Iterable[Claim]:
    """Context windows."""
    million = 1_048_576
    said = {
        "deepseek-v4-pro": ("V4", "1M", million),
        "llama-4-maverick": ("Maverick", "1M", million),
        "llama-4-scout": ("Scout", "10M", 10 * million),
        "qwen3.5-397b-a17b": ("Qwen3.5-397B", "256K", 262_144),
        "kimi-k2.6": ("Kimi K2.6", "1M", million),
    }
    for model, (name, words, tokens) in said.items():
        found = context(model)
        yield Claim(
            f"{name} takes a context of {words} tokens.",
            f"{found:,} tokens.",
            agree(tokens, found),
            f"`entries()['{model}'].context`",
        )


def licences() -> Iterable[Claim]:
    """Licences as the catalogue has them."""
    said = {
        "deepseek-v4-pro": ("DeepSeek V4 is under the MIT licence.", ("mit",)),
        "qwen3.5-397b-a17b": ("Qwen3.5 is under Apache 2.0.", ("apache-2.0",)),
        "gemma-3-27b": ("Gemma 3 is under Apache 2.0.", ("apache-2.0",)),
        "mistral-small-3.2-24b": ("Mistral Small 3 is under Apache 2.0.", ("apache-2.0",)),
        "llama-4-maverick": ("Llama 4 is under its own community licence.", ("llama4",)),
        "kimi-k2.6": ("Kimi K2.6 is under a modified MIT licence.", ("modified-mit",)),
    }
    for model, (words, right) in said.items():
        found = licence(model)
        yield Claim(
            words, f"`{found}`", RIGHT if found.lower() in right else WRONG, f"`entries()['{model}'].license`"
        )
    yield Claim(
        "Llama 4's licence asks companies with over 700M monthly users for an approval.",
        "The catalogue has the licence's name and not its text.",
        UNCHECKED,
        "",
    )


def names() -> Iterable[Claim]:
    """Names that no release bears, and benchmarks."""
    wanted = ("qwen3.5-72b", "qwen3.5-7b", "llama-4-8b")
    known = entries()
    missing = [name for name in wanted if not known[name].exists]
    near = {name: listing(known[name].nearest) for name in missing}
    yield Claim(
        "There are Qwen3.5-72B, Qwen3.5-7B and Llama 4-8B.",
        f"No release is known of {listing(missing)}; the nearest are {'; '.join(near.values())}.",
        WRONG if len(missing) == len(wanted) else PARTLY if missing else RIGHT,
        "`quantlab list models`",
    )
    yield Claim(
        "Scores on SWE-Bench, GPQA, MMLU-Pro and others, of open and of closed models.",
        "A planner measures nothing: they stand in the catalogue as quoted, and `quantlab recommend` marks"
        " them so.",
        UNCHECKED,
        "quantlab/catalogue/expectations.yaml",
    )
