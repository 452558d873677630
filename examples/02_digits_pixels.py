"""A class-conditional diffusion transformer on real digits, in pixels. About a minute.

The picture, digits.png: one row per class, real digits on the left and samples on the right.
"""

import numpy as np

import minidit as md


def main(steps=700, sampling_steps=40, per_class=8):
    digits = md.data.digits()  # 1,500 digits of 8 × 8 pixels and their labels
    model = md.DiT(md.DIT["digits"], md.Philox(seed=0))
    print(f"{model.count_parameters():,} parameters")

    # The network learns to predict v = √ᾱ_t ε - √(1-ᾱ_t) x_0 from x_t = √ᾱ_t x_0 + √(1-ᾱ_t) ε.
    process = md.Diffusion.on_ladder(md.Schedule.cosine(), md.V)
    recipe = {"lr": 3e-3, "betas": (0.9, 0.99), "warmup": 30, "final_lr": 0.02, "clip": 1.0}
    for record in md.train(model, digits, process, steps=steps, **recipe):
        if record["step"] % 100 == 0:
            print(f"step {record['step']}, loss {record['loss']:.3f}")

    # Sampling goes from pure noise down a few rungs. Guidance moves each step away from "any digit", beyond "this digit".
    labels = np.repeat(np.arange(10), per_class)
    x = md.sample(model, process, labels, steps=sampling_steps, guidance=2.0, clip=True)

    real = np.concatenate([digits.x_0(digits.labels == k)[:per_class] for k in range(10)])
    grids = [md.pictures.grid(a, per_class, row_labels=names, scale=5) for a, names in ((real, digits.class_names), (x, None))]
    print(md.pictures.save_png("digits.png", md.pictures.side_by_side(grids, ["      real", "samples"])))


if __name__ == "__main__":
    main()
