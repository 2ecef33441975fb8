"""Claims about gigabytes at a width, and about what quantization saves."""

from __future__ import annotations

from collections.abc import Iterable

from claims import PARTLY, RIGHT, WRONG, Claim, agree, together
from claims.figures import gigabytes, variant
from quantlab.numbers import listing

SAID = {
    "deepseek-v4-pro": ("V4-Pro", 3200, 1600, 800),
    "deepseek-v4-flash": ("V4-Flash", 568, 284, 142),
    "qwen3.5-397b-a17b": ("Qwen3.5-397B", 794, 397, 200),
    "llama-4-maverick": ("Maverick", 800, 400, 200),
    "llama-4-scout": ("Scout", 218, 109, 55),
}
WIDTHS = ("baseline-16", "fp8-8", "gptq-4")


def gigabytes_at_a_width() -> Iterable[Claim]:
    """Weights at 16, 8 and 4 bits."""
    for model, (name, *said) in SAID.items():
        found = [gigabytes(model, slug) for slug in WIDTHS]
        shown = listing(f"{slug} {size:,.1f}" for slug, size in zip(WIDTHS, found, strict=True))
        yield Claim(
            f"{name} takes {said[0]:,} GB at 16 bits, {said[1]:,} at 8 and {said[2]:,} at 4.",
            f"GB: {shown}. Scales and what stays in 16 bits come on top of the codes.",
            together(*(agree(s, f) for s, f in zip(said, found, strict=True))),
            f"`quantlab plan {model}`: weight_bytes",
        )
    gguf, gptq = (gigabytes("qwen3.5-397b-a17b", slug) for slug in ("gguf-4", "gptq-4"))
    yield Claim(
        "As Q4_K_M GGUF, Qwen3.5-397B takes about 180 GB, less than as GPTQ.",
        f"GB: gguf-4 (Q4_K_M) {gguf:,.1f}, gptq-4 {gptq:,.1f}.",
        together(agree(180, gguf), RIGHT if gguf < gptq else WRONG),
        "`quantlab plan qwen3.5-397b-a17b --methods gguf-4,gptq-4`",
    )
    large = gigabytes("llama-3.1-70b", "awq-4")
    nominal = gigabytes("qwen3.5-72b", "awq-4")
    yield Claim(
        "A 72B model takes 36 GB at 4 bits.",
        f"No such Qwen3.5 exists; {nominal:.1f} GB by published bits per weight, and llama-3.1-70b, which"
        f" does exist, takes {large:.1f} as awq-4 and {gigabytes('llama-3.1-70b', 'gguf-4'):.1f} as gguf-4.",
        agree(36, nominal),
        "`quantlab plan qwen3.5-72b`, `quantlab plan llama-3.1-70b`",
    )


def savings() -> Iterable[Claim]:
    """How many times smaller."""
    models = ("qwen3.5-397b-a17b", "qwen3.5-27b", "llama-3.1-8b")
    for bits, said, slugs in (
        (8, 2.0, ("gptq-8", "fp8-8", "gguf-8")),
        (4, 4.0, ("gptq-4", "gguf-4")),
        (3, 5.3, ("gptq-3", "gguf-3")),
        (2, 8.0, ("gptq-2", "gguf-2")),
    ):
        found = {
            (slug, model): gigabytes(model, "baseline-16") / gigabytes(model, slug)
            for slug in slugs
            for model in models
        }
        shown = [f"{slug} {listing(f'{found[slug, model]:.2f}' for model in models)}" for slug in slugs]
        verdicts = {agree(said, times) for times in found.values()}
        yield Claim(
            f"{bits} bits make a model {said:g} times smaller.",
            f"{'; '.join(shown)} (of {listing(models)}).",
            together(*verdicts) if WRONG in verdicts else RIGHT if verdicts == {RIGHT} else PARTLY,
            "weight_bytes of baseline-16 / weight_bytes of the variant",
        )
    bits_per_weight = listing(
        f"{slug} {variant('llama-3.1-8b', slug).bits_per_weight:.2f}"
        for slug in ("gptq-4", "gguf-4", "gguf-2")
    )
    yield Claim(
        "The bits in a variant's name are the bits that are stored.",
        f"Bits per weight of the whole of llama-3.1-8b: {bits_per_weight}.",
        WRONG,
        "`quantlab plan llama-3.1-8b`: bits_per_weight",
    )
