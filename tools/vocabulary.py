"""Finds private words where the field has one: prints file, line and the field's word; exit status 1 if there are any.

    python tools/vocabulary.py

Read are src, docs without the lab book, which is history, and README.md. Words with another, ordinary sense are not
listed.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SUFFIXES = {".py", ".md", ".html", ".js", ".css"}

WORDS = {
    r"pictures?": "image",
    r"teach(es|ing|er)?|taught|lessons?|by heart": "train, targets, box-supervised",
    r"pseudo(_| )box(es)?": "pseudo label",
    r"opinions?": "out-of-fold prediction, cross-fitting",
    r"(agreed|sure|surest) boxes": "kept labels, consensus",
    r"closer look|looked at (once more|from closer by)": "rescaled pass",
    r"foregrounds?": "objectness",
    r"shin(e|es|ing)|word of the localizer": "CAM response, image-level score",
    r"doubt(s|ed|ful)?|ha(s|ve) a say": "rescoring",
    r"true box(es)?": "ground truth",
    r"ceilings?": "fully supervised upper bound",
    r"leaders?": "shared weights",
    r"hollow|surrounding frames?|surroundings": "context region, background",
    r"equalis\w*": "unit RMS",
    r"described_by": "out_channels",
    r"absence loss": "negative-label loss",
    r"localizers?": "CAM",
    r"mend(s|ed|ing)?": "fix",
    r"parted( by)?": "separated by",
    r"spelt otherwise": "spelled differently",
    r"(say|says|said) ((something|what) )?(else )?of ((the|an?|one|their) )?images?": "describe, label",
}

# Folders that users have.
ALLOWED = {("src/boxless/datasets/folders.py", "pictures"), ("src/boxless/datasets/voc_pairs.py", "pictures")}


def main() -> int:
    """Check every file and print what was found."""
    trees = [path for name in ("src", "docs") for path in sorted((ROOT / name).rglob("*"))]
    files = [path for path in trees if path.suffix in SUFFIXES and not {"lab_book", "_build"} & set(path.parts)]
    found = 0
    for file in [*files, ROOT / "README.md"]:
        text = file.read_text(encoding="utf-8")
        for pattern, instead in WORDS.items():
            # A phrase may continue on the next line, after the marks of a comment.
            phrase = pattern.replace(" ", r"[\s#>*]+")
            for match in re.finditer(rf"(?<![A-Za-z])({phrase})(?![A-Za-z])", text, re.IGNORECASE):
                line, path = text.count("\n", 0, match.start()) + 1, file.relative_to(ROOT).as_posix()
                if (path, match.group()) not in ALLOWED:
                    print(f"{path}:{line}: {' '.join(match.group().split())} -> {instead}")
                    found += 1
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
