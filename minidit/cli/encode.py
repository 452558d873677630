"""`minidit encode`: pictures to the latents or tokens in which a model works, and back."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from minidit.cli.device import add_device, settle_device
from minidit.cli.folders import refuse_missing

if TYPE_CHECKING:
    from minidit.backend import Array
    from minidit.runs.pipeline import Pipeline

KINDS = ("latents", "codes")  # the array in a file
SHOWN = 10  # pictures of a PNG, unless -n says how many


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="PICTURES", help="a folder, a file or an embedded set, as for train; or an .npz that "
                        "this command wrote, which is decoded")  # fmt: skip
    parser.add_argument("run", nargs="?", metavar="RUN", help="a run folder (default: the shipped weights)")
    parser.add_argument("--weights", default="", metavar="NAME",
                        help="which of the shipped weights: fashion (latents; default), raster or scales (tokens)")
    parser.add_argument("--out", metavar="FILE",
                        help="an .npz: the latents or tokens; a .png: the pictures, and below them what comes back (default: "
                             "encoded.npz, or decoded.png)")
    parser.add_argument("-n", type=int, metavar="N", help=f"only the first N pictures (default: all; in a .png {SHOWN})")
    parser.add_argument("--skip-bad", action="store_true", help="leave out files of the folder that cannot be read")
    parser.add_argument("--size", type=int, metavar="N", help="resize pictures to N x N (default: as they are)")
    parser.add_argument("--channels", type=int, choices=(1, 3), help="grey or colour (default: as the pictures are)")
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    from minidit.outgoing import check_writable
    from minidit.runs.loading import load
    from minidit.runs.pipeline import Pipeline

    refuse_missing(args.run)
    if args.n is not None and args.n < 1:
        raise ValueError(f"-n {args.n} must be at least 1")
    pipeline = load(args.run, device=settle_device(args), weights=args.weights)
    if not isinstance(pipeline, Pipeline):
        raise ValueError(f"{args.run} is a single network: give the run's folder")
    if pipeline.tokenizer.unit == "pixel":
        raise ValueError("this model works on the pixels themselves: there is nothing to encode")
    coded = "codes" if pipeline.tokenizer.unit == "code" else "latents"
    written = already_encoded(args.source, coded)
    out = Path(args.out or ("encoded.npz" if written is None else "decoded.png"))
    if out.suffix.lower() not in (".npz", ".png") or (written is not None and out.suffix.lower() != ".png"):
        raise ValueError(f"--out {out}: the name must end in .png" + (" or .npz" if written is None else ""))
    check_writable(out)
    if written is not None:
        show(out, pipeline, written[: args.n])
    else:
        encode(args, out, pipeline, coded)
    print(out)
    return 0


def already_encoded(source: str, name: str) -> Array | None:
    """The latents or tokens that this command wrote; None if the source holds pictures. Raises ValueError for the other kind."""
    from minidit.data.npz import read_arrays

    path = Path(source)
    arrays = read_arrays(path) if path.suffix == ".npz" and path.is_file() else {}
    if name not in arrays and (other := [kind for kind in KINDS if kind in arrays]):
        raise ValueError(f"{source}: holds {other[0]}, and this model has {name}: name the one that it was made with")
    return arrays.get(name)


def encode(args: argparse.Namespace, out: Path, pipeline: Pipeline, name: str) -> None:
    """Writes latents or tokens, or a picture of both ways."""
    import io

    import numpy as np

    from minidit import data
    from minidit.backend import to_host
    from minidit.metrics import psnr
    from minidit.outgoing import write_atomically
    from minidit.pictures import save_png
    from minidit.runs.show import reconstructions

    drawn = out.suffix.lower() == ".png"
    pictures = data.load(args.source, size=args.size, channels=args.channels, skip_bad=args.skip_bad)
    try:
        pipeline.tokenizer.shape(*pictures.shape)
    except ValueError as error:
        raise ValueError(f"{error}: --size N and --channels 1 or 3 make them fit, or name a RUN of such pictures") from error
    pictures = pictures.take(slice(args.n or (SHOWN if drawn else len(pictures))))
    x_0 = to_host(pipeline.encode(pictures.x_0()))
    if drawn:
        x, back = pictures.x_0(), pipeline.tokenizer.decode(x_0)
        save_png(out, reconstructions(pictures.inner(x), pictures.inner(back)))
        decibels = psnr(pictures.inner(back), pictures.inner(x))
        print(f"{len(x)} pictures, there and back: {decibels:.1f} dB (PSNR)", file=sys.stderr)
        return
    buffer, arrays = io.BytesIO(), {name: x_0}
    if pictures.labels is not None:
        arrays["labels"] = pictures.labels
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_atomically(out, buffer.getvalue())
    each, model = " x ".join(map(str, x_0.shape[1:])), args.run or (f"--weights {args.weights}" if args.weights else "")
    way_back = f"minidit encode {out} {model}".rstrip()
    print(f"{len(x_0):,} pictures, {name} of {each} each; {way_back} makes pictures of them", file=sys.stderr)


def show(out: Path, pipeline: Pipeline, x_0: Array) -> None:
    """Decodes latents or tokens to a grid. Raises ValueError for those of another model."""
    from minidit.pictures import grid, save_png
    from minidit.runs.show import columns_of

    shape = pipeline.model.shape
    if x_0.ndim != len(shape) + 1 or x_0.shape[1] != shape[0]:
        raise ValueError(f"the file holds arrays of {x_0.shape[1:]}, this model's are {tuple(shape)}")
    x = pipeline.pictures(x_0)
    save_png(out, grid(x, columns=columns_of(x)))
