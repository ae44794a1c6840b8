"""Whole training steps: followed on shapes alone, and as they were measured on a GPU."""

import itertools

import pytest
import torch
from torch import nn

from attnmem import measure_call, trace_call
from attnmem.corpus.steps import Recipe, calls, recipes
from attnmem.measurement.calls import STEPS_RECORD, load_calls, record_calls
from attnmem.prediction.choice import assuming
from attnmem.prediction.refusal import CannotFollow
from attnmem.prediction.trace import Trace


def mlp(device):
    with torch.device(device):
        model = nn.Sequential(nn.Linear(128, 512), nn.ReLU(), nn.Linear(512, 128))
        x = torch.randn(64, 128)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step():
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def test_a_step_on_the_cpu_is_as_predicted():
    measured, predicted = mlp("cpu"), mlp("cpu")
    for _ in range(2):  # the first makes the optimizer's state
        m, t = measure_call(measured, "cpu"), trace_call(predicted, "cpu")
        assert (m.peak_bytes, m.saved_bytes) == (t.peak_bytes, t.saved_bytes)


# Its model is made in 32 bit and then cast, which leaves other holes than moving it.
HISTORY = Recipe("GPT", "bfloat16", "standard", "none", "SGD")

# One in eleven, which meets each choice: all of them take minutes.
SOME = list(itertools.islice(recipes(), 0, None, 11))
# Attention by the math kernel, under the mode of a selective checkpoint.
SOME.append(Recipe("Llama", "float32", "sdpa", "selective", "AdamW, fused"))


@pytest.mark.parametrize("recipe", SOME, ids=lambda recipe: recipe.name)
def test_a_training_step_needs_what_it_needed_on_a_gpu(recipe):
    record = load_calls(STEPS_RECORD)
    for name, call in calls([recipe], "meta"):
        m, layout = record.calls[name], record.layouts[name]
        if name.endswith("all of it"):
            call = recipe.from_nothing(2, "cuda")
        t = followed(call)
        assert (t.peak_bytes, t.saved_bytes) == (m.peak_bytes, m.saved_bytes), name
        if not name.endswith("all of it"):
            assert t.parameter_bytes == m.parameter_bytes
        allocator = t.replay(layout.segments, layout.before)
        assert allocator.peak_allocated == m.peak_allocated_bytes, name
        assert allocator.peak_reserved == m.peak_reserved_bytes, name
        # Without the holes, each large block may be larger or smaller than it was.
        large = sum(size > 2**20 for size in t.at_peak.values())
        assert abs(t.peak_allocated_bytes - m.peak_allocated_bytes) <= large * 2**20, name


def test_of_what_came_before_the_holes_can_be_traced():
    made = []
    making = followed(lambda: made.append(HISTORY.start("cuda")))
    first, second = followed(made[0]), followed(made[0])
    after_making = making.replay().left()
    after_first = first.replay(before=after_making).left()
    m = load_calls(STEPS_RECORD).calls[f"{HISTORY.name}: second step"]
    assert second.replay(before=after_first).peak_allocated == m.peak_allocated_bytes
    assert second.peak_allocated_bytes != m.peak_allocated_bytes  # placed as if just moved


def test_a_tensor_that_is_given_up_leaves_a_hole():
    with torch.device("meta"):
        held = [torch.empty(2**20)]

    def call():
        held.clear()
        return torch.empty(2**20, device="cuda")

    t = trace_call(call)
    allocator = t.replay(before=[[2**22, -(2**24)]])
    assert allocator.peak_reserved == 0  # it is made in that hole, or beside it
    assert allocator.left() == []


def followed(call) -> Trace:
    with assuming(release=(2, 11), cudnn=91900):  # the record's
        return trace_call(call)


def test_a_record_of_calls_keeps_what_did_not_fail(tmp_path):
    x = torch.ones(256)

    def calls():
        yield "works", lambda: x + x
        yield "fails", lambda: x + torch.ones(3)
        yield "works again", lambda: x * x
        raise OSError("no more")

    record_calls(calls(), "cpu").save(tmp_path / "record.json.gz")
    record = load_calls(tmp_path / "record.json.gz")
    assert [m.peak_bytes for m in record.calls.values()] == [1024, 1024]
    assert list(record.calls) == ["works", "works again"]
    failed, ended = record.failures
    assert failed.startswith("fails: Traceback")
    assert "no more" in ended


