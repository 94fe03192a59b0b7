"""info --compile leaves nothing to compile for later processes."""

from pathlib import Path


def test_info_compiles_each_function_and_says_where(run):
    status, out, said = run("info", "--compile")
    assert status == 0, said
    (line,) = [line for line in out.splitlines() if line.startswith("machine code")]
    folder = Path(line.removeprefix("machine code").strip())
    for function, signatures in (("kernel.run_stages", 2), ("cells.find_near", 1), ("gradients.add_pair_gradients", 2)):
        assert len(list(folder.glob(f"{function}-*.nbc"))) >= signatures, "one for each dtype"
