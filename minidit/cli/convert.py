"""`minidit convert`: shows the contents of a file of weights, and writes the network in another project's grammar."""

from __future__ import annotations

import argparse
from pathlib import Path

# the grammars and dialects of minidit.checkpoint, which is imported only when it is needed
GRAMMARS = ("minidit", "official", "diffusers", "diffusers-old", "ldm")
DIALECTS = ("official", "diffusers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="a file (safetensors, torch zip, an index of shards), a folder of diffusers, a run folder "
                        "(its model), or the name of shipped weights")  # fmt: skip
    parser.add_argument("destination", nargs="?", help="a .safetensors file, or a folder for diffusers (default: only show)")
    parser.add_argument("--to", choices=GRAMMARS, default="", help="the grammar to write, that is, whose names the arrays have "
                        "(default: minidit)")  # fmt: skip
    parser.add_argument("--dialect", choices=DIALECTS, help="how a DiT is computed (default: as its project does)")
    parser.add_argument("--num-heads", type=int, help="heads of an official DiT whose size is not that of a preset")
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32", "float64"), help="default: as in the file")
    parser.add_argument("--overwrite", action="store_true", help="replace what is at the destination already")
    parser.add_argument("--shard-mb", type=int, help="for folders: the largest size of a file, in MB, approximately")


def model_of(source: str) -> Path:
    """The file of weights that a name means: that of a run folder or of shipped weights; else the name itself."""
    from minidit.checkpoint import CONFIG
    from minidit.cli.about import shipped
    from minidit.runs.former import file_of
    from minidit.runs.presets import SHIPPED

    path = Path(source)
    if not path.exists() and source in shipped():
        path = SHIPPED / source
    if path.is_dir() and not (path / CONFIG).exists() and file_of(path, "model").exists():
        return file_of(path, "model")
    return path


def refuse_unknown(source: str) -> None:
    """Raises ValueError for a name that is neither a file or folder nor that of shipped weights, with those that there are."""
    from minidit.cli.about import shipped
    from minidit.cli.folders import run_meant
    from minidit.keywords import meant

    if not Path(source).exists() and source not in shipped():
        hint = meant(source, shipped()) or run_meant(source)
        raise ValueError(f"{source}: there is no such file or run folder, and no shipped weights of this name "
                         f"({', '.join(shipped())}){hint}")  # fmt: skip


def refuse_taken(destination: Path, overwrite: bool) -> None:
    """Raises ValueError if something is at the destination that would be replaced."""
    if not overwrite and destination.exists() and (destination.is_file() or any(destination.iterdir())):
        raise ValueError(f"{destination} exists already: choose another name, or add --overwrite")


def left_out(source: str) -> list[str]:
    """What a run folder or shipped weights hold besides the model, which alone is converted: one line, if anything."""
    from minidit.cli.about import shipped
    from minidit.runs.former import file_of
    from minidit.runs.presets import SHIPPED

    place = Path(source) if Path(source).exists() or source not in shipped() else SHIPPED / source
    if not place.is_dir() or not file_of(place, "tokenizer").exists():
        return []
    return [f"not converted: its tokenizer, which turns pictures into what the model draws: "
            f"minidit convert {file_of(place, 'tokenizer')} DESTINATION"]  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from minidit.checkpoint import describe, load_model, save
    from minidit.checkpoint.semantics import explained
    from minidit.checkpoint.writing import check_place
    from minidit.outgoing import check_writable

    if args.num_heads is not None and args.num_heads < 1:
        raise ValueError(f"--num-heads must be at least 1, got {args.num_heads}")
    if args.shard_mb is not None and args.shard_mb < 1:
        raise ValueError(f"--shard-mb must be at least 1, got {args.shard_mb}")
    if args.to and args.destination is None:
        raise ValueError(f"--to {args.to}: say where to write it: minidit convert {args.source} DESTINATION --to {args.to}")
    refuse_unknown(args.source)
    source, args.to = model_of(args.source), args.to or "minidit"
    contents = describe(source, dialect=args.dialect, num_heads=args.num_heads)
    shard_bytes = None if args.shard_mb is None else args.shard_mb * 10**6
    if args.destination is None:
        print(contents)
        return 0
    if Path(args.destination).resolve() == Path(source).resolve():
        raise ValueError(f"{args.destination}: source and destination are the same")
    folder = args.to.startswith("diffusers")
    if args.shard_mb is not None and not folder:
        raise ValueError(f"--shard-mb: the grammar {args.to} is one file: leave it out, or add --to diffusers")
    check_place(Path(args.destination), contents.kind, args.to, shard_bytes)
    refuse_taken(Path(args.destination), args.overwrite)  # last: nobody adds --overwrite only to be refused for another reason
    check_writable(Path(args.destination, "config.json") if folder else args.destination, contents.size)
    print(contents)
    cast = args.dtype if args.dtype == "bfloat16" else None  # NumPy cannot compute in it: it is only written
    dtype = "float32" if cast else args.dtype or contents.dtype
    model, _ = load_model(source, dtype=dtype, dialect=args.dialect, num_heads=args.num_heads)
    differences = save(args.destination, model, grammar=args.to, dtype=cast, shard_bytes=shard_bytes)
    print(f"{args.destination}: written in the grammar {args.to} (minidit info {args.destination} --all lists its arrays)")
    lines = [*left_out(args.source), *explained(differences)]
    print(*lines, sep="\n", end="\n" if lines else "")
    return 0
