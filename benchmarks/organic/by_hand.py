"""Small families written out: amino acids and peptides, sugars, nucleobases, solvents and other small molecules.

All of them are neutral: acids with their proton, amines without a second one.
"""

from __future__ import annotations

from itertools import product

# One-letter codes; the side chains as in proteins, L. The chain goes on at the end.
RESIDUES = {
    "G": "NCC(=O)",
    "A": "N[C@@H](C)C(=O)",
    "V": "N[C@@H](C(C)C)C(=O)",
    "L": "N[C@@H](CC(C)C)C(=O)",
    "I": "N[C@@H]([C@@H](C)CC)C(=O)",
    "S": "N[C@@H](CO)C(=O)",
    "T": "N[C@@H]([C@H](O)C)C(=O)",
    "C": "N[C@@H](CS)C(=O)",
    "M": "N[C@@H](CCSC)C(=O)",
    "F": "N[C@@H](Cc1ccccc1)C(=O)",
    "Y": "N[C@@H](Cc1ccc(O)cc1)C(=O)",
    "W": "N[C@@H](Cc1c[nH]c2ccccc12)C(=O)",
    "H": "N[C@@H](Cc1c[nH]cn1)C(=O)",
    "K": "N[C@@H](CCCCN)C(=O)",
    "R": "N[C@@H](CCCNC(N)=N)C(=O)",
    "D": "N[C@@H](CC(O)=O)C(=O)",
    "E": "N[C@@H](CCC(O)=O)C(=O)",
    "N": "N[C@@H](CC(N)=O)C(=O)",
    "Q": "N[C@@H](CCC(N)=O)C(=O)",
    "P": "N1CCC[C@H]1C(=O)",
}


def peptide(sequence: str, capped: bool) -> str:
    """SMILES of a sequence of one-letter codes: a free acid, or between acetyl and N-methyl amide."""
    chain = "".join(RESIDUES[code] for code in sequence)
    return f"CC(=O){chain}NC" if capped else f"{chain}O"


def peptides(length: int) -> dict[str, str]:
    """SMILES of all sequences of a length by name; longer than two only as free acids."""
    names = {}
    for codes in product(RESIDUES, repeat=length):
        sequence = "".join(codes)
        names[f"peptide-{sequence}"] = peptide(sequence, capped=False)
        if length <= 2:
            names[f"capped-{sequence}"] = peptide(sequence, capped=True)
    return names


