"""Calibration tokens per expert, out of the log that GPTQModel leaves."""

from __future__ import annotations

from pathlib import Path

from quantlab.methods._expert_tokens import read_expert_tokens

_LOG = """layer,module,loss,samples,damp
0,self_attn.q_proj,0.1,2048,0.05
0,mlp.experts.0.gate_proj,0.1,2048,
0,mlp.experts.0.down_proj,0.1,1500,
0,mlp.experts.2.down_proj,0.1,9,
0,mlp.shared_expert.down_proj,0.1,2048,
1,block_sparse_moe.experts.0.w2,0.1,700,
1,block_sparse_moe.experts.1.w2,fallback(rtn),0,
1,block_sparse_moe.experts.2.w2,fallback(rtn),none,
"""


def test_tokens_are_counted_by_block_and_expert(tmp_path: Path) -> None:
    (tmp_path / "quant_log.csv").write_text(_LOG)
    tokens = read_expert_tokens(tmp_path / "quant_log.csv", 2048)
    assert tokens is not None and tokens.by_block == {0: (1500, 0, 9), 1: (700, 0, 0)}
    assert (tokens.experts, tokens.few, tokens.none) == (6, 4, 3)  # 9 tokens are below 0.5 % of 2,048
    assert tokens.note == (
        "4 of 6 experts saw fewer than 0.5 % of the calibration tokens (3 saw none): GPTQModel rounds them"
        " to nearest (2 by its own log). Use more calibration text.",
    )


def test_awq_counts_what_reached_an_expert_and_not_what_it_kept(tmp_path: Path) -> None:
    log = "layer,module,loss,samples,activation_raw_tokens\n0,mlp.experts.0.down_proj,0.1,512,1500\n"
    (tmp_path / "quant_log.csv").write_text(log)
    tokens = read_expert_tokens(tmp_path / "quant_log.csv", 2048)
    assert tokens is not None and tokens.by_block == {0: (1500,)}


def test_a_model_without_experts_has_no_counts(tmp_path: Path) -> None:
    (tmp_path / "quant_log.csv").write_text("".join(_LOG.splitlines(keepends=True)[:2]))
    assert read_expert_tokens(tmp_path / "quant_log.csv", 2048) is None
    assert read_expert_tokens(tmp_path / "none.csv", 2048) is None
