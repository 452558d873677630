"""Writing pictures token by token with a cache: our GPT beside transformers' Llama of the same size, on a CPU.

    python -m benchmarks.decode --rounds 7                             needs torch and transformers
    python -m benchmarks.decode --rounds 7 --threads 1 --cpu-time      where other programs keep the machine busy
    python -m benchmarks.decode --engines eager static compiled        compiled: by torch.compile (needs a C++ compiler)
    python -m benchmarks.decode --batch 1 8 --engines whole plain plain-whole      ours alone: what the cache is worth

The same weights; the class token, then every code from the one before it, the most probable one each time. Llama runs with
its fused attention: in eager mode with a cache that grows (eager) or of fixed size (static), or compiled with the latter. Its
table of angles is replaced by ours, which saves it the sines of every step, so both write the same codes: that is checked.
Beside these stands our GPT without a cache, which sees the whole sequence at every step (whole), and both once more as the plain
text, without fast twins (plain: with a cache; plain-whole: without).
The engines take turns, round by round; the figure is the median of the ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import transformers
from threadpoolctl import threadpool_limits
from transformers.models.llama.modeling_llama import LlamaForCausalLM

from benchmarks.machine import Others, machine
from minidit.autograd import no_grad, plain_text, value
from minidit.models.gpt import GPT, GPTConfig
from minidit.random import Philox

HALVES = {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attention.wo": "self_attn.o_proj",
          "feed_forward.w1": "mlp.gate_proj", "feed_forward.w3": "mlp.up_proj", "feed_forward.w2": "mlp.down_proj"}  # fmt: skip


def ours(config: GPTConfig) -> GPT:
    """Random weights, none of them zero."""
    model = GPT(config, Philox(0))
    r = np.random.default_rng(0)
    for p in model.parameters():
        p.data[...] += 0.05 * r.standard_normal(p.data.shape)
    return model


def llama(model: GPT) -> Any:
    """transformers' Llama with the same weights: its pairs of a head are (j, j + K/2), so rows of q and k change places."""
    c, state = model.config, model.state_dict()
    settings = transformers.LlamaConfig(
        vocab_size=c.vocabulary, hidden_size=c.hidden_size, intermediate_size=c.inner, num_hidden_layers=c.depth,
        num_attention_heads=c.num_heads, rms_norm_eps=1e-5, tie_word_embeddings=False, attn_implementation="sdpa",
        max_position_embeddings=c.tokens,
    )  # fmt: skip
    names = {"model.embed_tokens.weight": "tok_embeddings.weight", "model.norm.weight": "norm.weight"}
    arrays = {theirs: state[name] for theirs, name in names.items()} | {"lm_head.weight": state["output.weight"]}
    for k in range(c.depth):
        at, parts = f"model.layers.{k}.", np.split(state[f"layers.{k}.attention.wqkv.weight"], 3)
        for name, rows in zip("qkv", parts, strict=True):
            if name != "v":
                rows = rows.reshape(c.num_heads, -1, 2, c.hidden_size).swapaxes(1, 2).reshape(rows.shape)
            arrays[f"{at}self_attn.{name}_proj.weight"] = rows
        arrays |= {f"{at}{theirs}.weight": state[f"layers.{k}.{name}.weight"] for name, theirs in HALVES.items()}
    peer = LlamaForCausalLM(settings).eval()
    peer.load_state_dict({name: torch.tensor(a) for name, a in arrays.items()})
    tables = [torch.tensor(np.concatenate((t, t), axis=1), dtype=torch.float32) for t in model.turn]
    peer.model.rotary_emb.forward = lambda x, position_ids: tuple(t[position_ids] for t in tables)
    return peer


