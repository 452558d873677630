"""The adapter of torch: memory is shared both ways, names are mapped, and what does not fit is told."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install 'minidit[peers]')")

from minidit import verify  # noqa: E402
from minidit.verify.borders import torch as border  # noqa: E402


def test_arrays_become_tensors_and_come_back_without_a_copy():
    a = np.arange(6.0).reshape(2, 3)
    tensor = border.to_torch(a)
    tensor[0, 1] = 9
    back = border.to_numpy(tensor)
    assert a[0, 1] == 9 and np.shares_memory(a, back)


def test_a_function_is_handed_the_memory_and_its_answer_is_its_own_memory():
    seen = []

    def f(x):
        seen.append(x)
        return x

    a = np.ones(3)
    assert np.shares_memory(border.function(f)(a), a) and seen[0].data_ptr() == a.ctypes.data


@pytest.mark.parametrize("make", [lambda a: a.T, lambda a: a[::2], lambda a: a[:, ::-1], lambda a: np.broadcast_to(a[0], (4, 3))])
def test_what_torch_cannot_share_is_copied(make):
    a = make(np.arange(12.0).reshape(4, 3))
    np.testing.assert_array_equal(border.to_torch(a).numpy(), a)


def test_values_inside_values_are_changed_too_and_functions_speak_tensors():
    there = border.to_torch({"a": [np.ones(2), 3, "x"], "f": lambda x: x + 1}, dtype=torch.float32)
    assert there["a"][0].dtype == torch.float32 and there["a"][1:] == [3, "x"]
    assert torch.equal(there["f"](torch.ones(2)), torch.full((2,), 2.0))
    back = border.to_numpy((torch.ones(2, dtype=torch.bfloat16), {"k": torch.tensor(1)}))
    assert back[0].dtype == np.float32 and isinstance(back, tuple) and back[1]["k"] == 1
    assert border.to_numpy(torch.ones(2, requires_grad=True)).tolist() == [1, 1]


def test_integers_keep_their_type_where_floats_are_cast():
    assert border.to_torch(np.arange(3), dtype=torch.float32).dtype == torch.int64


def test_gradients_are_those_of_its_autograd():
    x, unused = np.array([1.0, 2.0]), np.array([3.0])
    got = border.gradients(lambda x, unused: (x**3).sum(), x, unused)
    np.testing.assert_allclose(got[0], [3, 12])
    assert got[1].tolist() == [0]


def test_float32_inside_is_declared_and_right():
    target = border.functions({"softmax": lambda x: torch.softmax(x, -1)}, dtype=torch.float32)
    assert verify.check(target).ok


# ------------------------------------------------------------------------------------------------ modules


def test_weights_that_do_not_fit_are_told_by_name():
    module = torch.nn.Linear(3, 2)
    w = {"weight": np.ones((2, 3)), "bias": np.zeros(2)}
    border.load_weights(module, {"w": w["weight"], "b": w["bias"]}, {"w": "weight", "b": "bias"})
    assert module.weight.detach().numpy().tolist() == [[1, 1, 1]] * 2
    with pytest.raises(ValueError, match=r"the weights lack bias; the module lacks more \(give a map"):
        border.load_weights(module, {"weight": w["weight"], "more": w["bias"]})
    with pytest.raises(ValueError, match=r"bias has shape \(2,\), the weights \(3,\)"):
        border.load_weights(module, {"weight": w["weight"], "bias": np.ones(3)})


def test_taps_note_what_parts_answer_and_a_part_that_is_not_there_is_told():
    module, taps = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.SiLU()), {}
    border.with_taps(module, {"first": "0"}, taps)
    x = torch.ones(1, 2)
    module(x)
    np.testing.assert_array_equal(taps["first"], module[0](x).detach().numpy())
    with pytest.raises(ValueError, match="the module has no part '7'"):
        border.with_taps(module, {"first": "7"}, taps)


def test_a_module_is_named_by_its_class():
    with pytest.raises(ValueError, match="name the class of the network, not an instance"):
        border.target(torch.nn.Linear(1, 1))
