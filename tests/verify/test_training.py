"""What is drawn at random is judged by its law, whatever draws it; an optimiser written elsewhere is right."""

import numpy as np
import pytest
from support import spec

from minidit.verify import TOPICS, check


def dropout(kind, salt):
    """Label dropout with NumPy's own stream, right or wrong in one way."""

    def drop(y, p, num_classes, depth, train, seed):
        rng = np.random.default_rng((salt, seed))
        null = {"M81": 1000, "M81b": 0}.get(kind, num_classes)
        if (not train and kind != "M82") or kind == "M82b":
            return y
        shape = {"M83": (depth, len(y)), "X11": (1,)}.get(kind, (len(y),))
        return np.where(rng.random(shape) < (1 - p if kind == "X10" else p), null, y)

    return drop


@spec("G.7")
@pytest.mark.parametrize("salt", range(3))
def test_label_dropout_is_right_whatever_draws_it(salt):
    assert check({"label_dropout": dropout("", salt)}).ok


@spec("G.7")
@pytest.mark.parametrize("kind", ["M81", "M81b", "M82", "M82b", "M83", "X10"])
def test_wrong_label_dropout_has_its_name_whatever_draws_it(kind):
    for salt in range(3):
        assert check({"label_dropout": dropout(kind, salt)}).mistakes == [kind]


def test_one_decision_for_a_batch_is_seen():
    assert not check({"label_dropout": dropout("X11", 0)}).ok


@spec("O.2")
def test_torchs_adamw_is_right():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")

    def step(theta, m, v, g, n, lr, beta1, beta2, eps, weight_decay):
        p = torch.nn.Parameter(torch.tensor(theta))
        optimiser = torch.optim.AdamW([p], lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay)
        optimiser.state[p] = {
            "step": torch.tensor(float(n - 1)),
            "exp_avg": torch.tensor(m),
            "exp_avg_sq": torch.tensor(v),
        }
        p.grad = torch.tensor(g)
        optimiser.step()
        state = optimiser.state[p]
        return p.detach().numpy(), state["exp_avg"].numpy(), state["exp_avg_sq"].numpy()

    assert check({"adamw_update": step}).ok


@spec("O.3")
def test_the_small_number_that_torch_adds_to_a_norm_is_a_habit_by_its_name_and_no_rounding():
    def clip(gradients, limit):
        norm = sum((g * g).sum() for g in gradients.values()) ** 0.5
        return {k: g * min(1.0, limit / (norm + 1e-6)) for k, g in gradients.items()}

    (finding,) = check({"clip_gradients": clip}).findings
    assert finding.passed and finding.verdict == "habit" and "H01 CLIP_EPSILON" in finding.note


@spec("E.8")
def test_bytes_of_equal_rules_are_equal_in_single_precision_too():
    for kind in (np.float64, np.float32):
        right = lambda x, kind=kind: np.rint((np.clip(x.astype(kind), -1, 1) + 1) * kind(127.5)).astype(np.uint8)
        cut = lambda x, kind=kind: np.clip(kind(127.5) * x.astype(kind) + 128, 0, 255).astype(np.uint8)
        assert check({"pixels_out": right}).ok
        assert check({"pixels_out": cut}).mistakes == ["M94"]


def test_every_topic_says_what_it_takes_and_why_its_tolerance():
    for topic in TOPICS.values():
        if topic.group in ("layers", "embeddings", "network", "parameters", "training", "latents"):
            assert topic.takes and topic.gives and topic.because
            assert topic.probes() is topic.probes(), "probes are made once"