class Ours:
    """The most probable codes : (B, N).   cached : whether keys and values are kept   plain : without fast twins"""

    def __init__(self, model: GPT, y: Any, *, cached: bool = True, plain: bool = False) -> None:
        self.model, self.y, self.cached, self.plain = model, y, cached, plain

    def write(self) -> Any:
        with no_grad(), plain_text() if self.plain else nullcontext():
            cache, index = self.model.cache(len(self.y)) if self.cached else None, np.zeros((len(self.y), 0), int)
            for _ in range(self.model.config.tokens):
                logits = value(self.model(index[:, -1:] if self.cached else index, self.y, cache))
                index = np.concatenate((index, logits[:, -1].argmax(axis=-1)[:, None]), axis=1)
        return index


OURS = {"whole": {"cached": False}, "plain": {"plain": True}, "plain-whole": {"cached": False, "plain": True}}


class Theirs:
    """The same in PyTorch.   engine : see above"""

    def __init__(self, model: GPT, peer: Any, y: Any, engine: str) -> None:
        self.peer, self.fixed = peer, engine != "eager"
        self.forward = torch.compile(peer.forward) if engine == "compiled" else peer
        self.tokens, self.first = model.config.tokens, torch.tensor(model.cls_embedding(y).data[:, None])

    def write(self) -> Any:
        room = {"max_cache_len": self.tokens} if self.fixed else {}
        cache = (transformers.StaticCache if self.fixed else transformers.DynamicCache)(config=self.peer.config, **room)
        index: list[Any] = []
        with torch.no_grad():
            for i in range(self.tokens):
                seen = {"input_ids": index[-1]} if index else {"inputs_embeds": self.first}
                at = torch.full((1, 1), i)
                logits = self.forward(**seen, position_ids=at, cache=cache, use_cache=True).logits
                index.append(logits[:, -1].argmax(dim=-1)[:, None])
        return torch.cat(index, dim=1).numpy()


def compared(model: GPT, peer: Any, B: int, args: argparse.Namespace) -> None:
    """Prints one row: tokens per second of both, and the ratio."""
    clock = time.process_time if args.cpu_time else time.perf_counter
    y = np.random.default_rng(B).integers(0, model.config.num_classes, B)
    writers: list[Any] = [Ours(model, y)]
    writers += [Ours(model, y, **OURS[name]) if name in OURS else Theirs(model, peer, y, name) for name in args.engines]
    codes = [w.write() for w in writers]
    same = [f"{(codes[0] == c).mean():.1%}" for c in codes[1:]]
    times: list[list[float]] = [[] for _ in writers]
    for k in range(args.rounds):
        for i in range(len(writers)) if k % 2 else reversed(range(len(writers))):
            began = clock()
            writers[i].write()
            times[i].append(clock() - began)
    rate = [B * model.config.tokens / statistics.median(t) for t in times]
    print(f"batch {B}: {rate[0]:.0f} tokens per second")
    for k, name in enumerate(args.engines, start=1):
        low, median, high = np.quantile([q / p for p, q in zip(times[0], times[k], strict=True)], (0.25, 0.5, 0.75))
        ratio = f"ours {median:.2f} times as many ({low:.2f} … {high:.2f})"
        print(f"  {name:11s} {rate[k]:.0f}: {ratio}, {same[k - 1]} of the codes equal")


def main() -> None:
    usual = GPTConfig()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--hidden-size", type=int, default=usual.hidden_size)
    parser.add_argument("--depth", type=int, default=usual.depth)
    parser.add_argument("--heads", type=int, default=usual.num_heads)
    parser.add_argument("--inner", type=int, default=usual.inner)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpu-time", action="store_true", help="count the time that this process worked")
    parser.add_argument("--engines", nargs="+", default=["eager"], choices=["eager", "static", "compiled", *OURS])
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    config = GPTConfig(hidden_size=args.hidden_size, depth=args.depth, num_heads=args.heads, inner=args.inner)
    model = ours(config)
    peer = llama(model)
    with threadpool_limits(args.threads, "blas"), Others() as others:
        for B in args.batch:
            compared(model, peer, B, args)
    print(f"{machine()['cpu']}, {args.threads} threads, {config}; others kept {others.share or 0:.2f} cores busy")
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, NumPy {np.__version__}")


if __name__ == "__main__":
    main()
