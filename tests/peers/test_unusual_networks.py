"""Right networks that are built otherwise than the official one: frozen tables, half precision, q, k and v apart."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install 'minidit[peers]')")

import importlib.util  # noqa: E402
from pathlib import Path  # noqa: E402

from minidit import verify  # noqa: E402
from minidit.verify.borders import torch as border  # noqa: E402

PLACE = Path(__file__).parents[2] / "examples" / "verify" / "torch_dit.py"
spec = importlib.util.spec_from_file_location("torch_dit", PLACE)
dit = importlib.util.module_from_spec(spec)
spec.loader.exec_module(dit)


class Frozen(dit.Net):
    """The table of places is a parameter that is not trained, as the official class has it."""

    def __init__(self, input_size, patch_size, in_channels, hidden_size, depth, num_heads, num_classes, learn_sigma):
        super().__init__(input_size, patch_size, in_channels, hidden_size, depth, num_heads, num_classes, learn_sigma)
        self.pos_embed = torch.nn.Parameter(torch.zeros(1, 4, hidden_size), requires_grad=False)


class Apart(dit.Block):
    """q, k and v are linears of their own."""

    def __init__(self, width, heads, wrong=False):
        super().__init__(width, heads, wrong)
        del self.to_qkv
        self.q, self.k, self.v = (torch.nn.Linear(width, width) for _ in range(3))

    def attend(self, x):
        B, N, D = x.shape
        q, k, v = (part(x).reshape(B, N, self.heads, -1).transpose(1, 2) for part in (self.q, self.k, self.v))
        return self.mix(torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, N, D))


class Separate(dit.Net):
    def __init__(self, input_size, patch_size, in_channels, hidden_size, depth, num_heads, num_classes, learn_sigma):
        super().__init__(input_size, patch_size, in_channels, hidden_size, depth, num_heads, num_classes, learn_sigma)
        self.layers = torch.nn.ModuleList(Apart(hidden_size, num_heads) for _ in range(depth))


class InPlace(dit.Block):
    """Adds to the stream in place."""

    def forward(self, x, c):
        a, b, gate, d, e, gate_2 = self.control(torch.nn.functional.silu(c)).chunk(6, 1)
        x = x.clone() if x.requires_grad else x
        x += gate[:, None] * self.attend(self.modulated(x, a, b))
        x += gate_2[:, None] * self.down(torch.nn.functional.gelu(self.up(self.modulated(x, d, e)), approximate="tanh"))
        return x


def apart(name):
    """official -> here, where q, k and v lie one below the other in the official array."""
    here = dit.name(name)
    return tuple(here.replace("to_qkv", part) for part in "qkv") if "to_qkv" in here else here


def asked(build, names, **options):
    return verify.check(border.network(build, names=names, **options), topics=["dit", "dit_gradients"])


def test_a_frozen_table_of_places_is_the_network_s_own():
    assert asked(Frozen, dit.name).ok


def test_a_frozen_network_is_still_told_what_the_weights_lack():
    class Lacking(Frozen):
        def __init__(self, input_size, patch_size, in_channels, hidden_size, depth, num_heads, num_classes, learn_sigma):
            super().__init__(input_size, patch_size, in_channels, hidden_size, depth, num_heads, num_classes, learn_sigma)
            self.requires_grad_(False)

    report = asked(Lacking, dit.name)
    assert not report.ok and "the weights lack pos_embed" in str(report)


def test_a_network_in_bfloat16_is_judged_as_what_its_adapter_knows():
    report = asked(dit.Net, dit.name, dtype="bfloat16")
    assert report.ok and {f.precision for f in report.findings} == {"bfloat16"}
    assert "in bfloat16" in str(report)


def test_functions_on_bfloat16_are_told_to_be_so():
    silu = lambda x: torch.nn.functional.silu(x.bfloat16())
    (finding,) = verify.check(border.functions({"silu": silu})).findings
    assert finding.verdict == "undeclared" and "bfloat16" in finding.note
    assert verify.check(border.functions({"silu": silu}, dtype=torch.bfloat16)).ok


def test_separate_projections_are_joined_by_a_tuple_of_names_forwards_and_backwards():
    target = border.network(Separate, names=apart)
    report = verify.check(target, topics=["dit", "dit_gradients", "parameter_shapes"])
    assert report.ok, str(report)
    assert set(target["initial_weights"](64, 2, 4, 2, 4, 10, True, 0)) == set(
        verify.TOPICS["initial_weights"].by(verify.topics.network.Reference())(64, 2, 4, 2, 4, 10, True, 0)
    )


def test_and_without_that_map_the_message_says_so():
    report = asked(Separate, dit.name)
    assert "where q, k and v are parameters of their own, a tuple of three" in str(report)
    with pytest.raises(ValueError, match="a has 4 rows, which 3 parameters cannot share"):
        border.load_weights(torch.nn.Linear(2, 2), {"a": np.zeros((4, 2))}, {"a": ("q", "k", "v")})


def test_what_a_hook_noted_stays_though_the_network_goes_on_in_place():
    class Net(dit.Net):
        def __init__(self, input_size, patch_size, in_channels, hidden_size, depth, num_heads, num_classes, learn_sigma):
            super().__init__(input_size, patch_size, in_channels, hidden_size, depth, num_heads, num_classes, learn_sigma)
            self.layers = torch.nn.ModuleList(InPlace(hidden_size, num_heads, False) for _ in range(depth))

    weights, x, t, y, heads, p = verify.question("dit", "whole")
    _, taps = border.network(Net, names=dit.name)["dit"](weights, x, t, y, heads, p)
    _, right = border.network(dit.Net, names=dit.name)["dit"](weights, x, t, y, heads, p)
    for name in right:
        np.testing.assert_allclose(taps[name], right[name], atol=1e-9, err_msg=name)


def test_a_tensor_that_wants_a_gradient_is_an_answer():
    def silu(x):
        x = torch.nn.Parameter(torch.tensor(x))
        return x * torch.sigmoid(x)

    assert verify.check({"silu": silu}).ok