def test_modules_and_tensors_have_their_names():
    step = Recipe("GPT", "float32", "standard", "none", "AdamW, a loop").start("meta")
    first, second = trace_call(step), trace_call(step)
    assert sum(first.by_module.values()) == first.peak_bytes
    assert {"GPT.head", "GPT.blocks.0", "GPT.blocks.1.up", "no module"} <= set(first.by_module)
    labels = {event.label for event in first.timeline}
    assert {"GPT.token.weight.grad", "GPT.token.weight.exp_avg"} <= labels
    assert {s.stage for s in second.steps} == {"forward", "backward", "update"}
    assert second.parameter_bytes > 2 * first.parameter_bytes


def test_what_backward_makes_belongs_to_the_module_of_the_forward_pass():
    with torch.device("meta"):
        small, large = nn.Linear(64, 64), nn.Linear(64, 4096)
        x = torch.randn(2, 64, requires_grad=True)
    model = nn.Sequential(small, large)
    t = trace_call(lambda: model(x).sum().backward())
    assert t.by_module["Sequential.1"] >= 4 * 64 * 4096  # the gradient of its weight


def test_a_gradient_that_is_given_up_makes_room():
    with torch.device("meta"):
        model, x = nn.Linear(256, 256), torch.randn(8, 256)

    def step():
        model.zero_grad()
        model(x).sum().backward()

    first, second = trace_call(step), trace_call(step)
    assert first.timeline[-1].live == 4 * (256 * 256 + 256)  # the gradients stay
    assert second.timeline[-1].live == 0


def test_a_step_with_a_model_on_the_cpu_is_refused():
    with pytest.raises(CannotFollow, match="nothing that step does is on cuda"):
        trace_call(mlp("cpu"))


def test_reading_the_loss_is_refused_with_its_line():
    with torch.device("meta"):
        model, x = nn.Linear(8, 8), torch.randn(2, 8)
    with pytest.raises(CannotFollow, match=r"test_calls\.py.*loss\.item"):
        trace_call(lambda: (loss := model(x).sum()).backward() or loss.item())


def test_what_pytorch_itself_reads_is_refused_with_its_name_there():
    with torch.device("meta"):
        model, x = nn.Linear(8, 8), torch.randn(2, 8)
    optimizer = torch.optim.Adafactor(model.parameters())
    with pytest.raises(CannotFollow, match="item in PyTorch's _adafactor"):
        trace_call(lambda: model(x).sum().backward() or optimizer.step())


def test_gradients_of_gradients_warn_in_a_call_too():
    with torch.device("meta"):
        model, x = nn.Linear(8, 1), torch.randn(4, 8, requires_grad=True)

    def step():
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        slope.square().sum().backward()

    with pytest.warns(UserWarning, match="gradients of gradients"):
        t = trace_call(step)
    assert t.training  # the moment before a backward pass is still noted


@pytest.mark.skipif(torch.cuda.is_available(), reason="the scaler is on")
def test_a_scaler_that_pytorch_has_switched_off_warns():
    with pytest.warns(UserWarning, match="Disabling"):
        scaler = torch.amp.GradScaler("cuda")
    with torch.device("meta"):
        model, x = nn.Linear(8, 1), torch.randn(4, 8)
    with pytest.warns(UserWarning, match="a GradScaler that is off"):
        trace_call(lambda: scaler.scale(model(x).sum()).backward())


def test_a_scaler_that_is_on_takes_the_step_and_says_so():
    with torch.device("meta"):
        model, x = nn.Linear(8, 1), torch.randn(4, 8)
    optimizer, scaler = torch.optim.Adam(model.parameters()), torch.amp.GradScaler("meta")

    def step():
        scaler.scale(model(x).sum()).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()

    with pytest.warns(UserWarning, match="a GradScaler skips the step") as said:
        first, second = trace_call(step), trace_call(step)
    assert all(warning.filename == __file__ for warning in said)
    assert second.parameter_bytes > first.parameter_bytes  # the state is there


def test_autocast_of_the_device_meta_is_that_of_the_gpu():
    with torch.device("meta"):
        model, x = nn.Linear(8, 8), torch.randn(4, 8)

    def step(device):
        with torch.autocast(device, dtype=torch.bfloat16):
            return model(x).sum()

    assert trace_call(lambda: step("meta")).timeline == trace_call(lambda: step("cuda")).timeline


def test_an_operation_that_only_writes_into_its_arguments_needs_no_answer():
    with torch.device("meta"):
        model, x = nn.Linear(8, 4), torch.randn(2, 8)
    optimizer = torch.optim.Adagrad(model.parameters(), fused=True)
    t = trace_call(lambda: (model(x).sum().backward(), optimizer.step()))
    assert t.by_module["Linear"] >= 4 * (8 * 4 + 4)


def test_another_device_is_refused():
    with pytest.raises(ValueError, match="device must be 'cuda' or 'cpu', got 'tpu'"):
        trace_call(lambda: None, "tpu")
