"""The parts of diffusers' VQModel, SD3 and FLUX transformers, as it makes them, as answers to the kit's topics.

Whole networks are compared in tests/peers. RoPE and QK-norm are computed in float32 there, and their answers say so.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from minidit.backend import Array
from minidit.verify.borders.schedulers import Answers
from minidit.verify.borders.torch import to_numpy, torch
from minidit.verify.topics.layers import Weights


def codes() -> Answers:
    """The topics of VQModel's VectorQuantizer, with its defaults."""
    kind, t_ = importlib.import_module("diffusers.models.autoencoders.vae").VectorQuantizer, torch()

    def asked(z: Array, table: Array, beta: float) -> tuple[Any, Any, Any]:
        """(the layer, z as its leaf (1, d, N, 1), what the layer answers)."""
        layer = kind(*table.shape, beta=beta).to(t_.float64)
        layer.embedding.weight.data = t_.tensor(table)
        leaf = t_.tensor(z.reshape(-1, z.shape[-1]).T[None, :, :, None], requires_grad=True)
        return layer, leaf, layer(leaf)

    def bars(layer: Any, leaf: Any, shape: tuple[int, ...]) -> tuple[Array, Array]:
        w = layer.embedding.weight
        codes_bar = np.zeros(w.shape) if w.grad is None else to_numpy(w.grad)
        return to_numpy(leaf.grad)[0, :, :, 0].T.reshape(shape), codes_bar

    def nearest_code(z: Array, codes: Array) -> Array:
        return to_numpy(asked(z, codes, 0.25)[2][2][2])

    def codebook_loss(z: Array, codes: Array, beta: float) -> tuple[float, Array, Array]:
        layer, leaf, (_, loss, _) = asked(z, codes, beta)
        loss.backward()
        return (float(loss.detach()), *bars(layer, leaf, z.shape))

    def straight_through(z: Array, codes: Array, y_bar: Array) -> tuple[Array, Array, Array]:
        layer, leaf, (out, _, _) = asked(z, codes, 0.25)
        out.backward(t_.tensor(y_bar.T[None, :, :, None]))
        return (to_numpy(out.detach())[0, :, :, 0].T, *bars(layer, leaf, z.shape))

    return {"nearest_code": nearest_code, "codebook_loss": codebook_loss, "straight_through": straight_through}


def streams() -> Answers:
    """The topics of the parts that its transformers of SD3 and FLUX are made of."""
    return stream_blocks() | stream_places()


def stream_blocks() -> Answers:
    """A block of SD3 and what ends its streams."""
    norms, t_ = importlib.import_module("diffusers.models.normalization"), torch()

    def load(layer: Any, weights: Weights, name: str) -> None:
        layer.load_state_dict({k: t_.tensor(weights[f"{name}.{k}"]) for k in ("weight", "bias")}, assign=True)

    def stream_final(weights: Weights, x: Array, c: Array) -> Array:
        last = t_.nn.Linear(x.shape[-1], len(weights["linear.bias"]))
        load(last, weights, "linear")
        with t_.no_grad():
            return to_numpy(last(t_.tensor(last_context(weights, x, c))))

    def block_of_sd3(weights: Weights, c: Array, h: Array, *ys: Array) -> tuple[Array, ...]:
        """JointTransformerBlock, whose attentions answer ys  ->  (what each of them is asked, the picture's tokens after it)."""
        D, asked = h.shape[-1], []
        made = importlib.import_module("diffusers.models.attention")
        block = made.JointTransformerBlock(D, 1, D, context_pre_only=True, use_dual_attention=len(ys) == 2)
        block.ff = made.FeedForward(D, inner_dim=len(weights["mlp.fc1.bias"]), activation_fn="gelu-approximate")
        names = {"norm1.linear": "adaLN_modulation.1", "ff.net.0.proj": "mlp.fc1", "ff.net.2": "mlp.fc2"}
        for layer, name in names.items():
            load(block.get_submodule(layer), weights, name)

        def answering(y: Array, name: str) -> Callable[..., Any]:
            def attention(hidden_states: Any, **_: Any) -> Any:
                asked.append(to_numpy(hidden_states))
                out = t_.tensor(y @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])
                return out if name == "attn2.proj" else (out, None)

            return attention

        for attention, y, name in zip((block.attn, block.attn2), ys, ("attn.proj", "attn2.proj"), strict=False):
            attention.forward = answering(y, name)
        with t_.no_grad():
            out = block.double()(t_.tensor(h), t_.tensor(h), t_.tensor(c))[1]
        return *asked, to_numpy(out)

    def last_context(weights: Weights, h: Array, c: Array) -> Array:
        D = h.shape[-1]
        norm = norms.AdaLayerNormContinuous(D, D, elementwise_affine=False, eps=1e-6).to(t_.float64)
        load(norm.linear, weights, "adaLN_modulation.1")
        with t_.no_grad():
            return to_numpy(norm(t_.tensor(h), t_.tensor(c)))

    return {
        "stream_block": lambda weights, h, y, c: block_of_sd3(weights, c, h, y),
        "dual_block": lambda weights, h, y, y2, c: block_of_sd3(weights, c, h, y, y2), "last_context": last_context,
        "stream_final": stream_final,
    }  # fmt: skip


def stream_places() -> Answers:
    """How queries and keys learn of their places, in FLUX by rotations and in SD3 by a cropped table."""
    embeddings, t_ = importlib.import_module("diffusers.models.embeddings"), torch()

    def rope(x: Array, cos: Array, sin: Array) -> Array:
        """Its angles stand twice, once per number of a pair."""
        turn = tuple(t_.tensor(a.repeat(2, axis=1), dtype=t_.float32) for a in (cos, sin))
        y = embeddings.apply_rotary_emb(t_.tensor(x, dtype=t_.float32).transpose(0, 1)[None], turn)
        return to_numpy(y[0].transpose(0, 1))

    def rope_angles(ids: Array, widths: tuple[int, ...], theta: float) -> tuple[Array, Array]:
        cos, sin = embeddings_of_places(theta, widths)(t_.tensor(ids))
        return to_numpy(cos[:, ::2]), to_numpy(sin[:, ::2])

    def embeddings_of_places(theta: float, widths: tuple[int, ...]) -> Any:
        return importlib.import_module("diffusers.models.transformers.transformer_flux").FluxPosEmbed(theta, list(widths))

    def queries_and_keys(q: Array, k: Array, w_q: Array, w_k: Array, cos: Array, sin: Array) -> tuple[Array, Array]:
        out = []
        for x, w in ((q, w_q), (k, w_k)):
            norm = t_.nn.RMSNorm(len(w), eps=1e-6)
            norm.weight.data = t_.tensor(w, dtype=t_.float32)
            with t_.no_grad():
                out.append(rope(to_numpy(norm(t_.tensor(x, dtype=t_.float32))), cos, sin))
        return out[0], out[1]

    def cropped_places(D: int, side: int, h: int, w: int) -> Array:
        made = embeddings.PatchEmbed(side, side, 1, 1, D, pos_embed_max_size=side)
        return to_numpy(made.cropped_pos_embed(h, w)[0])

    return {
        "rope": rope, "rope_angles": rope_angles, "queries_and_keys": queries_and_keys,
        "cropped_places": cropped_places,
    }  # fmt: skip
