"""The reference network is minidit's: the parts that mistakes replace give the model's numbers, forwards and backwards."""

import numpy as np
import pytest
from support import spec
from verify import foreign_dit

import minidit as md
from minidit import ops, optim
from minidit.models.dit import DiT, DiTConfig
from minidit.verify import TOPICS
from minidit.verify.core.finding import ask
from minidit.verify.core.judge import Judge
from minidit.verify.core.reference import Reference
from minidit.verify.topics.layers import attention, merge_heads, split_heads
from minidit.verify.topics.network import depth_of, dit, dit_gradients
from minidit.verify.topics.parameters import law_of, start_of
from minidit.verify.topics.training import adamw_update, ema_run

NETWORKS = {p.name: p for p in TOPICS["dit"].probes()}
GRADIENTS = {p.name: p for p in TOPICS["dit_gradients"].probes()}


def model_of(weights, x, heads, p, dtype=np.float64, **settings):
    """The package's own DiT with these weights."""
    D, rows = weights["x_embedder.proj.weight"].shape[0], weights["y_embedder.embedding_table.weight"].shape[0]
    config = DiTConfig(
        input_size=x.shape[2:], patch_size=p, in_channels=x.shape[1], hidden_size=D, depth=depth_of(weights), num_heads=heads,
        num_classes=rows - 1, learn_sigma=len(weights["final_layer.linear.bias"]) != p * p * x.shape[1], **settings,
    )  # fmt: skip
    model = DiT(config, dtype=dtype)
    model.load_state_dict({"pos_embed": model.pos_embed, **weights})
    return model


def as_target(dtype=np.float64, **settings):
    """The package's DiT as somebody offers it."""
    return lambda w, x, t, y, heads, p: model_of(w, x, heads, p, dtype, **settings)(x.astype(dtype), t, y).data


@spec("T.3", "T.4", "T.5", "T.6")
@pytest.mark.parametrize("name", NETWORKS)
def test_the_reference_network_is_the_model(name):
    w, x, t, y, heads, p = NETWORKS[name].args
    want = model_of(w, x, heads, p)(x, t, y).data
    got = dit(Reference(), w, x, t, y, heads, p)
    assert np.abs(got - want).max() <= 1e-13 * np.abs(want).max()


@spec("A.1")
@pytest.mark.parametrize("name", GRADIENTS)
def test_its_gradients_are_those_of_the_model(name):
    w, x, t, y, heads, p, bar = GRADIENTS[name].args
    model, pixels = model_of(w, x, heads, p), md.Tensor(x)
    model(pixels, t, y).backward(bar)
    want = {n: q.grad for n, q in model.named_parameters()} | {"x": pixels.grad}
    got = dit_gradients(Reference(), w, x, t, y, heads, p, bar)
    assert got.keys() == want.keys()
    for n in got:
        assert np.abs(got[n] - want[n]).max() <= 1e-12 * max(np.abs(want[n]).max(), 1e-3), n


@pytest.mark.parametrize("name", NETWORKS)
def test_a_dit_written_by_somebody_else_agrees(name):
    out, taps = foreign_dit.dit()(*NETWORKS[name].args)
    R = Reference()
    want = dit(R, *NETWORKS[name].args)
    assert np.abs(out - want).max() <= 1e-12 * np.abs(want).max()
    for layer, a in taps.items():
        assert np.allclose(a, R.taps[layer], rtol=1e-9, atol=1e-11), layer


def test_no_probe_is_blind():
    """Some probes silence a branch on purpose; in the last two no weight is zero, H ≠ W, times differ, heads are several."""
    for name in ("whole", "16-tokens"):
        w = NETWORKS[name].args[0]
        assert all(a.all() for a in w.values())
        t = NETWORKS[name].args[2]
        assert len(set(t)) == len(t) > 1
    x = NETWORKS["whole"].args[1]
    assert x.shape[2] != x.shape[3] and NETWORKS["whole"].args[4] > 1


