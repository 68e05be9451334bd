"""The zoo's command line: `python -m tinytorch.zoo list | train NAME | evaluate NAME`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from tinytorch.data import DataError
from tinytorch.zoo import RECIPES, files, load
from tinytorch.zoo.training import Interrupted, train


def describe(card: dict[str, Any]) -> str:
    """Say in one line what a model is and what it reaches."""
    rows = (f"{row['value']:.4f} {row['unit']}, {row['what']}" for row in card["rows"].values())
    return f"{card['name']}: {card['parameters']:,} parameters; " + "; ".join(rows)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0, 1 for an error that was explained, or 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tinytorch.zoo", description="The trained models of the book.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="show what each model is and what it reaches")
    for command, text in (
        ("train", "train a model and write weights and card"),
        ("evaluate", "re-evaluate shipped weights"),
    ):
        sub = commands.add_parser(command, help=text)
        sub.add_argument("name", choices=RECIPES)
        if command == "train":
            sub.add_argument("--resume", action="store_true", help="go on from the checkpoint")
            sub.add_argument("--checkpoint", type=Path, help="default: checkpoints/NAME.safetensors")
            sub.add_argument("--seed", type=int, default=0)
            sub.add_argument("--steps", type=int, help="another number of steps than the recipe's")
            sub.add_argument("--out", type=Path, default=files.FOLDER, help="folder for weights and card")
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "list":
            for name in RECIPES:
                print(describe(files.read_card(name)))
        elif arguments.command == "evaluate":
            r = RECIPES[arguments.name]
            print(f"{arguments.name}: {r.evaluate(load(arguments.name)):.4f} {r.metric['unit']}, {r.metric['what']}")
        else:
            name = arguments.name
            checkpoint = arguments.checkpoint or Path("checkpoints") / f"{name}.safetensors"
            model, card = train(name, checkpoint, arguments.resume, arguments.seed, arguments.steps)
            print(files.save_model(name, model.state_dict(), card, arguments.out))
            print(describe(card))
    except Interrupted as stop:
        print(f"\n{stop}", file=sys.stderr)
        return 130
    except (DataError, FileExistsError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
