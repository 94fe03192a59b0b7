"""What can be written for LAMMPS, and what cannot."""

import pytest

from schnet_ase.errors import ExportError
from schnet_ase.export.lammps import write_model_file


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"envelope": "none"}, "LAMMPS needs a cutoff"),
        ({"norm": "rms"}, "does not cover norm 'rms'"),
        ({"activation": "gelu"}, "does not cover activation 'gelu'"),
        ({"dispersion": "pbe"}, r"includes D3\(BJ\) of pbe; give a model without it"),
    ],
)
def test_networks_that_lammps_cannot_run(tmp_path, make_model, config, words):
    model = make_model(0, **config)
    model.elements = (1, 8)
    with pytest.raises(ExportError, match=words) as caught:
        write_model_file(tmp_path / "model", [model], name="test")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_members_that_do_not_fit_together(tmp_path, make_model):
    models = [make_model(0), make_model(1)]
    with pytest.raises(ExportError, match="does not say which elements"):
        write_model_file(tmp_path / "model", models, name="test")
    models[0].elements, models[1].elements = (1, 8), (1, 6)
    with pytest.raises(ExportError, match="trained on different elements"):
        write_model_file(tmp_path / "model", models, name="test")
    with pytest.raises(ExportError, match="different configs"):
        write_model_file(tmp_path / "model", [make_model(0), make_model(0, n_features=8)], name="test")


def test_the_header_is_text(tmp_path, make_model):
    model = make_model(0)
    model.elements = (1, 8)
    write_model_file(tmp_path / "model", [model], name="my water", dtype="float64")
    header, _, body = (tmp_path / "model").read_bytes().partition(b"\n\n")
    lines = header.decode().splitlines()
    assert lines[0] == "schnet_ase-lammps 1"
    assert "name my_water" in lines
    assert "elements H O" in lines
    assert f"bytes {len(body)}" in lines
