"""Latent diffusion: an autoencoder compresses pictures of clothes to 4 × 8 × 8 numbers, and a diffusion transformer learns those.

The two are trained one after the other, as large models are; here in about six minutes. The picture, latent_dit.png: one column
per class, with real clothes, their reconstructions by the autoencoder (no sample can be sharper), and samples.
"""

from dataclasses import replace

import numpy as np

import minidit as md


def run(name, records, steps):
    """Runs a training to its end and prints ten of its records."""
    for record in records:
        if record["step"] % max(1, steps // 10) == 0:
            print(f"{name}: step {record['step']}, loss {record['loss']:.3f}")


def main(autoencoder_steps=900, steps=2400, sampling_steps=40, **smaller):
    train, test = md.data.fashion("train"), md.data.fashion("test")

    # First the autoencoder: pictures x -> N(mean, std²) -> nearly the same pictures.
    autoencoder = md.Autoencoder(md.AutoencoderConfig(), md.Philox(seed=1))
    loop = md.autoencode(autoencoder, train, md.AutoencodeConfig(steps=autoencoder_steps))
    run("autoencoder", loop.run(), autoencoder_steps)
    autoencoder.flat[...] = loop.optimiser.average  # the averaged weights are better than the last ones

    # Then the latents of all pictures, computed once; a measured factor scales them to unit variance.
    latents = md.latents_of(autoencoder, train)
    print(f"scale {latents.scale:.3f}")

    # Then the denoiser, which never sees a picture.
    model = md.DiT(replace(md.DIT["demo"], **smaller), md.Philox(seed=2))
    process = md.Diffusion.on_ladder(md.Schedule.cosine(), md.V)
    recipe = md.LoopConfig(lr=3e-3, betas=(0.9, 0.99), warmup=100, final_lr=0.05, clip=1.0, ema=0.995, steps=steps)
    loop = md.loop_for(model, latents, process, recipe)
    run("denoiser", loop.run(), steps)
    model.flat[...] = loop.optimiser.average

    # Sampling: noise -> latents -> pictures.
    labels = np.tile(np.arange(10), 4)
    z = md.sample(model, process, labels, steps=sampling_steps, guidance=2.0)
    samples = np.clip(md.decode(autoencoder, z), -1, 1)

    x = np.concatenate([test.x_0(test.labels == k)[:1] for k in range(10)])
    rows = [x, np.clip(md.reconstruct(autoencoder, x), -1, 1), *samples.reshape(4, 10, 1, 32, 32)]
    grid = md.pictures.grid(np.concatenate(rows), 10, row_labels=["real", "reconstructed", "samples", "", "", ""],
                            column_labels=train.class_names)  # fmt: skip
    print(md.pictures.save_png("latent_dit.png", grid))


if __name__ == "__main__":
    main()
