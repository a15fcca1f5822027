"""Where things are: the root of the repository, its examples and goldens, the shared captures."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
SPECS = ROOT / "specs"
SHARED = ROOT.parent / "shared"
