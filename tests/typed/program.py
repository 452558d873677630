"""A user's program for a type checker: `# error: …` is what it must say of a line, `# is …` the type that it must reveal.

It is never run: tests/test_types.py copies it out of the repository and asks mypy --strict.
"""

from typing import reveal_type

import numpy as np

import minidit as md

pipeline = md.load()
reveal_type(pipeline)  # is Pipeline
pictures = pipeline.sample("shirt,bag", steps=20, guidance=2.0)
reveal_type(pictures)  # is Pictures
pipeline.sample("shirt", stps=20)  # error: Unexpected keyword argument "stps"
pipeline.sample("shirt", steps="many")  # error: Argument "steps" to "sample" of "Pipeline" has incompatible type "str"
pipeline.smaple("shirt")  # error: "Pipeline" has no attribute "smaple"

network = md.load("dit.safetensors", md.DiT)
reveal_type(network)  # is DiT
reveal_type(network.config.hidden_size)  # is int
md.load("runs/mine", stte="best")  # error: No overload variant of "load"
md.load("runs/mine").sample(stps=3)  # error: Unexpected keyword argument "stps"

digits = md.data.digits()
reveal_type(digits)  # is Dataset
model = md.DiT(md.DIT["digits"], md.Philox(0))
md.DiT("digits")  # error: Argument 1 to "DiT" has incompatible type "str"
md.DiTConfig(hiden_size=3)  # error: Unexpected keyword argument "hiden_size"
reveal_type(md.DIT["digits"])  # is DiTConfig
process = md.Diffusion.on_ladder(md.Schedule.cosine(1000), md.V)
for record in md.train(model, digits, process, steps=20, lr=3e-3):
    reveal_type(record)  # is dict[str, Any]
md.train(model, digits, stpes=3)  # error: Unexpected keyword argument "stpes" for "train"
md.train(model, "digits")  # error: Argument 2 to "train" has incompatible type "str"
x = md.sample(model, process, labels=[0, 1], steps=20, clip=True, solver=md.AB2)
reveal_type(x)  # is ndarray
md.sample(model, process, labels=[0], stepz=3)  # error: No overload variant of "sample"
md.sample(model, process, labels=[0], solver="heun")  # error: No overload variant of "sample"
md.Sampling(stps=3)  # error: Unexpected keyword argument "stps"
shown = md.Pictures(np.zeros((2, 1, 8, 8), np.float32), ["a", "b"])
reveal_type(shown.captions)  # is tuple[str, ...]
y = md.ops.softmax(md.Tensor(x), axs=1)  # error: Unexpected keyword argument "axs"
md.ops.softmax(x, axis="last")  # error: has incompatible type "str"
md.smaple(model)  # error: Module has no attribute "smaple"
report = md.verify.check({})
reveal_type(report.ok)  # is bool
