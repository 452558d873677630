"""Where a topic of codes, tokens or streams spells an equation out, it equals the package's own law, order, cache or network."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import host, spec

from minidit import ops
from minidit.autograd import Tensor, no_grad
from minidit.autoregressive import choose, quantize, scales
from minidit.autoregressive.quantiser import Levels, Nearest
from minidit.models.flux import SingleBlock
from minidit.models.flux_config import turn_of
from minidit.models.gpt import GPT, GPTConfig, turns
from minidit.models.mmdit import MMDiT, MMDiTConfig, Stream
from minidit.models.spacetime import InFrames, OverTime, patches, places_of_time
from minidit.models.var import VAR, VARConfig
from minidit.nn.attention import attended
from minidit.nn.masks import by_level, same_frame, same_site
from minidit.nn.position import centre, rotary, sincos_2d
from minidit.random import Philox
from minidit.verify import check
from minidit.verify.core.finding import ask
from minidit.verify.core.judge import Judge
from minidit.verify.core.reference import Reference
from minidit.verify.topics import TOPICS, clips, codes, stream_blocks, streams, tokens

R = Reference()
GROUPS = ("codes", "tokens", "streams")
seeds = st.integers(0, 10**6)


def drawn(seed, *shapes):
    rng = Philox(seed)
    return [rng.normal(shape, dtype=np.float64) for shape in shapes]


def leaf_of(a):
    return Tensor(a.copy())


def near(a, b, tol=1e-12):
    a, b = host(a), host(b)
    np.testing.assert_allclose(a, b, rtol=tol, atol=tol * max(1.0, float(np.max(abs(b)))))


@pytest.mark.parametrize("name", [t.name for t in TOPICS.values() if t.group in GROUPS])
def test_the_reference_answers_its_own_questions_and_passes(name):
    topic = TOPICS[name]
    assert len({p.name for p in topic.probes()}) == len(topic.probes())
    finding = Judge().judge(topic, ask(topic.by(Reference()), topic), [])
    assert finding.passed and finding.verdict == "equal"


# ------------------------------------------------------------------------------------------------ codes


@spec("Q.1", "Q.2", "Q.3")
@given(seeds, st.floats(0.0, 3.0))
def test_the_loss_of_codes_and_its_gradients_are_those_of_the_quantiser(seed, beta):
    z, table, y_bar = drawn(seed, (1, 3, 4, 2), (5, 2), (1, 3, 4, 2))
    leaf, book = leaf_of(z), leaf_of(table)
    vectors, losses = Nearest(book, beta=beta).training(leaf)
    losses.backward(np.ones(1))
    rows = z.reshape(1, 12, 2)
    loss, z_bar, codes_bar = codes.codebook_loss(R, rows, table, beta)
    near(loss, losses.data[0])
    near(z_bar.reshape(z.shape), leaf.grad)
    near(codes_bar, book.grad)
    leaf, book = leaf_of(z), leaf_of(table)
    vectors, _ = Nearest(book).training(leaf)
    vectors.backward(y_bar)
    value, z_bar, codes_bar = codes.straight_through(R, rows[0], table, y_bar.reshape(12, 2))
    near(value.reshape(z.shape), vectors.data)
    near(z_bar.reshape(z.shape), leaf.grad)
    assert book.grad is None and not codes_bar.any()


@spec("Q.4", "Q.5", "Q.6", "Q.8")
@given(seeds)
def test_spheres_whole_numbers_and_perplexity_are_the_laws(seed):
    z, table = drawn(seed, (7, 3), (5, 3))
    law = Nearest(table, sphere=True)
    numbers, vectors = codes.sphere_code(R, z, table)
    assert np.array_equal(law.numbers(z[None, None])[0], numbers)
    near(vectors, law.vectors(numbers[None], 1, 7)[0, 0])
    levels = Levels((8, 5, 3))
    vectors, numbers = codes.fsq_code(R, z, (8, 5, 3))
    assert np.array_equal(levels.numbers(z[None, None])[0], numbers)
    near(vectors, quantize.rounded(z, (8, 5, 3)))
    n, index = np.abs(table[:, 0]) + 0.1, law.numbers(z[None, None])[0]
    means = quantize.running_means(n, table, z, index, 0.9)
    for mine, theirs in zip(codes.running_codes(R, n, table, z, index, 0.9), (*means, means[1] / means[0][:, None]), strict=True):
        near(mine, theirs)
    used = np.abs(z[0]) * (np.abs(z[0]) > 0.3) + [1, 0, 0]
    near(codes.code_perplexity(R, used), quantize.perplexity(used))


@spec("Q.9", "Q.10", "Q.11", "Q.12", "Q.13")
@given(seeds, st.sampled_from([(1, 2, 4), (1, 3, 4), (2, 4), (4,)]))
def test_a_pyramid_of_codes_is_the_law_s(seed, sizes):
    f, table, blends = drawn(seed, (4, 4, 2), (5, 2), (2, 2, 2, 3, 3))
    K = len(sizes)

    def phi(k, h):
        kernel = blends[scales.phi_of(k, K, 2)]
        conv = ops.conv2d(host(h).transpose(0, 3, 1, 2), kernel, np.zeros(2), padding=1)
        return 0.5 * h + 0.5 * conv.transpose(0, 2, 3, 1)

    index, maps = scales.into_codes(f[None], table, sizes, phi)
    numbers, drawn_maps = codes.residual_codes(R, f, table, blends, sizes)
    assert np.array_equal(index[0], numbers)
    assert np.array_equal(codes.shared_phi(R, K, 2), [scales.phi_of(k, K, 2) for k in range(K)])
    near(drawn_maps, np.concatenate(maps))
    plain = scales.maps_of(numbers[None], table, sizes, lambda k, h: h)
    if K > 1:
        near(codes.scale_inputs(R, numbers, table, sizes), host(scales.inputs_of(plain[:-1], sizes))[0])


# ------------------------------------------------------------------------------------------------ tokens


@spec("Q.18", "Q.19", "Q.20", "Q.21", "Q.22")
@given(seeds, st.floats(0.2, 4.0), st.integers(0, 6), st.floats(0.05, 1.0))
def test_the_choice_of_a_token_is_the_law_s(seed, temperature, top_k, top_p):
    l, l_u = drawn(seed, (3, 5), (3, 5))
    near(tokens.guided_logits(R, l, l_u, temperature), choose.guided(l, l_u, temperature))
    kept = choose.kept(l, temperature=temperature, top_k=top_k, top_p=top_p)
    p = tokens.kept_probabilities(R, l, temperature, top_k, top_p)
    near(p, ops.softmax(kept))
    u = Philox(seed).uniform((3,))
    assert np.array_equal(tokens.chosen_token(R, p, u), choose.chosen(kept, u))
    assert tokens.rising_scale(R, 4.0, top_k, 7) == choose.rising(4.0, top_k, 7)
    x = np.array([[0, 4, 1], [2, 2, 3]])
    logits = drawn(seed, (2, 3, 5))[0]
    near(tokens.token_nll(R, logits, x), choose.nll(logits, x))


SMALL = GPTConfig(grid=(2, 3), vocabulary=5, hidden_size=8, depth=1, num_heads=1, inner=6, num_classes=2)


@spec("N.16", "T.42", "T.43")
@pytest.mark.parametrize("calls", [(6,), (3, 2, 1), (1,) * 6])
@pytest.mark.parametrize("zero_prefix", [False, True])
def test_a_block_of_gpt_is_these_topics_put_together(calls, zero_prefix):
    config = GPTConfig(**{**SMALL.__dict__, "zero_prefix": zero_prefix})
    model = GPT(config, Philox(0), dtype=np.float64)
    model.flat[...] += 0.3 * Philox(1).normal(model.flat.shape, dtype=np.float64)
    block, cos_sin = model.layers[0], tokens.prefix_turns(R, 2, 3, 8, config.theta)
    if not zero_prefix:
        for mine, theirs in zip(cos_sin, turns(config), strict=True):
            near(mine, theirs)
    (x,) = drawn(3, (6, 8))
    n = tokens.rms_norm(R, x, host(block.attention_norm.weight), 1e-5)
    q, k, v = (a[:, None] for a in np.split(n @ host(block.attention.wqkv.weight).T, 3, axis=1))
    h = x + tokens.cached_attention(R, q, k, v, *turns(config), calls)[:, 0] @ host(block.attention.wo.weight).T
    f = block.feed_forward
    weights = [host(w.weight) for w in (f.w1, f.w3, f.w2)]
    h = h + tokens.swiglu(R, tokens.rms_norm(R, h, host(block.ffn_norm.weight), 1e-5), *weights)
    with no_grad():
        near(h, host(block(x[None], model.turn, model.mask, None, 0))[0])


@spec("Q.15", "T.46", "T.47", "T.48", "T.49")
def test_a_block_of_var_is_these_topics_put_together():
    config = VARConfig(sizes=(1, 2), vocabulary=5, channels=2, hidden_size=8, depth=1, num_heads=2)
    network = VAR(config, Philox(0), dtype=np.float64)
    network.flat[...] += 0.4 * Philox(1).normal(network.flat.shape, dtype=np.float64)
    block, (x, c) = network.blocks[0], drawn(2, (1, 5, 8), (1, 8))
    w = {name: host(p) for name, p in block.named_parameters()}
    modulation = w["ada_lin.1.weight"], w["ada_lin.1.bias"]
    entered = tokens.var_modulation(R, x, c, *modulation, 0 * x)[0][0]
    q, k, v = np.split(entered @ w["attn.mat_qkv.weight"].T, 3, axis=1)
    q, k, v = (a.reshape(5, 2, 4).swapaxes(0, 1) for a in (q + w["attn.q_bias"], k, v + w["attn.v_bias"]))
    mask = tokens.token_mask(R, (1, 4)) > 0
    assert np.array_equal(mask, by_level([0, 1, 1, 1, 1]) == 0)
    logits = np.where(mask, tokens.cosine_logits(R, q, k, w["attn.scale_mul_1H11"].reshape(2)), -np.inf)
    y = (ops.softmax(logits) @ v).swapaxes(0, 1).reshape(1, 5, 8) @ w["attn.proj.weight"].T + w["attn.proj.bias"]
    h = tokens.var_modulation(R, x, c, *modulation, y)[1]
    seen = tokens.var_modulation(R, h, c, *modulation, y)[2]
    h = tokens.var_modulation(R, h, c, *modulation, host(block.ffn(seen)))[3]
    near(block(x, c, network.mask, None, 0), h, 1e-11)
    head = network.head_nm
    near(head(h, c), tokens.var_head(R, h, c, *(host(head.ada_lin[1].weight), host(head.ada_lin[1].bias))))


# ------------------------------------------------------------------------------------------------ streams


@spec("A.29", "A.30", "N.12", "N.14", "T.27")
@given(seeds)
def test_places_norms_and_joint_attention_are_those_of_the_kit_of_attention(seed):
    context, x, weights = drawn(seed, (2, 3, 2, 8), (6, 3, 2, 8), (2, 8))
    ids = streams.stream_places(R, 2, 2, 3)
    cos, sin = streams.rope_angles(R, ids, (2, 2, 4), 10000.0)
    for mine, theirs, made in zip((cos, sin), turn_of(2, (2, 3), (2, 2, 4)), rotary(ids, (2, 2, 4)), strict=True):
        near(mine, theirs)
        near(mine, made)
    together = np.concatenate((context, x)).reshape(1, 8, -1)  # (1, M + N, 3 heads K)
    packed = together.reshape(8, 3, 2, 8)
    near(streams.rope(R, packed[:, 0], cos, sin), ops.rope(packed[None, :, 0], cos, sin)[0])
    normed = host(ops.qk_norm(together, *weights, cos, sin, heads=2)).reshape(8, 3, 2, 8)
    q, k = streams.queries_and_keys(R, *(packed[:, i] for i in (0, 1)), *weights, cos, sin)
    near(q, normed[:, 0])
    near(k, normed[:, 1])
    parts = [a[:, i] for a in (context, x) for i in range(3)]
    y = host(attended(together, 2, (cos, sin)))[0].reshape(8, 2, 8)
    for mine, theirs in zip(streams.joint_attention(R, *parts, cos, sin), (y[:2], y[2:]), strict=True):
        near(mine, theirs)


@spec("N.7", "T.1", "T.31", "T.32", "T.34")
@given(seeds)
def test_patches_places_and_groups_are_those_of_the_networks(seed):
    x, clip = drawn(seed, (2, 3, 4, 6), (2, 3, 4, 4, 6))
    near(stream_blocks.packed_patches(R, x, 2), ops.patchify(x, patch_size=2))
    near(clips.clip_patches(R, clip, 2, 2), patches(clip, 2, 2))
    near(clips.frame_places(R, 3, 8), places_of_time(3, 8, np.float64)[:, 0])
    near(stream_blocks.cropped_places(R, 8, 6, 3, 4), centre(sincos_2d(8, 6, 6)[None], 6, 6, 3, 4)[0])
    h = drawn(seed, (2, 6, 3 * 8))[0]
    frames, sites = clips.factorised_groups(R, h, 2)
    for groups, mask, back in (
        (frames, same_frame(2, 3), lambda y: y.reshape(2, 6, 8)),
        (sites, same_site(2, 3), lambda y: y.reshape(2, 3, 2, 8).swapaxes(1, 2).reshape(2, 6, 8)),
    ):
        whole = host(attended(h, 2, None, mask.astype(np.float64)))
        near(back(host(attended(groups, 2))), whole)


@spec("T.22", "T.23", "T.27")
def test_blocks_of_both_kinds_are_those_of_mm_dit_and_flux():
    stream = Stream(8, 2, 16, qk_norm=False)
    stream.build(Philox(0), dtype=np.float64)
    single = SingleBlock(8, 2, 16, 3, lambda words: rotary(np.zeros((3, 1), int), (4,)))
    single.build(Philox(1), dtype=np.float64)
    h, y, c = drawn(2, (2, 3, 8), (2, 3, 8), (2, 8))
    for block in (stream, single):
        block.flat[...] += 0.3 * Philox(3).normal(block.flat.shape, dtype=np.float64)
    weights = {name: host(p) for name, p in stream.named_parameters()}
    parts = ops.split(stream.adaLN_modulation(c), parts=6)
    a, out = stream_blocks.stream_block(R, weights, h, y, c)
    near(a, ops.layer_norm_modulate(h, parts[0], parts[1]))
    near(out, stream.go_on(h, y, list(parts)), 1e-11)
    w = {name: host(p) for name, p in single.named_parameters()}
    theirs = {"modulation": "adaLN_modulation.1", "linear1": "mlp.fc1"}
    mine = {f"{n}.{k}": w[f"{m}.{k}"] for n, m in theirs.items() for k in ("weight", "bias")}
    mine["linear2.weight"], mine["linear2.bias"] = np.hstack((w["proj.weight"], w["mlp.fc2.weight"])), w["mlp.fc2.bias"]
    a, _ = stream_blocks.single_block(R, mine, h, 0 * h, c)
    heads = attended(single.attn.packed(a, None), 2)
    near(stream_blocks.single_block(R, mine, h, host(heads), c)[1], single.modulated(h, single.adaLN_modulation(c)), 1e-11)


@spec("T.24", "T.25")
@given(seeds)
def test_dual_attention_and_the_last_words_are_those_of_mm_dit(seed):
    stream = Stream(8, 1, 16, qk_norm=False, dual=True)
    stream.build(Philox(seed), dtype=np.float64)
    stream.flat[...] += 0.3 * Philox(seed + 1).normal(stream.flat.shape, dtype=np.float64)
    h, y, c = drawn(seed + 2, (2, 3, 8), (2, 3, 8), (2, 8))
    weights, parts = {name: host(p) for name, p in stream.named_parameters()}, ops.split(stream.adaLN_modulation(c), parts=9)
    second = ops.layer_norm_modulate(h, parts[6], parts[7])
    own = host(attended(stream.attn2.packed(second, None), 1))
    first, asked, out = stream_blocks.dual_block(R, weights, h, y, own, c)
    near(first, ops.layer_norm_modulate(h, parts[0], parts[1]))
    near(asked, second)
    near(out, stream.go_on(h, y, list(parts)), 1e-11)
    last = Stream(8, 1, 16, qk_norm=False, last=True)
    last.build(Philox(seed), dtype=np.float64)
    last.flat[...] += Philox(seed + 1).normal(last.flat.shape, dtype=np.float64)
    mine = {name: host(p) for name, p in last.named_parameters()}
    near(stream_blocks.last_context(R, mine, h, c), ops.layer_norm_modulate(h, *ops.split(last.adaLN_modulation(c), parts=2)))


@spec("T.25", "T.27")
def test_a_network_reads_its_picture_behind_its_words():
    network = MMDiT(MMDiTConfig(4, 2, 1, 8, 1, 1, vocabulary=3, caption_length=2), Philox(0), dtype=np.float64)
    h, c = drawn(1, (1, 6, 8), (1, 8))  # every gate is closed: a fresh block hands on what it got
    near(network.joint_blocks[-1](h, c), stream_blocks.patches_alone(R, h, 2))


@spec("T.32", "T.34")
@given(seeds, st.integers(1, 4))
def test_blocks_of_clips_take_turns_as_the_factorised_network_s_do(seed, depth):
    x = drawn(seed, (2, 6, 8))[0]
    h, unit = x, np.concatenate([np.eye(8)] * 3)
    for k in range(depth):
        attention = (OverTime if k % 2 else InFrames)(8, 1, (1, 3))
        attention.build(Philox(0), dtype=np.float64)
        state = {"qkv.weight": unit, "qkv.bias": np.zeros(24), "proj.weight": np.eye(8), "proj.bias": np.zeros(8)}
        attention.load_state_dict(state)  # q = k = v = the tokens
        attention.places = True
        h = h + host(attention.mixed(h))
    near(clips.factorised_blocks(R, x, 2, depth), h, 1e-11)


# ------------------------------------------------------------------------------------------------ mistakes of no bank

FRESH = {
    "codes halved": ("codebook_loss", lambda z, e, beta: tuple(np.asarray(a) / 2 for a in codes.codebook_loss(R, z, e, beta))),
    "the second nearest": ("nearest_code", lambda z, e: ((z[:, None] - e) ** 2).sum(axis=2).argsort(axis=1)[:, 1]),
    "a third of the rest": ("area_rows", lambda p, H: scales.area(p, H) ** 2),
    "all but the first": ("token_mask", lambda groups: tokens.token_mask(R, groups) * (np.arange(sum(groups)) > 0)),
    "likelihood in bits": ("token_nll", lambda l, x: tokens.token_nll(R, l, x) / np.log(2)),
    "the square of p": ("kept_probabilities", lambda l, t, k, p: tokens.kept_probabilities(R, l, t, k, p) ** 2),
    "the newest token twice": (
        "cached_attention", lambda q, k, v, cos, sin, calls: tokens.cached_attention(R, q, k, 2 * v, cos, sin, calls) - v),
    "a cube": ("swiglu", lambda x, a, b, c: tokens.swiglu(R, x, a, b, c) ** 3),
    "half of the turn": ("rope", lambda x, cos, sin: (x + streams.rope(R, x, cos, sin)) / 2),
    "the mean of both streams": ("joint_attention", lambda *a: tuple(y - y.mean() for y in streams.joint_attention(R, *a))),
    "twice the answer": ("stream_final", lambda w, x, c: 2 * stream_blocks.stream_final(R, w, x, c)),
    "neighbours": ("group_conditions", lambda c, n: np.roll(clips.group_conditions(R, c, n), 1, axis=0)),
}  # fmt: skip


@pytest.mark.parametrize("what", FRESH)
def test_a_mistake_of_no_bank_is_seen_and_nothing_is_blamed(what):
    topic, function = FRESH[what]
    (finding,) = check({topic: function}).findings
    assert not finding.passed and finding.verdict == "unknown" and not finding.candidates
