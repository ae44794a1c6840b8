"""What is remembered of results without data is what PyTorch would say again."""

import pytest
import torch

from attnmem.prediction.remembered import returned

aten = torch.ops.aten
WHOLE = torch.empty(4, 6, dtype=torch.int64, device="meta")
HALVES = torch.empty(4, 6, dtype=torch.float16, device="meta")
IMAGE = torch.empty(2, 8, 6, 6, device="meta").to(memory_format=torch.channels_last)
FILTER = torch.empty(4, 8, 3, 3, device="meta")
CONVOLUTION = [1, 1], [1, 1], [1, 1], False, [0, 0], 1


def forms(result):
    """All that a trace looks at."""
    found = result if isinstance(result, tuple | list) else [result]
    return [x if x is None else (x.shape, x.stride(), x.dtype, x.device) for x in found]


@pytest.mark.parametrize(
    ("op", "args"),
    [
        (aten.mul.Tensor, (WHOLE, 2)),
        (aten.mul.Tensor, (WHOLE, 2.0)),  # equal numbers, other dtypes
        (aten.mul.Tensor, (WHOLE > 0, True)),
        (aten.mul.Tensor, (WHOLE > 0, 1)),
        (aten.add.Tensor, (HALVES.t(), HALVES.t())),
        (aten.add.Tensor, (HALVES.t(), HALVES.t().contiguous())),
        (aten.cat.default, ([HALVES, WHOLE], 1)),
        (aten.max.dim, (HALVES, 1)),
        (aten._foreach_add.Scalar, ([HALVES, WHOLE], 1)),
        (aten.convolution.default, (IMAGE, FILTER, None, *CONVOLUTION)),
        (
            aten.convolution_backward.default,
            (IMAGE[:, :4], IMAGE, FILTER, None, *CONVOLUTION, [True, False, False]),
        ),
    ],
)
def test_an_answer_is_pytorch_s_own_however_often_it_is_given(op, args):
    expected = forms(op(*args))
    for _ in range(3):
        assert forms(returned(op, args, {})) == expected


def test_a_quotient_of_integers_has_the_default_dtype_of_now():
    dtypes = []
    for default in (torch.float32, torch.float64):
        torch.set_default_dtype(default)
        dtypes.append(returned(aten.div.Tensor, (WHOLE, WHOLE), {}).dtype)
    torch.set_default_dtype(torch.float32)
    assert dtypes == [torch.float32, torch.float64]


def test_each_result_has_memory_of_its_own_unless_it_is_an_argument_s():
    made = [returned(aten.neg.default, (HALVES,), {}) for _ in range(3)]
    assert len({x.untyped_storage()._cdata for x in made}) == 3
    for _ in range(3):
        viewed = returned(aten._unsafe_view.default, (HALVES, [24]), {})
        assert viewed.untyped_storage()._cdata == HALVES.untyped_storage()._cdata


def test_values_are_never_made_up():
    for _ in range(3):
        assert returned(aten.neg.default, (torch.ones(2),), {}).tolist() == [-1, -1]
