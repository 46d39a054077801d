"""Splits that keep copies of a text on one side; metrics split the same way, so `hf_gpt.eval` has them."""

from hf_gpt.eval.held_out import held_out_rows, same_text


__all__ = ["held_out_rows", "same_text"]
