"""The sub-commands of cppn-bt, one file each; cli.py loads them when they are asked for."""
