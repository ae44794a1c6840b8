"""What operations allocate beside their outputs, each tried on a device."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from attnmem.measurement.operations import as_text, try_operations

CPU = torch.device("cpu")


@pytest.fixture
def found():
    """Of samples of one operation, of which the first is empty, and another fails."""

    class Sample(SimpleNamespace):
        def noncontiguous(self):
            return Sample(input=self.input.mT.contiguous().mT, args=(), kwargs={})

    def samples(device, dtype, requires_grad):
        for shape in ((2, 0), (1,), (3, 4)):
            x = torch.ones(shape, device=device, dtype=dtype, requires_grad=requires_grad)
            yield Sample(input=x, args=(), kwargs={})

    info = SimpleNamespace(
        op=lambda x, out=None: torch.sum(F.softmax(x, 1), 1, out=out),
        sample_inputs=samples,
        supported_dtypes=lambda device: {torch.float32},
        supports_autograd=True,
        supports_out=True,
    )
    return try_operations(CPU, [info])


def test_a_copy_of_what_is_not_contiguous_is_seen(found):
    assert found["aten._softmax.default"] == (0, 3 * 4 * 4)
    # The gradient of a sum is expanded: not contiguous in any call.
    assert found["aten._softmax_backward_data.default"] == (3 * 4 * 4, 3 * 4 * 4)
    assert {"aten.sum.dim_IntList", "aten.sum.IntList_out"} <= found.keys()


def test_it_is_written_as_lines_that_a_trace_reads(found):
    header, _, lines = as_text(found, CPU).partition("\n\n")
    assert all(line.startswith("# ") for line in header.splitlines())
    assert torch.__version__ in header
    assert "aten._softmax.default 0 48" in lines.splitlines()
    assert "aten.sum.dim_IntList" in lines.splitlines()
