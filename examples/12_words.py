"""Pictures from words: MM-DiT reads "green square, noto" and draws it, though it has never seen a green square.

    e_m = word[y_m] + place_m                words as tokens of their own stream, and their sum beside the time     (T.21)
    (context; x) → joint attention           picture and words look at each other                                    (T.22)
    F(null) + w (F(words) - F(null))         guidance: as far from "any picture" as w says                           (G.1)

The data are the emoji of hearts, circles and squares in up to eleven colours, drawn in three styles; three combinations of colour
and shape are left out in every style. The network answers x_0 on the straight path. A minute or two.

The picture, words.png: a row per style; the first three columns are the combinations that were left out, the others were seen.
The table: for each combination that was left out, what all real pictures of the style rank nearest to what was drawn (E.11).
"""

import numpy as np

import minidit as md
from minidit import metrics
from minidit.data import emoji
from minidit.data.captions import Vocabulary
from minidit.diffusion import loss, times
from minidit.diffusion.prediction import X_0
from minidit.models.mmdit import MMDiT, MMDiTConfig
from minidit.pictures import grid, save_png
from minidit.processes import train
from minidit.processes.diffusion import Diffusion, drawn

SHAPES, NEW, SEEN = ("heart", "circle", "square"), ("green square", "purple heart", "orange circle"), ("red heart", "blue square")


def pictures():
    """Captions, pictures, and whether each is left out."""
    whole = emoji.everything()
    name = [whole.names[e].split() for e in whole.emoji]
    chosen = [i for i, words in enumerate(name) if len(words) == 2 and words[1] in SHAPES and whole.tone[i] == 0]
    captions = [whole.captions[i] for i in chosen]
    return captions, md.data.from_uint8(whole.images[chosen]), np.array([c.split(",")[0] in NEW for c in captions])


def main(steps=1500, width=64, depth=3, sampling_steps=20, w=2.0):
    captions, x, left_out = pictures()
    vocabulary = Vocabulary.of(captions)
    y, rng = vocabulary.rows(captions), md.Philox(seed=0)
    config = MMDiTConfig(32, 8, 3, width, depth, 4, vocabulary=len(vocabulary), caption_length=vocabulary.length)
    net = MMDiT(config, rng)
    law = times.partly_uniform(times.logit_normal(0.3, 1.0), 0.15)
    process = Diffusion(md.Straight(), X_0, drawn(law), loss.by_noise)
    how = md.LoopConfig(steps=steps, batch_size=32, lr=2e-3, warmup=50, final_lr=0.03, ema=0.995, clip=1.0)
    loop = train.loop_for(net, (x[~left_out], y[~left_out]), process, how)
    list(loop.run())
    net.flat[...] = loop.optimiser.average
    prompts = [f"{what}, {style}" for style in emoji.STYLES for what in NEW + SEEN]
    out = md.sample(net, process, vocabulary.rows(prompts), steps=sampling_steps, guidance=w, clip=True)
    save_png("words.png", grid(out, len(NEW + SEEN), row_labels=emoji.STYLES, title="three new combinations, two known ones"))
    print("asked for                  nearest of all                 rank of the right one")
    for k, prompt in enumerate(prompts):
        style = [i for i, caption in enumerate(captions) if caption.endswith(prompt.split(", ")[1])]
        ranks = metrics.ranks(np.repeat(out[k : k + 1], len(style), axis=0), np.arange(len(style)), x[style])
        nearest, right = captions[style[int(ranks.argmin())]], ranks[[captions[i] for i in style].index(prompt)]
        print(f"{prompt:26s} {nearest:30s} {right + 1} of {len(style)}")
    print("words.png")


if __name__ == "__main__":
    main()
