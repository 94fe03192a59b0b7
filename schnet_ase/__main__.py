from schnet_ase.cli import main

main()
