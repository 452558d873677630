"""GPT beside transformers' Llama: the same logits and all the same gradients, whole and with a cache.

What is the same: RMSNorm before, causal attention without biases, SwiGLU, the head. What differs, and how the peer is brought to
the same numbers: its tokens have one place (ours a row and a column: its table of angles is replaced by ours), it turns the
numbers j and j + K/2 of a head (ours 2j and 2j + 1: the rows of its q and k are permuted), it has no class (it gets our
embeddings), and it takes means of squares in float32. Needs torch and transformers; skipped without them.
"""

import warnings

import numpy as np
import pytest
from support import agree, host, spec

from minidit.autograd import no_grad
from minidit.models.gpt import GPT, GPTConfig
from minidit.random import Philox

torch = pytest.importorskip("torch", reason="the extra peers is not installed: torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    transformers = pytest.importorskip("transformers", reason="the extra peers is not installed: transformers")
    from transformers.models.llama.modeling_llama import LlamaForCausalLM, LlamaRMSNorm

pytestmark = pytest.mark.filterwarnings("ignore")

CONFIG = GPTConfig(grid=(3, 4), vocabulary=9, hidden_size=16, depth=2, num_heads=2, inner=20, num_classes=3)
HALVES = {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attention.wo": "self_attn.o_proj",
          "feed_forward.w1": "mlp.gate_proj", "feed_forward.w3": "mlp.up_proj", "feed_forward.w2": "mlp.down_proj"}  # fmt: skip


def halves(rows, heads):
    """Rows (D, …) of q or k, pairs of neighbours  ->  the first of all pairs, then the second of all, head by head."""
    return rows.reshape(heads, -1, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


def in_their_names(arrays, config=CONFIG):
    """Arrays under our names -> under theirs; the embedding of classes has no place there."""
    names = {"model.embed_tokens.weight": arrays["tok_embeddings.weight"], "model.norm.weight": arrays["norm.weight"],
             "lm_head.weight": arrays["output.weight"]}  # fmt: skip
    for k in range(config.depth):
        q, key, v = np.split(arrays[f"layers.{k}.attention.wqkv.weight"], 3)
        at = f"model.layers.{k}."
        names |= {f"{at}self_attn.{n}_proj.weight": halves(a, config.num_heads) for n, a in (("q", q), ("k", key))}
        names |= {f"{at}self_attn.v_proj.weight": v}
        names |= {f"{at}{theirs}.weight": arrays[f"layers.{k}.{ours}.weight"] for ours, theirs in HALVES.items()}
    return names


@pytest.fixture
def pair():
    """(ours, theirs) in float64, all weights random and the same, with our places."""
    model = GPT(CONFIG, Philox(0), dtype=np.float64)
    model.flat[...] += 0.3 * Philox(1).normal(model.flat.shape, dtype=np.float64)
    settings = transformers.LlamaConfig(
        vocab_size=9, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2, rms_norm_eps=1e-5,
        tie_word_embeddings=False, attn_implementation="sdpa",
    )  # fmt: skip
    peer = LlamaForCausalLM(settings).double().eval()
    peer.load_state_dict({n: torch.tensor(a) for n, a in in_their_names(model.state_dict()).items()})
    for norm in peer.modules():
        if isinstance(norm, LlamaRMSNorm):
            norm.forward = lambda x, m=norm: m.weight * x * torch.rsqrt((x * x).mean(-1, keepdim=True) + m.variance_epsilon)
    tables = [torch.tensor(np.concatenate((t, t), axis=1)) for t in model.turn]
    peer.model.rotary_emb.forward = lambda x, position_ids: tuple(t[position_ids] for t in tables)
    return model, peer


def embedded(model, index, y):
    rows = np.concatenate((host(model.cls_embedding(y))[:, None], host(model.tok_embeddings(index))), axis=1)
    return torch.tensor(rows, requires_grad=True)


@spec("A.29", "A.30", "N.3", "N.13", "T.42", "T.43", "T.44")
def test_a_gpt_answers_and_learns_as_llama_does(pair, record_property):
    model, peer = pair
    r = np.random.default_rng(0)
    index, y, weights = r.integers(0, 9, (2, 11)), np.array([0, 2]), r.standard_normal((2, 12, 9))
    rows = embedded(model, index, y)
    out, ours = peer(inputs_embeds=rows).logits, model(index, y)
    (out * torch.tensor(weights)).sum().backward()
    (ours * weights).sum().backward()
    grads = {n: p.grad.numpy() for n, p in peer.named_parameters() if p.grad is not None}
    mine = in_their_names({n: p.grad for n, p in model.named_parameters()})
    assert set(mine) - set(grads) == {"model.embed_tokens.weight"}  # the peer got vectors: their gradients stand for the table's
    table = np.zeros_like(mine["model.embed_tokens.weight"])
    np.add.at(table, index, rows.grad.numpy()[:, 1:])
    grads["model.embed_tokens.weight"] = table
    worst = max(np.abs(mine[n] - g).max() / np.abs(g).max() for n, g in grads.items())
    far = np.abs(ours.data - out.detach().numpy()).max() / np.abs(ours.data).max()
    for what, number in (("output", far), ("gradients", worst)):
        record_property(f"Llama {what}", float(number))
        print(f"Llama {what}: {number:.2g}")
        assert number <= 1e-9


@spec("N.16")
def test_both_caches_give_the_logits_of_the_whole(pair):
    model, peer = pair
    index, y = np.random.default_rng(1).integers(0, 9, (2, 11)), np.array([1, 2])
    rows, ours, theirs = embedded(model, index, y).detach(), model.cache(2), transformers.DynamicCache()
    with no_grad(), torch.no_grad():
        whole = host(model(index, y))
        for i in range(12):
            mine = host(model(index[:, max(i - 1, 0) : i], y, ours))
            out = peer(inputs_embeds=rows[:, i : i + 1], cache=theirs, use_cache=True).logits.numpy()
            agree(mine[:, -1], whole[:, i], bound=1e-12, of="N.16")
            agree(out[:, -1], whole[:, i], bound=1e-10)


def test_with_its_own_places_llama_says_something_else(pair):
    """One place per token is not a row and a column: what the replaced table hides would be seen."""
    model, peer = pair
    index, y = np.random.default_rng(0).integers(0, 9, (1, 11)), np.array([0])
    del peer.model.rotary_emb.forward
    far = np.abs(host(model(index, y)) - peer(inputs_embeds=embedded(model, index, y)).logits.detach().numpy()).max()
    assert far > 1e-2
