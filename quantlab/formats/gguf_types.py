"""List the names of llama.cpp's file types: what a GGUF file can be quantized to."""

from __future__ import annotations

from quantlab.errors import unknown

FILE_TYPES = (
    *(
        "F32",
        "F16",
        "BF16",
        "Q8_0",
        "Q6_K",
        "Q5_K_M",
        "Q5_K_S",
        "Q5_1",
        "Q5_0",
        "Q4_K_M",
        "Q4_K_S",
        "Q4_1",
        "Q4_0",
    ),
    *(
        "Q3_K_L",
        "Q3_K_M",
        "Q3_K_S",
        "Q2_K",
        "Q2_K_S",
        "Q2_0",
        "Q1_0",
        "IQ4_NL",
        "IQ4_XS",
        "IQ3_M",
        "IQ3_S",
        "IQ3_XS",
        "IQ3_XXS",
    ),
    *("IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "TQ2_0", "TQ1_0", "MXFP4_MOE", "NVFP4"),
)
"""Most bits first; a test compares them with the LLAMA_FTYPE constants of the installed library."""

NEED_IMPORTANCE = ("IQ3_XS", "IQ3_XXS", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "Q2_K_S")
"""Types that llama.cpp refuses to make without an importance matrix."""


def file_type(name: str) -> str:
    """The name as llama.cpp writes it. Raises QuantlabError for an unknown one."""
    if name.upper() not in FILE_TYPES:
        raise unknown("GGUF type", name, FILE_TYPES)
    return name.upper()


def is_plain(name: str) -> bool:
    """Whether tensors of this type are not quantized: floats, and tables of whole numbers (DeepSeek V4's
    experts by token)."""
    return name in ("F64", "F32", "F16", "BF16", "I8", "I16", "I32", "I64")
