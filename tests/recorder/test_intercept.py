"""Attention functions wherever they are bound -> watched while recording, restored after."""

import contextlib
import functools
import gc
import importlib
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.nn.functional import scaled_dot_product_attention as imported_before
from torch.utils.checkpoint import checkpoint

from headgrid.errors import HeadgridWarning
from headgrid.recorder import AttentionCall, RecordError, record
from headgrid.recorder.watch.intercept import _observers, _patches

SDPA = [F.scaled_dot_product_attention]  # a list is not searched for references
X = torch.randn(1, 2, 8, 4, generator=torch.Generator().manual_seed(0))


class Attention(nn.Module):
    """Self-attention of tokens that are their own queries and keys, times a weight."""

    by_class = staticmethod(imported_before)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.by_instance = imported_before

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        y = x * self.weight
        return F.scaled_dot_product_attention(y, y, y)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attend(x)


class Checkpointed(Attention):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = checkpoint(self.attend, x, use_reentrant=self.reentrant)
        return result


def assert_nothing_is_left() -> None:
    assert F.scaled_dot_product_attention is SDPA[0]
    assert torch._C._nn.scaled_dot_product_attention is SDPA[0]
    assert imported_before is SDPA[0]
    assert not _observers
    assert not _patches.pairs
    assert not any(type(finder).__name__ == "ImportWatcher" for finder in sys.meta_path)
    assert "headgrid" not in str(type(nn.MultiheadAttention.forward))
    assert nn.MultiheadAttention.forward.__code__.co_name == "forward"
    hooks = torch.nn.modules.module
    assert not hooks._global_forward_hooks
    assert not hooks._global_forward_pre_hooks


def test_each_of_two_recordings_reads_a_function_as_it_has_named_it() -> None:
    def twice(query: Any, key: Any, value: Any) -> AttentionCall:
        return AttentionCall(query, key, scale=1.0)

    named = {"torch.nn.functional.scaled_dot_product_attention": twice}
    recordings = []
    for outer, inner in ((None, named), (named, None)):
        with (
            record(tokens_per_frame=4, functions=outer) as one,
            record(tokens_per_frame=4, functions=inner) as other,
        ):
            F.scaled_dot_product_attention(X, X, X)
        recordings += [one, other] if outer is None else [other, one]
    maps = [recording.captures[0].full_frame_attention for recording in recordings]
    for usual, own in (maps[:2], maps[2:]):
        np.testing.assert_allclose(own, 2 * usual, rtol=1e-6)  # the usual scale is a half
    assert_nothing_is_left()


def fail_after_attention() -> None:
    F.scaled_dot_product_attention(X, X, X)
    raise ZeroDivisionError


