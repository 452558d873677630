"""Probes that cannot be fooled: what hides a mistake (small numbers, squares, one head, 1000 classes, …) is not in them."""

import numpy as np
import pytest

from minidit.verify import TOPICS
from minidit.verify.core.reference import Reference
from minidit.verify.topics.conversions import x_0_of_eps
from minidit.verify.topics.network import dit

R = Reference()


def probes(name):
    return {p.name: p.args for p in TOPICS[name].probes()}


def test_pictures_are_not_square_samples_are_several_and_their_times_distinct():
    for name in ("q_sample", "x_0_from_eps", "v_from_pair", "simple_loss", "ddim_sample", "ddpm_sample"):
        for args in probes(name).values():
            x = next(a for a in args if getattr(a, "ndim", 0) == 4)
            assert len(x) > 1 and x.shape[2] != x.shape[3]
            for t in (a for a in args if getattr(a, "dtype", None) == np.int64):
                assert len(set(t)) == len(t) > 1
    sizes = {"dit": lambda a: a[1].shape[2:], "patch_embed": lambda a: a[0].shape[2:], "unpatchify": lambda a: a[2]}
    for name, size in sizes.items():
        assert all(np.diff(size(args)).item() for args in probes(name).values())
    assert any(h != w for _, h, w in probes("position_embedding").values())


@pytest.mark.parametrize("name", ["ddim_step", "ddpm_step", "ddim_step_clipped", "ddpm_step_clipped"])
def test_guesses_of_x_0_leave_the_range_of_pixels(name):
    for x, eps, t, _, alpha_bar, *_ in probes(name).values():
        if t > 20:
            assert abs(x_0_of_eps(R, x, eps, alpha_bar[t])).max() > 1


def test_steps_skip_rungs_and_arrive_at_the_data_from_more_than_one():
    hops = [(args[2], args[3]) for args in probes("ddim_step").values()]
    assert {(20, -1), (0, -1)} <= set(hops) and any(t - s > 1 for t, s in hops) and any(t - s == 1 and s >= 0 for t, s in hops)
    assert {0.0, 0.5, 1.0} <= {args[5] for args in probes("ddim_step").values()}


def test_numbers_of_steps_do_not_divide_the_ladder_and_no_half_is_rounded():
    for name, at in (("sampling_timesteps", 1), ("linspace_timesteps", 1), ("trailing_timesteps", 1), ("ddim_sample", 2)):
        T = 1000
        N = [args[at] for args in probes(name).values() if len(args) > 2 or args[0] == T]
        assert any(T % n for n in N)
        if name != "trailing_timesteps":
            halves = [k * (T - 1) / (n - 1) % 1 for n in N for k in range(n)]
            assert min(abs(h - 0.5) for h in halves) > 1e-3, name


def test_attention_has_several_heads_of_a_width_that_is_not_the_model_s():
    assert all(q.shape[1] > 1 and q.shape[3] != q.shape[1] * q.shape[3] for q, _, _ in probes("attention").values())
    assert all(args[4] > 1 for args in probes("dit").values()) and all(args[2] > 1 for args in probes("self_attention").values())


def test_classes_are_not_a_thousand_and_the_null_label_is_told():
    for name, args in probes("dit").items():
        K = args[0]["y_embedder.embedding_table.weight"].shape[0] - 1
        assert K != 1000, name
    assert any((args[3] == args[0]["y_embedder.embedding_table.weight"].shape[0] - 1).any() for args in probes("dit").values())
    assert any(K != 1000 for (K,) in probes("null_label").values())


def test_small_activations_show_every_ε():
    """The variance of a row is not far from ε in some probe of the norm alone, of a block and of the final layer."""
    for name, at in (("layer_norm", 0), ("block", 1), ("final_layer", 1)):
        assert min(args[at].var(axis=-1).min() for args in probes(name).values()) < 100 * 1e-6


def test_no_weight_of_the_widest_networks_is_zero_and_the_identity_is_far():
    for name in ("whole", "16-tokens"):
        w, x, t, y, heads, p = probes("dit")[name]
        assert all(a.all() for a in w.values())
        out = dit(R, w, x, t, y, heads, p)
        assert abs(out).min() > 0 and abs(out).max() > 0.5


def test_times_and_classes_change_what_the_network_says():
    w, x, t, y, heads, p = probes("dit")["whole"]
    out, base = dit(R, w, x, t, y, heads, p), abs(dit(R, w, x, t, y, heads, p)).max()
    assert abs(dit(R, w, x, t[::-1], y, heads, p) - out)[0].max() > 0.1 * base
    assert abs(dit(R, w, x, t, (y + 1) % 10, heads, p) - out).max() > 0.1 * base


def test_learned_variances_reach_both_ends_and_go_beyond():
    for v, *_ in probes("learned_range_variance").values():
        assert v.min() <= -1 and v.max() >= 1


def test_questions_are_told_apart_by_name_and_say_what_they_reveal():
    for topic in TOPICS.values():
        names = [p.name for p in topic.probes()]
        assert len(set(names)) == len(names) > 0