def test_the_package_passes_all_of_its_own_topics_in_float32():
    judge = Judge()
    finding = judge.judge(TOPICS["dit"], ask(as_target(np.float32), TOPICS["dit"]), [])
    assert finding.passed and 0 < finding.worst.error < finding.tolerance / 4


@spec("N.10")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_settings_for_diffusers_weights_have_their_names(dtype):
    from minidit.verify import check

    report = check({"dit": as_target(dtype, freq_shift=1)})
    assert report.mistakes == ["M76"]
    report = check({"dit": as_target(dtype, mlp_norm_eps=1e-5)})
    assert report.mistakes == ["M61b"]
    report = check({"dit": as_target(dtype, freq_shift=1, mlp_norm_eps=1e-5)})
    assert sorted(report.mistakes) == ["M61b", "M76"]


@spec("T.7", "N.1")
def test_a_fresh_model_begins_as_the_topic_says():
    def fresh(D, L, heads, p, C, K, learn_sigma, seed):
        config = DiTConfig(input_size=8, patch_size=p, in_channels=C, hidden_size=D, depth=L, num_heads=heads, num_classes=K,
                           learn_sigma=learn_sigma)  # fmt: skip
        return dict(DiT(config, md.Philox(seed)).state_dict())

    topic = TOPICS["initial_weights"]
    assert Judge().judge(topic, ask(fresh, topic), []).verdict == "equal"
    for seed in range(40):
        assert start_of(fresh(64, 2, 4, 2, 4, 10, True, seed)) == start_of(fresh(64, 2, 4, 2, 4, 10, True, 0)), seed


def test_laws_of_weights_are_told_apart():
    rng = md.Philox(5)
    shape = (96, 32)
    b = (6 / 128) ** 0.5
    laws = {
        "0": np.zeros(shape), "1": np.ones(shape), "N(0, 0.02²)": 0.02 * rng.normal(shape), "N(0, 1)": rng.normal(shape),
        "Xavier uniform": b * (2 * rng.uniform(shape) - 1), "U(±1/√fan_in)": 32**-0.5 * (2 * rng.uniform(shape) - 1),
        "LeCun normal": 32**-0.5 * rng.normal(shape), "Xavier normal": 64**-0.5 * rng.normal(shape),
    }  # fmt: skip
    assert {law: law_of("w", w) for law, w in laws.items()} == {law: law for law in laws}
    assert law_of("w", 0.3 * rng.normal(shape)).startswith("another law")


@spec("O.1", "O.2")
def test_the_parts_of_the_optimiser_are_the_packages_step():
    for probe in TOPICS["adamw_update"].probes():
        theta, m, v, g, n, lr, b1, b2, eps, wd = (np.array(a) if isinstance(a, np.ndarray) else a for a in probe.args)
        want = adamw_update(Reference(), *probe.args)
        optim.adamw(theta, m, v, g, np.full_like(theta, wd), lr=lr, betas=(b1, b2), eps=eps, n=n)
        for a, b in zip(want, (theta, m, v), strict=True):
            assert np.allclose(a, b, rtol=1e-14, atol=0)


@spec("O.4")
def test_an_average_of_constant_decay_has_a_closed_form():
    theta, updates, d = TOPICS["ema_run"].probes()[0].args
    _, average = ema_run(Reference(), theta, updates, d)
    walk, n = theta + updates.cumsum(axis=0), len(updates)
    assert np.allclose(average, d**n * theta + (1 - d) * sum(d ** (n - 1 - i) * walk[i] for i in range(n)), rtol=1e-13)


@spec("A.18", "A.20")
def test_the_parts_of_attention_are_the_primitive():
    w, x, heads = TOPICS["self_attention"].probes()[0].args
    R = Reference()
    got = merge_heads(R, attention(R, *split_heads(R, x @ w["qkv.weight"].T, heads)))
    assert np.allclose(got, ops.self_attention(x @ w["qkv.weight"].T, heads=heads), rtol=1e-13, atol=1e-14)