def keep(function: Any) -> Any:
    def closed(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = function(x, x, x)
        return result

    return closed


_REGISTRY = {"sdpa": imported_before}
_PARTIAL = functools.partial(imported_before, dropout_p=0.0)
_CLOSED = keep(imported_before)
_MODEL = Attention()
_HOLDER: Any = type("Holder", (), {"attend": SDPA[0]})
_SPELLINGS: dict[str, Any] = {
    "attribute of functional": lambda x: F.scaled_dot_product_attention(x, x, x),
    "attribute of _C._nn": lambda x: torch._C._nn.scaled_dot_product_attention(x, x, x),
    "name imported before": lambda x: imported_before(x, x, x),
    "class attribute": lambda x: Attention.by_class(x, x, x),
    "instance attribute": lambda x: _MODEL.by_instance(x, x, x),
    "registry": lambda x: _REGISTRY["sdpa"](x, x, x),
    "partial": lambda x: _PARTIAL(x, x, x),
    "closure": lambda x: _CLOSED(x),
    "aten packet": lambda x: torch.ops.aten.scaled_dot_product_attention(x, x, x),
    "aten overload": lambda x: torch.ops.aten.scaled_dot_product_attention.default(x, x, x),
    "builtin in a class": lambda x: _HOLDER().attend(x, x, x),
    "keywords": lambda x: F.scaled_dot_product_attention(value=x, key=x, query=x),
}


@pytest.mark.parametrize("spelling", _SPELLINGS)
def test_sdpa_is_seen_however_it_is_bound(spelling: str) -> None:
    call = _SPELLINGS[spelling]
    bare = call(X)
    with record(tokens_per_frame=4) as recording:
        watched = call(X)
    assert torch.equal(bare, watched)
    assert recording.captures[0].metadata["calls"] == 1
    assert _HOLDER.__dict__["attend"] is SDPA[0]
    assert_nothing_is_left()


def test_the_module_a_script_imports_while_recording_is_watched_and_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "late_model.py").write_text(
        "from torch.nn.functional import scaled_dot_product_attention as attend\n"
        "def eager_attention_forward(module, query, key, value, attention_mask, scaling=None):\n"
        "    return query, None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with record(tokens_per_frame=4, forwards="all") as recording:
        late = importlib.import_module("late_model")
        late.attend(X, X, X)
    with record(tokens_per_frame=4) as eager:
        del sys.modules["late_model"]
        late_again = importlib.import_module("late_model")
        late_again.eager_attention_forward(None, X, X, X, None, 1.0)
    assert len(recording.captures) == len(eager.captures) == 1
    assert late.attend is SDPA[0]
    assert late_again.eager_attention_forward.__name__ == "eager_attention_forward"
    assert "intercept" not in late_again.eager_attention_forward.__code__.co_filename
    assert_nothing_is_left()


def test_an_exception_in_the_block_leaves_nothing_behind() -> None:
    with pytest.raises(ZeroDivisionError), record(tokens_per_frame=4) as recording:
        fail_after_attention()
    assert_nothing_is_left()
    with pytest.raises(RecordError, match="ended with an exception"):
        _ = recording.captures
    with pytest.raises(RecordError, match="no whole frames"), record(tokens_per_frame=5):
        F.scaled_dot_product_attention(X, X, X)
    assert_nothing_is_left()


def test_a_call_that_fails_or_is_for_shapes_only_is_not_recorded() -> None:
    with record(tokens_per_frame=4) as recording:
        with pytest.raises(RuntimeError, match="dtype"):
            F.scaled_dot_product_attention(X, X, X.double())
        F.scaled_dot_product_attention(*(X.to("meta"),) * 3)
        F.scaled_dot_product_attention(X, X, X)
    assert recording.captures[0].metadata["calls"] == 1


def test_a_run_whose_first_call_fails_is_left_out() -> None:
    def generate(value: torch.Tensor) -> None:
        for keys in (4, 8):
            kept = X[:, :, :keys]
            F.scaled_dot_product_attention(kept[:, :, keys - 4 :], kept, value[:, :, :keys])

    told = pytest.warns(HeadgridWarning, match="run_001 is left out: no attention call ran to its")
    with told, record(tokens_per_frame=4) as recording:
        generate(X)
        with pytest.raises(RuntimeError, match="dtype"):
            generate(X.double())
    assert [capture.run for capture in recording.captures] == ["run_000"]


def test_several_recorders_each_see_a_call_and_close_in_any_order() -> None:
    recorders = [record(tokens_per_frame=4), record(tokens_per_frame=2)]
    opened = [recorder.__enter__() for recorder in recorders]
    F.scaled_dot_product_attention(X, X, X)
    recorders[0].__exit__(None, None, None)
    assert F.scaled_dot_product_attention is not SDPA[0]
    recorders[1].__exit__(None, None, None)
    assert_nothing_is_left()
    assert [len(r.captures[0].query_frames) for r in opened] == [2, 4]


def test_threads_do_not_mix_their_modules() -> None:
    models = [Attention() for _ in range(4)]
    for index, model in enumerate(models):
        model.weight.data.fill_(float(index + 1))
    barrier = threading.Barrier(4)

    def run(model: nn.Module) -> None:
        barrier.wait()
        with torch.no_grad():
            model(X)

    with contextlib.ExitStack() as stack:
        opened: list[Any] = [stack.enter_context(record(m, tokens_per_frame=4)) for m in models]
        threads = [threading.Thread(target=run, args=(model,)) for model in models]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert_nothing_is_left()
    first = opened[0].captures[0].full_frame_attention
    for index, recording in enumerate(opened):
        (capture,) = recording.captures
        assert capture.metadata["calls"] == 1
        np.testing.assert_allclose(
            capture.full_frame_attention, first * (index + 1) ** 2, rtol=1e-5
        )


@pytest.mark.parametrize("reentrant", [False, True])
def test_the_recomputation_of_checkpointing_is_not_a_second_forward(reentrant: bool) -> None:
    model, x = Checkpointed(reentrant), X.clone().requires_grad_()
    with record(model, tokens_per_frame=4) as recording:
        model(x).sum().backward()
    watched = model.weight.grad
    assert recording.captures[0].metadata["calls"] == 1
    model.weight.grad = None
    model(X.clone().requires_grad_()).sum().backward()
    assert watched is not None
    assert model.weight.grad is not None
    assert torch.equal(watched, model.weight.grad)


@pytest.mark.parametrize("mode", ["grad", "no_grad", "inference", "autocast"])
def test_outputs_are_bit_identical_in_every_mode(mode: str) -> None:
    modes: dict[str, Any] = {
        "grad": torch.enable_grad,
        "no_grad": torch.no_grad,
        "inference": torch.inference_mode,
        "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    }
    model = Attention()
    with modes[mode]():
        bare = model(X)
    with record(model, tokens_per_frame=4, forwards="mean") as recording:
        with modes[mode]():
            watched = model(X)
        model(X)
    assert torch.equal(bare, watched)
    assert watched.dtype == bare.dtype
    expected = (X.double() @ X.double().transpose(2, 3) / 2)[0].unflatten(1, (2, 4))
    found = recording.captures[0].full_frame_attention
    np.testing.assert_allclose(found, expected.unflatten(3, (2, 4)).mean((2, 4)), atol=1e-6)


@pytest.mark.parametrize("how", ["function", "method"])
def test_compiled_models_run_eagerly_while_recorded_and_compiled_after(how: str) -> None:
    built: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        built.append(graph)
        return graph

    plain = Attention()
    if how == "method":
        plain.compile(backend=backend)
        model: Any = plain
    else:
        model = torch.compile(plain, backend=backend)
    with torch.no_grad():
        with record(model, tokens_per_frame=4) as recording:
            watched = model(X)
        assert not built
        assert recording.captures[0].metadata["model_class"] == "Attention"
        assert torch.equal(watched, model(X))
    assert built
    torch._dynamo.reset()


def test_wrappers_are_left_out_of_module_paths() -> None:
    inner = nn.Sequential(Attention(), Attention())
    compiled: Any = torch.compile(nn.DataParallel(inner), backend="eager")
    wrapped = nn.DataParallel(compiled)
    for model in (wrapped, inner):
        with torch.no_grad(), record(model, tokens_per_frame=4) as recording:
            wrapped(X)
        assert [c.metadata["module_path"] for c in recording.captures] == ["0", "1"]


def test_modules_that_are_in_no_part_of_the_model_are_layers_of_their_own() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [Attention() for _ in range(3)]

        def forward(self, x: torch.Tensor) -> Any:
            return [layer(x) for layer in self.layers]

    model = Hidden()
    with torch.no_grad(), record(model, tokens_per_frame=4, forwards="last") as recording:
        model(X)
    paths = [capture.metadata["module_path"] for capture in recording.captures]
    assert paths == ["Attention.0", "Attention.1", "Attention.2"]


@pytest.mark.parametrize("forwards", ["first", "last", "mean", "all"])
def test_heads_one_by_one_are_no_forwards_of_a_block(forwards: str) -> None:
    class OneByOne(Attention):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([self.attend(x[:, [head]]) for head in range(2)], dim=1)

    model = nn.Sequential(OneByOne(), OneByOne())
    error = contextlib.nullcontext()
    if forwards != "all":
        error = pytest.raises(RecordError, match="0: the same queries came several times in a row")
    with torch.no_grad(), error, record(model, tokens_per_frame=4, forwards=forwards) as recording:
        model(X)
    assert forwards != "all" or len(recording.captures) == 4


def test_a_model_may_change_between_recordings() -> None:
    model = nn.Sequential(Attention(), Attention())
    model[1].weight.data *= 3
    found = []
    for _ in range(2):
        with torch.no_grad(), record(model, tokens_per_frame=4) as recording:
            model(X)
        found.append(recording.captures[0].full_frame_attention)
        model[0], model[1] = model[1], model[0]
    assert np.allclose(found[1], 9 * found[0])


def test_a_recording_holds_on_to_neither_model_nor_tensors() -> None:
    model = Attention()
    with record(model, tokens_per_frame=4) as recording:
        model(X)
    held = [name for name, value in vars(recording).items() if value is model]
    assert not held
    referrers = [r for r in gc.get_referrers(model) if r is not globals() and r is not locals()]
    assert not [r for r in referrers if isinstance(r, dict) and "_captures" in r]
