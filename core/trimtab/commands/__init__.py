"""The command's larger commands, one file each."""