SUGARS = {
    "alpha-glucose": "OC[C@H]1O[C@H](O)[C@H](O)[C@@H](O)[C@@H]1O",
    "beta-glucose": "OC[C@H]1O[C@@H](O)[C@H](O)[C@@H](O)[C@@H]1O",
    "alpha-mannose": "OC[C@H]1O[C@H](O)[C@@H](O)[C@@H](O)[C@@H]1O",
    "beta-galactose": "OC[C@H]1O[C@@H](O)[C@H](O)[C@@H](O)[C@H]1O",
    "open-glucose": "OC[C@@H](O)[C@@H](O)[C@H](O)[C@@H](O)C=O",
    "open-fructose": "OCC(=O)[C@@H](O)[C@H](O)[C@H](O)CO",
    "fructofuranose": "OC[C@H]1OC(O)(CO)[C@@H](O)[C@@H]1O",
    "ribose": "OC[C@H]1OC(O)[C@H](O)[C@@H]1O",
    "deoxyribose": "OC[C@H]1OC(O)C[C@@H]1O",
    "ribopyranose": "OC1COC(O)C(O)C1O",
    "xylose": "O[C@@H]1COC(O)[C@H](O)[C@H]1O",
    "fucose": "CC1OC(O)C(O)C(O)C1O",
    "glyceraldehyde": "OCC(O)C=O",
    "dihydroxyacetone": "OCC(=O)CO",
    "erythrose": "OCC(O)C(O)C=O",
    "glucosamine": "OC[C@H]1OC(O)[C@H](N)[C@@H](O)[C@@H]1O",
    "n-acetylglucosamine": "CC(=O)N[C@H]1C(O)O[C@H](CO)[C@@H](O)[C@@H]1O",
    "glucuronic-acid": "OC1OC(C(O)=O)C(O)C(O)C1O",
    "gluconolactone": "OCC1OC(=O)C(O)C(O)C1O",
    "methyl-glucoside": "CO[C@H]1O[C@H](CO)[C@@H](O)[C@H](O)[C@H]1O",
    "sorbitol": "OCC(O)C(O)C(O)C(O)CO",
    "xylitol": "OCC(O)C(O)C(O)CO",
    "inositol": "OC1C(O)C(O)C(O)C(O)C1O",
    "ascorbic-acid": "OC[C@H](O)[C@H]1OC(=O)C(O)=C1O",
    "sucrose": "OC[C@H]1O[C@H](O[C@]2(CO)O[C@H](CO)[C@@H](O)[C@@H]2O)[C@H](O)[C@@H](O)[C@@H]1O",
    "lactose": "OCC1OC(OC2C(CO)OC(O)C(O)C2O)C(O)C(O)C1O",
    "trehalose": "OCC1OC(OC2OC(CO)C(O)C(O)C2O)C(O)C(O)C1O",
    "xylobiose": "OC1COC(OC2COC(O)C(O)C2O)C(O)C1O",
}
NUCLEOBASES = {
    "adenine": "Nc1ncnc2[nH]cnc12",
    "adenine-7h": "Nc1ncnc2nc[nH]c12",
    "guanine": "Nc1nc2[nH]cnc2c(=O)[nH]1",
    "cytosine": "Nc1cc[nH]c(=O)n1",
    "thymine": "Cc1c[nH]c(=O)[nH]c1=O",
    "uracil": "O=c1cc[nH]c(=O)[nH]1",
    "9-methyladenine": "Cn1cnc2c(N)ncnc12",
    "9-methylguanine": "Cn1cnc2c1nc(N)[nH]c2=O",
    "1-methylcytosine": "Cn1ccc(N)nc1=O",
    "1-methylthymine": "Cc1cn(C)c(=O)[nH]c1=O",
    "5-methylcytosine": "Cc1c[nH]c(=O)nc1N",
    "5-fluorouracil": "O=c1[nH]cc(F)c(=O)[nH]1",
    "5-chlorouracil": "O=c1[nH]cc(Cl)c(=O)[nH]1",
    "4-thiouracil": "O=c1[nH]ccc(=S)[nH]1",
    "6-mercaptopurine": "S=c1[nH]cnc2[nH]cnc12",
    "hypoxanthine": "O=c1[nH]cnc2[nH]cnc12",
    "xanthine": "O=c1[nH]c(=O)c2[nH]cnc2[nH]1",
    "uric-acid": "O=c1[nH]c(=O)c2[nH]c(=O)[nH]c2[nH]1",
    "purine": "c1ncc2[nH]cnc2n1",
    "caffeine": "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
    "theophylline": "Cn1c(=O)c2[nH]cnc2n(C)c1=O",
    "dihydrouracil": "O=C1CCNC(=O)N1",
    "barbituric-acid": "O=C1CC(=O)NC(=O)N1",
    "adenosine": "Nc1ncnc2c1ncn2[C@@H]1O[C@H](CO)[C@@H](O)[C@H]1O",
    "guanosine": "Nc1nc2c(ncn2[C@@H]2O[C@H](CO)[C@@H](O)[C@H]2O)c(=O)[nH]1",
    "cytidine": "Nc1ccn([C@@H]2O[C@H](CO)[C@@H](O)[C@H]2O)c(=O)n1",
    "uridine": "O=c1ccn([C@@H]2O[C@H](CO)[C@@H](O)[C@H]2O)c(=O)[nH]1",
    "thymidine": "Cc1cn([C@H]2C[C@H](O)[C@@H](CO)O2)c(=O)[nH]c1=O",
    "deoxyadenosine": "Nc1ncnc2c1ncn2[C@H]1C[C@H](O)[C@@H](CO)O1",
}
_SMALL = (
    # Hydrides and gases
    "[H][H] O N C S F Cl O=[O+][O-] OO NN SS O=C=O [C-]#[O+] C#N N#N S=C=S O=C=S O=S=O O=S(=O)=O [N-]=[N+]=O OCl NO "
    "O=NO O[N+](=O)[O-] OS(=O)(=O)O OS(=O)O ClCl FF FCl N#CC#N C=O C=C C#C CC OC=O NC=O C=N C=C=C C=C=O N=C=O N=C=S "
    "FC(F)(F)F ClC(Cl)(Cl)Cl FS(F)(F)(F)(F)F ClSCl O=C(Cl)Cl O=C(F)F O=S(Cl)Cl O=S(=O)(Cl)Cl FN(F)F ClN(Cl)Cl CF CCl "
    # Solvents
    "CO CCO CCCO CC(C)O CCCCO CC(C)(C)O OCCO OCC(O)CO CC(C)=O CCC(C)=O CC#N CCC#N CS(C)=O CN(C)C=O CC(=O)N(C)C "
    "CN1CCCC1=O C1CCOC1 C1COCCO1 CCOCC COCCOC CC(C)(C)OC CCOC(C)=O COC(C)=O CC(O)=O OC(=O)C(F)(F)F OCC(F)(F)F "
    "ClCCl ClC(Cl)Cl ClCCCl CC(Cl)(Cl)Cl ClC=C(Cl)Cl CCCCC CCCCCC C1CCCCC1 CCCCCCC CC(C)CC(C)(C)C c1ccccc1 Cc1ccccc1 "
    "Cc1ccc(C)cc1 Clc1ccccc1 Fc1ccccc1 FC(F)(F)c1ccccc1 N#Cc1ccccc1 COc1ccccc1 O=[N+]([O-])c1ccccc1 c1ccncc1 "
    "C1CCNCC1 C1COCCN1 CCN(CC)CC CCNCC CN(C)C NCCN C[N+](=O)[O-] S=C=S O=S1(=O)CCCC1 Nc1ccccc1 Oc1ccccc1 "
    "O=C1CCCCC1 O=C1CCCO1 COC(=O)OC O=C1OCCO1 CN1CCN(C)C1=O c1ccsc1 c1ccoc1 c1cc[nH]c1 c1c[nH]cn1 c1cscn1 c1cocn1 "
    # Functional groups with sulphur and halogens
    "CS CCS CSC CSSC CC(=S)N NC(N)=S NC(N)=O CC(=O)SC CS(N)(=O)=O CS(C)(=O)=O CS(=O)(=O)O CS(=O)(=O)Cl CS(=O)(=O)F "
    "CNS(C)(=O)=O NS(N)(=O)=O Cc1ccc(S(N)(=O)=O)cc1 NS(=O)(=O)c1ccccc1 CS(=O)c1ccccc1 CSc1ccccc1 Sc1ccccc1 O=CS "
    "CN=C=S CSC#N ClC=C FC=C ClC#C FC(F)=C(F)F ClC(Cl)=C(Cl)Cl OC(Cl)Cl CC(=O)Cl CC(=O)F COCl CNCl Clc1ccccc1Cl "
    "Clc1cccc(Cl)c1 Clc1ccc(Cl)cc1 Fc1ccc(F)cc1 Fc1c(F)c(F)c(F)c(F)c1F Clc1ccncc1 C1CS1 C1CSC1 C1CCSC1 C1CSCCS1 "
    "S=C1NCCN1 O=C1CSC(=O)N1 c1ccc2sccc2c1 c1nncs1 O=C1NC(=O)c2ccccc2S1 FC(F)Cl CN=NC C[N+]([O-])=NC CON=C CC=NO "
    "[N-]=[N+]=CC CN=[N+]=[N-] N#[N+][O-] CC(=O)OO COOC CC(=O)OC(C)=O C1OC1 C1CN1 CC(=O)CC(C)=O CC(O)=CC(C)=O"
)
SMALL = _SMALL.split()
