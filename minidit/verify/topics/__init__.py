"""What an implementation can be asked for: the topics, in the order of the families and of each file.

A family of topics is one file. Its parts are functions of a Reference (core/reference.py); what another family needs of them it
imports. Time is as most projects count it: t in 0..T-1, tables of T entries, -1 for the data.
"""

from __future__ import annotations

from minidit.verify.core.reference import AnyTopic, Topic
from minidit.verify.topics import (
    block, chains, checkpoints, clips, codes, consistency, conversions, ddim, ddpm, embeddings, flows, guidance, guided, latents,
    layers, likelihood, losses, network, parameters, paths, posterior, schedules, stream_blocks, streams, times,
    timesteps, tokens, training, unet,
)  # fmt: skip

FAMILIES = (
    schedules, timesteps, conversions, posterior, ddpm, ddim, chains, layers, embeddings, block, network, checkpoints, guidance,
    guided, latents, likelihood, losses, parameters, training, paths, times, flows, consistency, unet, codes,
    tokens, streams, stream_blocks, clips,
)  # fmt: skip
_ALL: list[AnyTopic] = [
    t for f in FAMILIES for t in vars(f).values() if isinstance(t, Topic) and t.right.__module__ == f.__name__
]  # without those that a family imports from another
TOPICS: dict[str, AnyTopic] = {t.name: t for t in _ALL}
if len(TOPICS) < len(_ALL):
    raise ValueError("two topics have one name")
