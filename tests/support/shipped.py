"""The shipped entries, and the data they were made from."""

from schnet_ase import SchNetCalculator, SchNetEnsembleCalculator
from tests.support.paths import ROOT

DATASETS = ROOT.parent / "shared" / "data"
DATA = DATASETS / "rmd17"
ENTRIES = sorted(file.parent.name for file in (ROOT / "models").glob("*/card.json"))
SINGLE = ["qm9-u0"]
"""One network, of energies, where no cross-validation was made."""
ENSEMBLES = [name for name in ENTRIES if name not in SINGLE]
CALCULATORS = [SchNetCalculator, SchNetEnsembleCalculator]
