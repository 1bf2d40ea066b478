"""What `benchmarks/card/program_text.py` reads from the text of a program."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from card.program_text import lines, read_program

TEXT = """\
HloModule step

%fused (p.0: bf16[8,4]) -> f32[8,4] {
  %p.0 = bf16[8,4]{1,0} parameter(0)
  ROOT %c.0 = f32[8,4]{1,0} convert(%p.0)
}

%body (t: (s32[], f32[4,4])) -> (s32[], f32[4,4]) {
  %t = (s32[], f32[4,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %m = f32[4,4]{1,0} get-tuple-element(%t), index=1
  %d = f32[4,4]{1,0} dot(%m, %m), lhs_contracting_dims={1}, rhs_contracting_dims={0}, operand_precision={highest,highest}
  ROOT %r = (s32[], f32[4,4]{1,0}) tuple(%i, %d)
}

ENTRY %main (a: bf16[8,4], k: bf16[2,5,5,3], w: bf16[3,3,3,7], s: (s32[], f32[4,4])) -> f32[8,4] {
  %a = bf16[8,4]{1,0} parameter(0)
  %k = bf16[2,5,5,3]{3,2,1,0} parameter(1)
  %w = bf16[3,3,3,7]{3,2,1,0:S(1)} parameter(2)
  %s = (s32[], f32[4,4]{1,0}) parameter(3)
  %loop = (s32[], f32[4,4]{1,0}) while(%s), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"10"}}
  %conv = bf16[2,5,5,7]{3,2,1,0} convolution(%k, %w), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f
  %call = (bf16[2,5,5,7]{3,2,1,0}, u8[0]{0}) custom-call(%k, %w), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f, custom_call_target="__cudnn$convForward"
  ROOT %f = f32[8,4]{1,0} fusion(%a), kind=kLoop, calls=%fused
}
"""  # noqa: E501


def test_products_kernels_and_bytes_are_counted_as_often_as_they_run():
    found = read_program(TEXT)
    convolution = 2 * (2 * 5 * 5 * 7) * (3 * 3 * 3)
    met = 2 * (2 * 7 * 3) * 13**2  # of 5 x 3 taps two meet padding; a library's call may not know
    assert found.products == {"f32": 10 * 2 * 4**3, "bf16": met + convolution}
    assert found.product_counts == {"f32": 10, "bf16": 2}
    assert found.precise == found.products["f32"]
    assert found.kernels == 10 + 3
    assert found.fusions == found.moves == 1
    assert found.moves_bytes == 8 * 4 * (2 + 4)
    # The kernel lies in a TPU's fast memory.
    assert found.moved == 10 * 3 * 64 + 2 * (2 * 150 + 2 * 350) + found.moves_bytes
    assert found.calls == {"__cudnn$convForward": 1}
    assert any("1,280" in line or "10 of f32" in line for line in lines(found))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_program_of_this_machine_can_be_read(dtype):
    a, b = jnp.ones((16, 32), dtype), jnp.ones((32, 8), dtype)
    found = read_program(jax.jit(jnp.matmul).lower(a, b).compile().as_text())
    assert found.flop in (0, 2 * 16 * 32 * 8)  # 0: inside a function of the machine's own library
    assert found.kernels >= 1


def test_padding_and_gaps_of_a_tpus_convolutions_are_no_work():
    """A product of matrices as a window over one pixel; an input's gradient; no window at all."""
    text = """
HloModule m

ENTRY %main {
  %x = bf16[8,64,1,1]{3,2,1,0} parameter(0)
  %k = bf16[16,56,56,64]{3,2,1,0} parameter(1)
  %a = bf16[8,56,56,16]{3,2,1,0} convolution(%x, %k), window={size=56x56 pad=55_55x55_55 rhs_reversal=1x1}, dim_labels=bf01_o01i->b01f
  %y = f32[2,4,4,3]{3,2,1,0} parameter(2)
  %w = f32[3,3,5,3]{3,2,1,0} parameter(3)
  %b = f32[2,8,8,5]{3,2,1,0} convolution(%y, %w), window={size=3x3 pad=1_2x1_2 lhs_dilate=2x2}, dim_labels=b01f_01oi->b01f
  %m = f16[4,6]{1,0} parameter(4)
  %n = f16[6,9]{1,0} parameter(5)
  ROOT %c = f16[4,9]{1,0} convolution(%m, %n), dim_labels=bf_io->bf
}
"""  # noqa: E501
    met = sum(0 <= place + tap - 1 <= 6 and (place + tap - 1) % 2 == 0
              for place in range(8) for tap in range(3))  # fmt: skip
    assert read_program(text).products == {
        "bf16": 2 * 8 * 16 * 64 * 56**2, "f32": 2 * 2 * 5 * 3 * met**2, "f16": 2 * 4 * 9 * 6,
    }  # fmt: skip
